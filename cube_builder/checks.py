"""What the values of a pass are held to, whichever engine builds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cube_builder.batches import ByteValues, Values
from cube_core.errors import BuildError

OnDuplicate = Literal["last", "error"]
OnNonfinite = Literal["error", "keep"]
ON_DUPLICATE: tuple[OnDuplicate, ...] = ("last", "error")
ON_NONFINITE: tuple[OnNonfinite, ...] = ("error", "keep")


def require_finite(where: Path | str, keys: NDArray[np.uint64], values: Values) -> None:
    """Refuses NaN and infinities among float32 elements: one of them in a batch spoils every
    prediction that it has part in. Values whose width is no multiple of 4 are no float32 and pass.

    Raises:
        BuildError: names `where`, key and element.
    """
    if isinstance(values, ByteValues):
        for at, rows in _rows_by_width(values):
            require_finite(where, keys[at], rows)
        return
    if values.shape[1] % 4:
        return
    finite = np.isfinite(values.view("<f4"))
    if finite.all():
        return
    row, element = np.argwhere(~finite)[0]
    raise BuildError(
        f"{where}: key {keys[row]}: element {element} is {values.view('<f4')[row, element]}; build "
        "with --on_nonfinite=keep if that is meant, or if the values are no float32"
    )


def _rows_by_width(
    values: ByteValues,
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint8]]]:
    """The values of each width as rows uint8[k, width], and their indexes; empty ones are none."""
    widths = values.widths
    for width in np.unique(widths[widths > 0]).tolist():
        at = np.flatnonzero(widths == width)
        yield at, values.take(at).values.reshape(len(at), width)


def require_unique(where: Path | str, keys: NDArray[np.uint64], duplicate_count: int) -> None:
    """Names the first key that stands more than once among those of a shard.

    Raises:
        BuildError: when `duplicate_count` is not 0.
    """
    if duplicate_count == 0:
        return
    ordered = np.sort(keys)
    key = ordered[:-1][ordered[1:] == ordered[:-1]][0]
    count = int(np.count_nonzero(keys == key))
    raise BuildError(
        f"{where}: key {key} stands in the input {count} times ({duplicate_count} records of this "
        "shard have a key that was there before); build with --on_duplicate=last to keep the last"
    )
