"""Run as a process: Hadoop's own library writes the files of `hadoop_cases` and reads ours.

Arguments: the directory to write to, the file to read, and where its pairs go as JSON.
"""

from __future__ import annotations

import json
import struct
import sys
from pathlib import Path
from typing import Any

from pyspark.java_gateway import launch_gateway

from tests.builder.hadoop_cases import CASES, Case, floats


class Hadoop:
    """Hadoop's SequenceFiles in a JVM."""

    def __init__(self) -> None:
        self._gateway: Any = launch_gateway()  # type: ignore[no-untyped-call]
        self._jvm = self._gateway.jvm
        self._io = self._jvm.org.apache.hadoop.io
        self._conf = self._jvm.org.apache.hadoop.conf.Configuration()
        self._conf.set("fs.file.impl", "org.apache.hadoop.fs.RawLocalFileSystem")

    def end(self) -> None:
        self._gateway.shutdown()
        self._gateway.proc.stdin.close()
        self._gateway.proc.wait(30)

    def write(self, case: Case, target: Path) -> None:
        # Several blocks in a file, but those of large values as large as Hadoop makes them.
        self._conf.setInt("io.seqfile.compress.blocksize", 500 if case.dim < 10 else 1_000_000)
        writer = self._writer(case, target)
        for key, value in case.pairs():
            writer.append(self._key(case.key_class, key), self._value(case.value_class, value))
        writer.close()

    def read(self, source: Path) -> list[tuple[str, str]]:
        """Contents of BytesWritable keys and values, in hexadecimal."""
        file = getattr(self._io, "SequenceFile$Reader").file(self._path(source))
        options = self._array("SequenceFile$Reader$Option", [file])
        reader = getattr(self._io, "SequenceFile$Reader")(self._conf, options)
        key, value = self._io.BytesWritable(), self._io.BytesWritable()
        pairs = []
        while reader.next(key, value):
            pairs.append((bytes(key.copyBytes()).hex(), bytes(value.copyBytes()).hex()))
        reader.close()
        return pairs

    def _writer(self, case: Case, target: Path) -> Any:
        option = self._io.SequenceFile.Writer
        types = getattr(self._io, "SequenceFile$CompressionType")
        options = [
            option.file(self._path(target)),
            option.keyClass(self._class(case.key_class)),
            option.valueClass(self._class(case.value_class)),
        ]
        if case.mode:
            codec = getattr(self._io.compress, case.codec)()
            codec.setConf(self._conf)
            options.append(option.compression(types.valueOf(case.mode), codec))
        else:
            options.append(option.compression(types.valueOf("NONE")))
        return self._io.SequenceFile.createWriter(
            self._conf, self._array("SequenceFile$Writer$Option", options)
        )

    def _key(self, name: str, key: int) -> Any:
        if name == "BytesWritable":
            return self._io.BytesWritable(bytearray(struct.pack("<q", key)))
        writable = getattr(self._io, name)()
        writable.set(str(key) if name == "Text" else self._long(key, name))
        return writable

    def _long(self, key: int, name: str) -> Any:
        # py4j passes small numbers as int, which a method that takes long accepts.
        return key if name == "IntWritable" else self._jvm.java.lang.Long.valueOf(str(key))

    def _value(self, name: str, value: bytes) -> Any:
        if name == "BytesWritable":
            return self._io.BytesWritable(bytearray(value))
        if name == "Text":
            text = self._io.Text()
            text.set("  ".join(map(repr, floats(value))) + " ")
            return text
        elements = [self._io.FloatWritable(element) for element in floats(value)]
        array = self._io.ArrayWritable(self._class("FloatWritable"))
        array.set(self._array("Writable", elements))
        return array

    def _class(self, name: str) -> Any:
        return self._jvm.java.lang.Class.forName(f"org.apache.hadoop.io.{name}")

    def _path(self, path: Path) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(path.absolute().as_uri())

    def _array(self, name: str, elements: list[Any]) -> Any:
        array = self._gateway.new_array(getattr(self._io, name), len(elements))
        for index, element in enumerate(elements):
            array[index] = element
        return array


def main(target: Path, source: Path, report: Path) -> None:
    hadoop = Hadoop()
    try:
        for case in CASES:
            hadoop.write(case, target / case.name)
        report.write_text(json.dumps(hadoop.read(source)))
    finally:
        hadoop.end()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
