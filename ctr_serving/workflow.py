"""Answers requests by the ops of a workflow, one after the other or at the same time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr_serving.counters import Counters
from ctr_serving.general_engine import GeneralEngine
from ctr_serving.ops import Op, OpCall
from ctr_serving.ops._instances import Instances, parse_instances, parse_single
from ctr_serving.ops._op import Request, ServedEngine
from ctr_serving.trace import Trace
from ctr_serving.workflow_conf import Node
from cube_core._native import encode_ctr_response
from cube_core.errors import CubeError, PredictionError, WireError
from cube_core.wire.service import RpcContext

log = logging.getLogger(__name__)

# About 1 ms of parsing; larger requests are parsed in a thread.
_PARSE_ON_LOOP_BYTES_MAX = 16 << 10


class Workflow:
    """Predicts by ops; each engine has one model for the whole of a request.

    Args:
        groups: the nodes, those of a group at the same time; the last is the one that answers.
        engines: by name.

    Raises:
        ConfError: an op cannot be imported.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Node]],
        engines: Mapping[str, GeneralEngine],
        counters: Counters,
        *,
        rows_per_request_max: int,
    ) -> None:
        self._groups = [[(node, node.load_op()) for node in group] for group in groups]
        self._engines = engines
        self._counters = counters
        self._rows_max = rows_per_request_max

    async def predict(
        self, payload: bytes | memoryview, context: RpcContext, trace: Trace
    ) -> bytes:
        """Request bytes to Response bytes with a prediction for each instance.

        Raises:
            WireError: the request does not parse, or does not fit the model.
            LimitError: more than `rows_per_request_max` instances.
            OverloadError: it waited too long.
            RpcTimeoutError: the caller's timeout passed.
            SeekError, VersionNotLoadedError: an embedding could not be asked.
            PredictionError: no model is loaded, a value is of another width, or an op failed.
        """
        served = {name: engine.served() for name, engine in self._engines.items()}
        trace.version = ",".join(
            dict.fromkeys(each.network.manifest.version for each in served.values())
        )
        instances = await self._parsed(payload, served.values(), trace)
        if not instances.rows:
            return _response(np.empty((0, 2), np.float32), "")
        request = Request(instances, context, trace, self._counters, served)
        results: dict[str, Any] = {}
        for group in self._groups:
            context.check_deadline()
            if len(group) == 1:
                node, op = group[0]
                results[node.name] = await _run(node, op, request, results)
                continue
            answers = await asyncio.gather(
                *(_run(node, op, request, results) for node, op in group), return_exceptions=True
            )
            for (node, _), answer in zip(group, answers, strict=True):
                if isinstance(answer, BaseException):
                    raise answer
                results[node.name] = answer
        last = self._groups[-1][-1][0].name
        probabilities = _probabilities(last, results[last], instances.rows)
        told = [trace.degraded, *request.notes]
        return _response(probabilities, "; ".join(text for text in told if text))

    async def _parsed(
        self, payload: bytes | memoryview, served: Iterable[ServedEngine], trace: Trace
    ) -> Instances:
        start_s = time.perf_counter()
        shapes = {(each.network.manifest.slots, each.network.manifest.dense_dim) for each in served}
        parse = partial(_parse, payload, self._rows_max, shapes)
        inline = len(payload) <= _PARSE_ON_LOOP_BYTES_MAX
        instances = parse() if inline else await asyncio.to_thread(parse)
        trace.seconds["parse"] = time.perf_counter() - start_s
        trace.rows = instances.rows
        return instances


def _parse(
    payload: bytes | memoryview, rows_max: int, shapes: Iterable[tuple[int, int]]
) -> Instances:
    """Instances of one of the shapes (slots, dense_dim) are parsed the fast way."""
    for slots, dense_dim in shapes:
        with contextlib.suppress(WireError):
            return parse_single(payload, rows_max, slots=slots, dense_dim=dense_dim)
    return parse_instances(payload, rows_max)


async def _run(node: Node, op: Op, request: Request, results: Mapping[str, Any]) -> Any:
    """The three stages of one op."""
    call = OpCall(op, request, {name: results[name] for name in node.dependencies})
    stage, start_s = "preprocess", time.perf_counter()
    seconds = request.trace.seconds
    try:
        feed = await op.preprocess(call)
        seconds[f"{node.name}.{stage}"] = time.perf_counter() - start_s
        stage, start_s = "inference", time.perf_counter()
        fetch = await op.inference(call, feed)
        seconds[f"{node.name}.{stage}"] = time.perf_counter() - start_s
        stage, start_s = "postprocess", time.perf_counter()
        result = await op.postprocess(call, fetch)
        seconds[f"{node.name}.{stage}"] = time.perf_counter() - start_s
        return result
    except CubeError:
        raise
    except Exception as error:
        log.exception("op %s: %s failed", node.name, stage)
        raise PredictionError(
            f"op {node.name}: {stage}: {type(error).__name__}: {error}"
        ) from error


def _probabilities(node: str, result: Any, rows: int) -> NDArray[np.float32]:
    """float32[n, 2] of what the last op returned."""
    if isinstance(result, Mapping) and len(result) == 1:
        result = next(iter(result.values()))
    try:
        found = np.asarray(result)
    except (TypeError, ValueError) as error:
        raise PredictionError(f"op {node}: its result is no array: {error}") from error
    if found.dtype.kind in "fiu" and found.shape == (rows, 2):
        return np.ascontiguousarray(found, np.float32)
    if found.dtype.kind in "fiu" and found.shape in ((rows,), (rows, 1)):
        clicks = found.reshape(rows).astype(np.float32)
        return np.stack([1 - clicks, clicks], axis=1)
    shown = list(result) if isinstance(result, Mapping) else f"{found.dtype}{list(found.shape)}"
    raise PredictionError(
        f"op {node}: its result is {shown}, not probabilities [{rows}, 2] or [{rows}]"
    )


def _response(probabilities: NDArray[np.float32], err_msg: str) -> bytes:
    return encode_ctr_response(probabilities, err_msg=err_msg)
