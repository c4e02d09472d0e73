"""What a caller may say about one seek."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

OnMissing = Literal["zeros", "raise"] | NDArray[Any]
OnMissingBytes = Literal["empty", "raise"]
OnFailure = Literal["raise", "status"]


@dataclass(frozen=True)
class SeekOptions:
    """Options of a seek, as `CubeClient.seek` describes them.

    Raises:
        TypeError: a default row that is no vector of numbers.
        ValueError: a dim or timeout below 1, an unknown policy, a default row of another width.
    """

    version: str | None = None
    dim: int | None = None
    timeout_ms: int | None = None
    on_missing: OnMissing = "zeros"
    on_failure: OnFailure = "raise"
    log_id: int = 0

    def __post_init__(self) -> None:
        dim, timeout_ms = self.dim, self.timeout_ms
        if (dim is not None and dim < 1) or (timeout_ms is not None and timeout_ms < 1):
            raise ValueError(f"dim={dim} and timeout_ms={timeout_ms} must be at least 1")
        if self.on_failure not in ("raise", "status"):
            raise ValueError(f"on_failure={self.on_failure!r} must be 'raise' or 'status'")
        if isinstance(self.on_missing, str):
            if self.on_missing not in ("zeros", "raise"):
                raise ValueError(
                    f"on_missing={self.on_missing!r} must be 'zeros', 'raise' or a default row"
                )
        else:
            self._check_default_row(self.on_missing)

    @property
    def default_row(self) -> NDArray[np.float32] | None:
        """float32[dim] for keys that are missing; None when they are zeros or an error."""
        if isinstance(self.on_missing, str):
            return None
        return self.on_missing.astype(np.float32, copy=False)

    @property
    def width(self) -> int | None:
        """Floats a row, as far as the options tell."""
        if self.dim is not None or isinstance(self.on_missing, str):
            return self.dim
        return int(self.on_missing.shape[0])

    def _check_default_row(self, row: NDArray[Any]) -> None:
        if not isinstance(row, np.ndarray) or row.dtype.kind not in "fiu":
            raise TypeError(f"on_missing must be 'zeros', 'raise' or a numpy row, not {row!r:.80}")
        if row.ndim != 1 or row.shape[0] < 1 or self.dim not in (None, row.shape[0]):
            raise ValueError(
                f"on_missing: the default row must be a vector of dim={self.dim} floats, not of"
                f" shape {row.shape}"
            )


def policy_of_bytes(on_missing: OnMissingBytes) -> Literal["zeros", "raise"]:
    """The policy of options for what `seek_bytes` is told.

    Raises:
        ValueError: neither of the two.
    """
    if on_missing not in ("empty", "raise"):
        raise ValueError(f"on_missing={on_missing!r} must be 'empty' or 'raise'")
    return "raise" if on_missing == "raise" else "zeros"
