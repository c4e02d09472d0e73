"""Files by address: local paths, and every scheme that pyarrow or fsspec has a filesystem for."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cube_builder.optional import require
from cube_core.errors import BuildError
from cube_core.filesystems import filesystem_of, first_line

# What is written there appears when it is closed, and a move is a copy of every byte.
_OBJECT_STORES = ("s3", "gcs", "abfs")
_COPY_BYTES = 8 << 20


@dataclass(frozen=True)
class Place:
    """A directory or file on a filesystem; it can be sent to another process."""

    filesystem: Any
    path: str

    @classmethod
    def at(cls, address: str) -> Place:
        """The place of a path, or of a URI such as hdfs://…, s3://…, gs://…; fsspec is asked for
        what pyarrow cannot reach.

        Raises:
            BuildError: a library is not installed, or none has a filesystem for it.
        """
        require("pyarrow.fs", "spark", "the Spark engine")
        try:
            return cls(*filesystem_of(address))
        except (ImportError, ValueError, OSError) as error:
            raise BuildError(f"{address}: no such filesystem: {first_line(error)}") from error

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
