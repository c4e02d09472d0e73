"""The op: what is done for a request, between its features and its answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ctr_serving.counters import Counters
from ctr_serving.feeds import Feed
from ctr_serving.network import Fetch, Network
from ctr_serving.network_manifest import NetworkManifest
from ctr_serving.ops._instances import Instances
from ctr_serving.run_queue import RunQueue
from ctr_serving.seek_queue import SeekQueues
from ctr_serving.trace import Trace
from cube_api import SeekResult
from cube_core.errors import PredictionError
from cube_core.wire.service import RpcContext


class Op:
    """One step of a workflow. Make a class of your own of it, and name it in workflow.prototxt.

    One object serves all requests, many at the same time: what belongs to a request is in `call`,
    never in the op. The methods run on the event loop; what takes over a millisecond of CPU belongs
    into `asyncio.to_thread`. An error that a method raises is told to the caller, as err_code -1.

    Attributes:
        name: of the node in workflow.prototxt.
        engines: names of its engines.
    """

    def __init__(self, name: str, engines: Sequence[str]) -> None:
        self.name = name
        self.engines = tuple(engines)

    async def preprocess(self, call: OpCall) -> Any:
        """Instances, and the results of ops before, to the inputs of the model."""
        raise NotImplementedError(f"{type(self).__name__} has no preprocess")

    async def inference(self, call: OpCall, feed: Any) -> Any:
        """Runs the op's engine, its first when it has several, on what `preprocess` returned."""
        return await call.engine().run(feed)

    async def postprocess(self, call: OpCall, fetch: Any) -> Any:
        """The op's result; of the last op of a workflow the probabilities float32[n, 2], or those
        of a click float32[n] or float32[n, 1], or a dict of one such output."""
        return fetch


@dataclass(frozen=True)
class ServedEngine:
    """What an engine's name stands for while one request is answered.

    Attributes:
        network: its model, the same from the begin of the request to its end.
        seeks: by dict, where vectors come from.
        runs: where the model is run.
    """

    name: str
    network: Network
    seeks: SeekQueues
    runs: RunQueue


@dataclass(frozen=True)
class Request:
    """One request, as all ops of the workflow see it."""

    instances: Instances
    context: RpcContext
    trace: Trace
    counters: Counters
    engines: Mapping[str, ServedEngine]
    notes: list[str] = field(default_factory=list)


class EngineCall:
    """One engine for one request: a model, and the embedding versions it was trained with."""

    def __init__(self, served: ServedEngine, request: Request) -> None:
        self.served = served
        self._request = request

    @property
    def manifest(self) -> NetworkManifest:
        """What the model says of itself."""
        return self.served.network.manifest

    async def run(self, feed: Feed) -> Fetch:
        """Outputs [n, …] by name, of inputs [n, …] by name; together with the runs of other
        requests where the engine joins them.

        Raises:
            PredictionError: the inputs are not those of the model, or Paddle refused to run it.
            LimitError, RpcTimeoutError: it took too long.
        """
        return await self.served.runs.run(
            self.served.network, feed, self._request.context, self._request.trace
        )

    async def seek(self, dict_name: str, ids: NDArray[np.int64]) -> SeekResult:
        """Rows float32[k, dim] and status int32[k] of ids int64[k], from the version that the
        model was trained with; together with the seeks of other requests where the engine joins
        them. What is missing, failed (where the engine degrades) or of another
        width is in `status`, and the caller's to treat; `look_up` does all that.

        Raises:
            SeekError, VersionNotLoadedError: the dict could not be asked.
            PredictionError: the model has no such dict.
            LimitError, RpcTimeoutError: it took too long.
        """
        start_s = time.perf_counter()
        found = await self.seek_untimed(dict_name, ids)
        self.took("seek", time.perf_counter() - start_s)
        return found

    async def seek_untimed(self, dict_name: str, ids: NDArray[np.int64]) -> SeekResult:
        """As `seek`, one of several at the same time, whose time the caller tells."""
        use = self.manifest.dicts.get(dict_name)
        if use is None:
            raise PredictionError(
                f"engine {self.served.name}: its model has no dict {dict_name!r}, only"
                f" {sorted(self.manifest.dicts)}"
            )
        return await self.served.seeks[dict_name].seek(
            ids,
            version=self.manifest.version_of(dict_name),
            dim=use.dim,
            context=self._request.context,
            instances=self._request.instances.rows,
        )

    def took(self, stage: str, seconds: float) -> None:
        """Adds to what `debug` tells of the engine."""
        self._request.trace.add_seconds(f"{self.served.name}.{stage}", seconds)


class OpCall:
    """One request on its way through one op.

    Attributes:
        instances: ids and dense values.
        inputs: results of the ops that this one depends on, by name of their nodes.
    """

    def __init__(self, op: Op, request: Request, inputs: Mapping[str, Any]) -> None:
        self.instances = request.instances
        self.inputs = inputs
        self.request = request
        self._op = op

    def engine(self, name: str = "") -> EngineCall:
        """The op's engine of that name, or its first.

        Raises:
            PredictionError: it has none of that name.
        """
        if not self._op.engines or (name and name not in self._op.engines):
            raise PredictionError(
                f"op {self._op.name}: has engines {list(self._op.engines)}, not {name!r}"
            )
        return EngineCall(self.request.engines[name or self._op.engines[0]], self.request)

    def note(self, text: str) -> None:
        """Adds to err_msg of the answer, which is 0 all the same."""
        self.request.notes.append(text)
