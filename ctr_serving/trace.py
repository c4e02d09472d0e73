"""What answering one request took."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

_MISSING_TOLD_MAX = 100


@dataclass(slots=True)
class Trace:
    """Filled while a request is answered.

    Attributes:
        version: embedding version of the model that answered; "" when none did.
        rows: instances of the request.
        seconds: by stage; those of seek and infer are of the whole batch that the request was in.
        missing: bool[rows, slots], which keys had no row; None when all had one.
        degraded: why defaults stand for keys whose shard failed; "" when none do.
    """

    version: str = ""
    rows: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    missing: NDArray[np.bool_] | None = None
    degraded: str = ""

    def text(self) -> str:
        """In one line: version, rows, µs by stage, and instance:slot of missing keys."""
        said = [f"version={self.version}", f"rows={self.rows}"]
        said += [f"{stage}_us={seconds * 1e6:.0f}" for stage, seconds in self.seconds.items()]
        if self.missing is not None and self.missing.any():
            places = np.argwhere(self.missing)
            listed = [f"{instance}:{slot}" for instance, slot in places[:_MISSING_TOLD_MAX]]
            listed += ["…"] if len(places) > len(listed) else []
            said.append(f"missing={','.join(listed)}")
        return " ".join(said)
