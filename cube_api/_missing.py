"""What becomes of keys that are in no table."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cube_api._options import SeekOptions
from cube_core._native import STATUS_MISSING
from cube_core.errors import MissingKeysError

_KEYS_SHOWN_MAX = 5


def fill_missing(
    keys: NDArray[np.uint64],
    rows: NDArray[np.float32],
    status: NDArray[np.int32],
    options: SeekOptions,
) -> None:
    """Gives missing keys the default row of the options, if there is one.

    Raises:
        MissingKeysError: the options want an error instead.
    """
    default_row = options.default_row
    if default_row is None and options.on_missing != "raise":
        return
    if default_row is not None:
        rows[status == STATUS_MISSING] = default_row
    else:
        require_found(keys, status)


def require_found(keys: NDArray[np.uint64], status: NDArray[np.int32]) -> None:
    """Raises MissingKeysError when keys are missing."""
    missing = status == STATUS_MISSING
    if missing.any():
        raise MissingKeysError(_problem(keys[missing]), keys[missing])


def _problem(missing: NDArray[np.uint64]) -> str:
    shown = ", ".join(str(key) for key in missing[:_KEYS_SHOWN_MAX].tolist())
    more = ", …" if len(missing) > _KEYS_SHOWN_MAX else ""
    return f"{len(missing)} keys are missing: {shown}{more}"
