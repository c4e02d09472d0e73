"""One variable in Paddle's binary format, `cube_core.paddle_tensor`, mapped into memory."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_core.errors import BuildError, FormatError
from cube_core.paddle_tensor import FLOAT32, read_tensor_head


def map_variable(path: Path) -> NDArray[np.float32]:
    """Maps the elements of a float32 variable, in its own shape, read-only.

    Raises:
        BuildError: truncated, malformed, of another type, or more than one variable; names file
            and offset.
    """
    try:
        with path.open("rb") as file:
            data_type, shape, offset = read_tensor_head(file)
    except FormatError as error:
        raise BuildError(f"{path}: {error}") from error
    if data_type != FLOAT32:
        raise BuildError(
            f"{path}: elements of Paddle's data type {data_type}; only float32 ({FLOAT32}) is"
            " supported"
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
