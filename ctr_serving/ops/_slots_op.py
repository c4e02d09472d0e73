"""The op that a manifest alone describes."""

from __future__ import annotations

from ctr_serving.feeds import Feed
from ctr_serving.ops._look_up import look_up
from ctr_serving.ops._op import Op, OpCall


class SlotsOp(Op):
    """Vectors of all slots, as the model's manifest says, and the dense values; then the model.

    `CTRPredictionOp` of workflow files is this op. Where it is a workflow's only one, it is made by
    `ctr_serving.op.CtrOp`, which does the same for models with one id a slot and one dict, faster.
    """

    async def preprocess(self, call: OpCall) -> Feed:
        return await look_up(call)
