"""What stands before the elements of a tensor in Paddle's binary format: a parameter of a model, a
variable of `save_vars` or of `paddle.save(…, use_binary_format=True)`.

u32 version (0), u64 levels, then per level u64 size and that many bytes,
u32 version (0), i32 size of the description, TensorDesc, the elements
"""

from __future__ import annotations

import struct
from typing import BinaryIO, NamedTuple

from google.protobuf.message import DecodeError

from cube_core.errors import FormatError
from cube_proto.paddle_tensor_pb2 import TensorDesc

FLOAT32 = 5
"""The number of Paddle's data type."""

_LEVELS_MAX = 16
_DESCRIPTION_BYTES_MAX = 1 << 16


class TensorHead(NamedTuple):
    """Which elements follow, and at which offset of the file.

    Attributes:
        data_type: number of Paddle's data type.
        shape: as it is written; a dimension may be below 0.
    """

    data_type: int
    shape: tuple[int, ...]
    elements_at: int


def read_tensor_head(file: BinaryIO) -> TensorHead:
    """Reads it from where the file is, which is then where the elements begin.

    Raises:
        FormatError: cut off, or no tensor; names the offset, not the file.
    """
    begin = file.tell()
    version, levels = struct.unpack("<IQ", _read(file, 12))
    if version != 0:
        raise FormatError(f"version {version} (offset {begin}); only 0 is supported")
    if levels > _LEVELS_MAX:
        raise FormatError(f"{levels} levels of detail (offset {begin + 4}); no tensor of Paddle")
    for _ in range(levels):
        (level_bytes,) = struct.unpack("<Q", _read(file, 8))
        _skip(file, level_bytes)
    at = file.tell()
    version, description_bytes = struct.unpack("<Ii", _read(file, 8))
    if version != 0:
        raise FormatError(f"version {version} (offset {at}); only 0 is supported")
    if not 0 < description_bytes <= _DESCRIPTION_BYTES_MAX:
        raise FormatError(
            f"a description of {description_bytes} bytes (offset {at + 4}); no tensor of Paddle"
        )
    try:
        description = TensorDesc.FromString(_read(file, description_bytes))
    except DecodeError as error:
        raise FormatError(f"the description at offset {at + 8} does not parse: {error}") from error
    return TensorHead(description.data_type, tuple(description.dims), file.tell())


def _read(file: BinaryIO, size: int) -> bytes:
    offset = file.tell()
    data = file.read(size)
    if len(data) != size:
        raise FormatError(f"ends inside the header of a tensor (offset {offset})")
    return data


def _skip(file: BinaryIO, size: int) -> None:
    offset = file.tell()
    if size > file.seek(0, 2) - offset:
        raise FormatError(f"a level of {size} bytes (offset {offset}) is longer than the file")
    file.seek(offset + size)
