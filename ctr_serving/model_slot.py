"""The model that is served now, and why another one is not."""

from __future__ import annotations

import time

from ctr_serving.engine import Engine


class ModelSlot:
    """Holds the served engine. It is replaced between two steps of the event loop, so that a
    request that took it once keeps one model and one embedding version to its end.

    Attributes:
        engine: what is served; None before the first model.
        problem: why there is no model, or why a newer one is not served; "" when all is well.
        switch_count: models that were taken into service.
        refusal_count: times that a model was refused.
        switched_at_s: `time.time()` of the last switch.
    """

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.problem = "the model is being loaded"
        self.switch_count = 0
        self.refusal_count = 0
        self.switched_at_s = 0.0

    def switch(self, engine: Engine) -> None:
        self.engine = engine
        self.problem = ""
        self.switch_count += 1
        self.switched_at_s = time.time()

    def refuse(self, problem: str) -> None:
        self.problem = problem
        self.refusal_count += 1
