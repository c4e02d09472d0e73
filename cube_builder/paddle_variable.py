"""One variable in Paddle's binary format (`save_vars`, `paddle.save(…, use_binary_format=True)`).

u32 version (0), u64 levels, then per level u64 size and that many bytes,
u32 version (0), i32 size of the description, TensorDesc, the elements
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from cube_core.errors import BuildError
from cube_proto.paddle_tensor_pb2 import TensorDesc

_FLOAT32 = 5
_LEVELS_MAX = 16
_DESCRIPTION_BYTES_MAX = 1024


def map_variable(path: Path) -> NDArray[np.float32]:
    """Maps the elements of a float32 variable, in its own shape, read-only.

    Raises:
        BuildError: truncated, malformed, of another type, or more than one variable; names file
            and offset.
    """
    with path.open("rb") as file:
        description = _read_description(path, file)
        offset = file.tell()
    shape = tuple(description.dims)
    if description.data_type != _FLOAT32:
        raise BuildError(
            f"{path}: elements of Paddle's data type {description.data_type}; only float32 "
            f"({_FLOAT32}) is supported"
        )
    if any(size < 1 for size in shape):
        raise BuildError(f"{path}: shape {list(shape)} has a dimension below 1")
    expected = offset + 4 * math.prod(shape)
    found = path.stat().st_size
    if found != expected:
        raise BuildError(
            f"{path}: {found} bytes, but a variable of shape {list(shape)} ends at offset "
            f"{expected}; the file is cut off or holds several variables"
        )
    return np.memmap(path, dtype="<f4", mode="r", offset=offset, shape=shape)


def _read_description(path: Path, file: BinaryIO) -> TensorDesc:
    _require_version(path, file)
    (levels,) = struct.unpack("<Q", _read(path, file, 8))
    if levels > _LEVELS_MAX:
        raise BuildError(f"{path}: {levels} levels of detail (offset 4); no variable of Paddle")
    for _ in range(levels):
        (size,) = struct.unpack("<Q", _read(path, file, 8))
        if size > path.stat().st_size:
            raise BuildError(f"{path}: a level of {size} bytes is longer than the file")
        file.seek(size, 1)
    _require_version(path, file)
    (size,) = struct.unpack("<i", _read(path, file, 4))
    if not 0 < size <= _DESCRIPTION_BYTES_MAX:
        raise BuildError(f"{path}: a description of {size} bytes; no variable of Paddle")
    try:
        return TensorDesc.FromString(_read(path, file, size))
    except DecodeError as error:
        raise BuildError(f"{path}: the variable's description does not parse: {error}") from error


def _require_version(path: Path, file: BinaryIO) -> None:
    offset = file.tell()
    (version,) = struct.unpack("<I", _read(path, file, 4))
    if version != 0:
        raise BuildError(f"{path}: version {version} (offset {offset}); only 0 is supported")


def _read(path: Path, file: BinaryIO, size: int) -> bytes:
    offset = file.tell()
    data = file.read(size)
    if len(data) != size:
        raise BuildError(f"{path}: the file ends inside the variable's header (offset {offset})")
    return data
