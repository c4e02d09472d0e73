"""`.pdparams` files, read without Paddle and without running what a pickle may hold.

A pickle can name any function to be called. Only the few that rebuild numpy arrays and plain
containers are known here, and each of them is replaced by code of this module, so that no byte of
the file reaches numpy's own unpickling.
"""

from __future__ import annotations

import math
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cube_core.errors import BuildError

_DTYPES = frozenset({"f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"})
_BIG_PARAMETERS = "UnpackBigParamInfor@@"


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The named arrays of a `.pdparams` file, read-only.

    A file of one bare tensor has it under the tensor's own name. What is not an array is left out.

    Raises:
        BuildError: not such a file, or one that asks for more than arrays and containers.
    """
    with path.open("rb") as file:
        saved = _load(path, file)
    if isinstance(saved, dict) and _BIG_PARAMETERS in saved:
        raise BuildError(f"{path}: its arrays are cut into slices; save it with protocol=4")
    entries = saved.items() if isinstance(saved, dict) else [("", saved)]
    arrays: dict[str, NDArray[Any]] = {}
    for name, entry in entries:
        if _is_named_array(entry):
            arrays[str(name) or str(entry[0])] = entry[1].array(path)
        elif isinstance(entry, _Array):
            arrays[str(name)] = entry.array(path)
    return arrays


def _is_named_array(entry: object) -> bool:
    """A tensor is pickled as its name and its array."""
    return isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[1], _Array)


def _load(path: Path, file: BinaryIO) -> Any:
    try:
        return _Unpickler(file).load()
    except Exception as error:
        # Malformed pickles end in almost any exception.
        raise BuildError(f"{path}: no .pdparams file of arrays: {error!r}") from error


class _Array:
    """Stands in for a numpy array until its state is checked."""

    def __init__(self, *state: Any) -> None:
        self._state = state

    def __setstate__(self, state: Any) -> None:
        self._state = state

    def array(self, path: Path) -> NDArray[Any]:
        try:
            return self._checked()
        except (TypeError, ValueError) as error:
            raise BuildError(f"{path}: malformed array: {error}") from error

    def _checked(self) -> NDArray[Any]:
        _version, shape, dtype, is_fortran, data = self._state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise ValueError("no array of numbers")
        if not isinstance(shape, tuple) or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise ValueError(f"shape {shape!r}")
        flat = np.frombuffer(data, dtype=dtype.numpy_dtype())
        if math.prod(shape) != flat.size:
            raise ValueError(f"{flat.size} elements for shape {shape}")
        return flat.reshape(shape, order="F" if is_fortran else "C")


class _Dtype:
    """Stands in for a numpy dtype: a plain number or nothing."""

    def __init__(self, code: str, *_: Any) -> None:
        self._code = code
        self._byte_order = "<"

    def __setstate__(self, state: Any) -> None:
        self._byte_order = "=" if state[1] == "|" else state[1]

    def numpy_dtype(self) -> np.dtype[Any]:
        if self._code not in _DTYPES or self._byte_order not in ("<", ">", "="):
            raise ValueError(f"dtype {self._byte_order}{self._code} is no plain number")
        return np.dtype(self._byte_order + self._code)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:
    return _Array(1, shape, dtype, order == "F", bytes(data))


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as protocol 2 spells them."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"encoding {encoding!r}")
    return text.encode("latin1")


_KNOWN: dict[tuple[str, str], Any] = {
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _encode,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    # numpy 2 moved its modules; files of both generations are about.
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        known = _KNOWN.get((module, name))
        if known is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is refused")
        return known
