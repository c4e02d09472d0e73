"""What answers predictions, put together from the configuration: one op, or a workflow."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ctr_serving.batches import Batches
from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.general_engine import GeneralEngine
from ctr_serving.model_slot import ModelSlot
from ctr_serving.op import CtrOp
from ctr_serving.sources import OpenSources
from ctr_serving.trace import Trace
from ctr_serving.turns import JOINED_TURNS_MAX, SINGLE_TURNS_MAX
from ctr_serving.workflow import Workflow
from ctr_serving.workflow_conf import Node
from cube_core.wire.service import RpcContext

log = logging.getLogger(__name__)


class Predicts(Protocol):
    """Request bytes to Response bytes; `CtrOp` and `Workflow`."""

    async def predict(
        self, payload: bytes | memoryview, context: RpcContext, trace: Trace
    ) -> bytes: ...


@dataclass(frozen=True)
class EngineSlot:
    """One engine: its models come by `load` and `probe` into `slot`."""

    conf: EngineConf
    slot: ModelSlot[Any]
    load: Callable[[Path], Any]
    probe: Callable[[Any], Awaitable[object]]


@dataclass(frozen=True)
class Assembly:
    """A predictor without its ports.

    Attributes:
        engines: those that predict, in the order of model_toolkit.prototxt.
        batches: where frames can be queued without a task for each; None for a workflow.
    """

    op: Predicts
    engines: Sequence[EngineSlot]
    counters: Counters
    batches: Batches | None = None

    @property
    def is_ready(self) -> bool:
        """Whether every engine has a model."""
        return all(each.slot.engine is not None for each in self.engines)


async def assemble_op(
    conf: EngineConf, sources: OpenSources, *, rows_per_request_max: int, queue_timeout_s: float
) -> Assembly:
    """The 26-slot op over one engine, or as many slots as its model has.

    Raises:
        ConfError: cube.conf is wrong.
    """
    _tell_what_does_nothing(conf)
    slot = ModelSlot(conf.name)
    counters = Counters(slot, dict_names=_remote_dicts([conf]))
    op = CtrOp(
        conf,
        slot,
        await sources.of(conf),
        counters,
        rows_per_request_max=rows_per_request_max,
        queue_timeout_s=queue_timeout_s,
    )
    return Assembly(op, [EngineSlot(conf, slot, op.load, op.probe)], counters, op.batches)


async def assemble_workflow(
    confs: Sequence[EngineConf],
    groups: Sequence[Sequence[Node]],
    sources: OpenSources,
    *,
    rows_per_request_max: int,
    queue_timeout_s: float,
) -> Assembly:
    """The ops of a workflow over the engines that its nodes name; the others are not loaded.

    Raises:
        ConfError: cube.conf is wrong, or an op cannot be imported.
    """
    confs = _named(confs, groups)
    for conf in confs:
        _tell_what_does_nothing(conf)
    slots = [ModelSlot[Any](conf.name) for conf in confs]
    counters = Counters(*slots, dict_names=_remote_dicts(confs))
    engines = {
        conf.name: GeneralEngine(
            conf, slot, await sources.of(conf), counters, queue_timeout_s=queue_timeout_s
        )
        for conf, slot in zip(confs, slots, strict=True)
    }
    workflow = Workflow(groups, engines, counters, rows_per_request_max=rows_per_request_max)
    return Assembly(
        workflow,
        [EngineSlot(each.conf, each.slot, each.load, each.probe) for each in engines.values()],
        counters,
    )


def _named(confs: Sequence[EngineConf], groups: Sequence[Sequence[Node]]) -> Sequence[EngineConf]:
    """The engines that nodes name; all, where none names any."""
    names = {name for group in groups for node in group for name in node.engines}
    named = [conf for conf in confs if conf.name in names]
    if not named:
        return confs
    for conf in confs:
        if conf not in named:
            log.warning("engine %s: is not loaded: no node of the workflow names it", conf.name)
    return named


def _tell_what_does_nothing(conf: EngineConf) -> None:
    if conf.runtime_thread_num > JOINED_TURNS_MAX and not conf.batch_rows_max:
        log.warning(
            "engine %s: runtime_thread_num=%d does nothing without enable_batch_align: 1: each"
            " request is a batch of its own, up to %d under way at once",
            conf.name,
            conf.runtime_thread_num,
            SINGLE_TURNS_MAX,
        )


def _remote_dicts(confs: Sequence[EngineConf]) -> list[str]:
    return [each.dict_name if each.sparse_service == "REMOTE" else "" for each in confs]
