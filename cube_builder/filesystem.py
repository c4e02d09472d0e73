"""Files by address: local paths, and every scheme that pyarrow or fsspec has a filesystem for."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cube_builder.optional import require
from cube_core.errors import BuildError

# Hadoop's names for what pyarrow knows under another.
_SCHEMES = {"s3a": "s3", "s3n": "s3"}
# What is written there appears when it is closed, and a move is a copy of every byte.
_OBJECT_STORES = ("s3", "gcs", "abfs")
_COPY_BYTES = 8 << 20
_UNKNOWN_SCHEME = "Unrecognized filesystem type"


@dataclass(frozen=True)
class Place:
    """A directory or file on a filesystem; it can be sent to another process."""

    filesystem: Any
    path: str

    @classmethod
    def at(cls, address: str) -> Place:
        """The place of a path, or of a URI such as hdfs://…, s3://…, gs://…; fsspec is asked for
        schemes that pyarrow does not know.

        Raises:
            BuildError: pyarrow or fsspec is not installed, or neither has a filesystem for it.
        """
        fs = require("pyarrow.fs", "spark", "the Spark engine")
        scheme, separator, rest = address.partition("://")
        if not separator:
            address = str(Path(address).absolute())
        elif scheme in _SCHEMES:
            address = f"{_SCHEMES[scheme]}://{rest}"
        try:
            filesystem, path = fs.FileSystem.from_uri(address)
        except (ValueError, OSError) as error:
            if _UNKNOWN_SCHEME not in str(error):
                raise BuildError(f"{address}: no such filesystem: {error}") from error
            filesystem, path = _in_fsspec(address)
            filesystem = fs.PyFileSystem(fs.FSSpecHandler(filesystem))
        return cls(filesystem, path.rstrip("/"))

    def __truediv__(self, name: str) -> Place:
        return Place(self.filesystem, f"{self.path}/{name}")

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    def files(self) -> list[Place]:
        """The file itself, or all below the directory; none when there is nothing."""
        fs = require("pyarrow.fs", "spark", "the Spark engine")
        info = self.filesystem.get_file_info(self.path)
        if info.type == fs.FileType.File:
            return [self]
        selector = fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        below = self.filesystem.get_file_info(selector)
        return [Place(self.filesystem, file.path) for file in below if file.is_file]

    def size(self) -> int:
        return int(self.filesystem.get_file_info(self.path).size)

    def read(self) -> bytes:
        with self.filesystem.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def write(self, content: bytes) -> None:
        with self.filesystem.open_output_stream(self.path) as stream:
            stream.write(content)

    def fetch(self, target: Path) -> None:
        """Copies the file to a local one."""
        with self.filesystem.open_input_stream(self.path) as source, target.open("wb") as file:
            shutil.copyfileobj(source, file, _COPY_BYTES)

    @property
    def is_in_object_store(self) -> bool:
        """Whether files appear whole by themselves, and are moved by being copied."""
        return self.filesystem.type_name in _OBJECT_STORES

    def store(self, source: Path) -> None:
        """Copies a local file here; it appears under its name whole."""
        written = self.path
        if not self.is_in_object_store:
            written = f"{self.path}.{source.parent.name}.part"
        with source.open("rb") as file, self.filesystem.open_output_stream(written) as stream:
            shutil.copyfileobj(file, stream, _COPY_BYTES)
        if written != self.path:
            self.filesystem.move(written, self.path)

    def make_directory(self) -> None:
        self.filesystem.create_dir(self.path, recursive=True)

    def remove_directory(self) -> None:
        fs = require("pyarrow.fs", "spark", "the Spark engine")
        if self.filesystem.get_file_info(self.path).type == fs.FileType.Directory:
            self.filesystem.delete_dir(self.path)

    def move(self, target: Place) -> None:
        self.filesystem.move(self.path, target.path)


def _in_fsspec(address: str) -> tuple[Any, str]:
    core = require("fsspec.core", "spark", f"{address.partition('://')[0]}://")
    try:
        filesystem, path = core.url_to_fs(address)
    except (ValueError, ImportError, OSError) as error:
        # Of what it knows but has no library for, it says which one to install.
        raise BuildError(f"{address}: no such filesystem: {error}") from error
    return filesystem, path
