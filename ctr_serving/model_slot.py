"""The model that is served now, and why another one is not."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from ctr_serving.engine import Engine


class Model(Protocol):
    """What can be served: `Engine`, or `Network`."""

    directory: Path
    manifest: Any
    embedding: object
    load_seconds: float
    sizes: Counter[int]

    def warm_up(self, rows_num: int) -> None:
        """Runs zeros, on the thread that predicts."""
        ...


M = TypeVar("M", bound=Model, default=Engine)


class ModelSlot(Generic[M]):
    """Holds the served engine. It is replaced between two steps of the event loop, so that a
    request that took it once keeps one model and one embedding version to its end.

    Args:
        name: of the engine whose models it holds.

    Attributes:
        engine: what is served; None before the first model.
        source_problem: why the newest model is not on this machine, where it is fetched; else "".
        problem: why there is no model, or why a newer one is not served; "" when all is well.
        switch_count: models that were taken into service.
        refusal_count: times that a model was refused.
        switched_at_s: `time.time()` of the last switch.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.engine: M | None = None
        self.problem = "the model is being loaded"
        self.source_problem = ""
        self.switch_count = 0
        self.refusal_count = 0
        self.switched_at_s = 0.0

    def switch(self, engine: M) -> None:
        self.engine = engine
        self.problem = ""
        self.switch_count += 1
        self.switched_at_s = time.time()

    def refuse(self, problem: str) -> None:
        self.problem = problem
        self.refusal_count += 1
