"""The parameters beside a program, looked over before Paddle reads them.

Paddle takes sizes out of a file that was cut off as they come: it may give memory by the terabyte
to a tensor that is not there, or serve what happened to be in it. In the file, one after another:

u32 version (0), u64 levels, then per level u64 size and that many bytes,
u32 version (0), i32 size of the description, TensorDesc, the elements
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import BinaryIO

from google.protobuf.message import DecodeError

from cube_core.errors import ModelError
from cube_proto.paddle_tensor_pb2 import TensorDesc

_LEVELS_MAX = 16
_DESCRIPTION_BYTES_MAX = 1 << 16
# Bytes of an element by the number of Paddle's data type.
_ELEMENT_BYTES = {
    0: 1, 1: 2, 2: 4, 3: 8, 4: 2, 5: 4, 6: 8, 20: 1, 21: 1, 22: 2, 23: 8, 24: 16,
}  # fmt: skip


def check_weights(path: Path) -> None:
    """Checks that a file of parameters is whole tensors to its end.

    Raises:
        ModelError: it is not; names the file and the offset.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        while (offset := file.tell()) < size:
            elements_bytes = _elements_bytes(path, file)
            if elements_bytes > size - file.tell():
                raise ModelError(
                    f"{path}: is cut off: the tensor at offset {offset} has {elements_bytes} bytes"
                    f" of elements, and {size - file.tell()} are left"
                )
            file.seek(elements_bytes, 1)


def _elements_bytes(path: Path, file: BinaryIO) -> int:
    """Reads what stands before the elements of a tensor, and tells their length."""
    offset = file.tell()
    (version, levels) = struct.unpack("<IQ", _read(path, file, 12))
    if version != 0 or levels > _LEVELS_MAX:
        raise ModelError(f"{path}: at offset {offset} no tensor of Paddle begins")
    for _ in range(levels):
        (level_bytes,) = struct.unpack("<Q", _read(path, file, 8))
        file.seek(level_bytes, 1)
    (version, description_bytes) = struct.unpack("<Ii", _read(path, file, 8))
    if version != 0 or not 0 < description_bytes <= _DESCRIPTION_BYTES_MAX:
        raise ModelError(f"{path}: the tensor at offset {offset} has no description")
    try:
        description = TensorDesc.FromString(_read(path, file, description_bytes))
    except DecodeError as error:
        raise ModelError(
            f"{path}: the description of the tensor at offset {offset} does not parse: {error}"
        ) from error
    element_bytes = _ELEMENT_BYTES.get(description.data_type)
    if element_bytes is None or any(dim < 0 for dim in description.dims):
        raise ModelError(
            f"{path}: the tensor at offset {offset} has data type {description.data_type} and"
            f" shape {list(description.dims)}"
        )
    return element_bytes * math.prod(description.dims)


def _read(path: Path, file: BinaryIO, size: int) -> bytes:
    offset = file.tell()
    data = file.read(size)
    if len(data) != size:
        raise ModelError(f"{path}: is cut off (offset {offset})")
    return data
