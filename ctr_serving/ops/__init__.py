"""Ops: what users write themselves to make predictions from engines and embeddings.

from ctr_serving.ops import Op, look_up

class Blend(Op):
    async def preprocess(self, call):
        return await look_up(call)

    async def postprocess(self, call, fetch):
        return 0.5 * fetch["prob"] + 0.5 * call.inputs["other_op"]
"""

from __future__ import annotations

from ctr_serving.feeds import Feed, Ragged
from ctr_serving.ops._instances import Instances
from ctr_serving.ops._look_up import look_up
from ctr_serving.ops._op import EngineCall, Op, OpCall
from ctr_serving.ops._pooling import pooled
from ctr_serving.ops._slots_op import SlotsOp
from cube_core.errors import PredictionError

__all__ = [
    "EngineCall",
    "Feed",
    "Instances",
    "Op",
    "OpCall",
    "PredictionError",
    "Ragged",
    "SlotsOp",
    "look_up",
    "pooled",
]
