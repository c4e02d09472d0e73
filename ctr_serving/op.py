"""The CTR op: request bytes to keys, one batch seek, the dense model, response bytes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.engine import Engine
from ctr_serving.inference_threads import InferenceThreads
from ctr_serving.manifest import Manifest
from ctr_serving.model_slot import ModelSlot
from cube_api import STATUS_MISSING, STATUS_WRONG_WIDTH, AsyncCubeClient, SeekResult
from cube_core._native import encode_ctr_response, parse_ctr_request
from cube_core.errors import ModelError, PredictionError
from cube_core.wire.service import RpcContext

# About 0.2 ms of parsing; larger requests are parsed in a thread.
_PARSE_ON_LOOP_BYTES_MAX = 64 << 10

EMPTY_RESPONSE = encode_ctr_response(np.empty((0, 2), np.float32))


class _Request(NamedTuple):
    """keys int64[slots * n], all of slot 0 first; dense float32[n, dense_dim]."""

    keys: NDArray[np.int64]
    dense: NDArray[np.float32]


@dataclass
class Trace:
    """What answering one request took.

    Attributes:
        version: embedding version of the model that answered; "" when none did.
        rows: instances of the request.
        seconds: by stage.
    """

    version: str = ""
    rows: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = time.perf_counter() - start_s


class CtrOp:
    """Predicts with the model in the slot; one model and one embedding version a request."""

    def __init__(
        self,
        conf: EngineConf,
        slot: ModelSlot,
        cube: AsyncCubeClient,
        threads: InferenceThreads,
        counters: Counters,
        *,
        rows_per_request_max: int,
    ) -> None:
        self._conf = conf
        self._slot = slot
        self._cube = cube
        self._threads = threads
        self._counters = counters
        self._rows_max = rows_per_request_max

    async def predict(
        self, payload: bytes | memoryview, context: RpcContext, trace: Trace
    ) -> bytes:
        """Request bytes to Response bytes with a prediction for each instance.

        Raises:
            WireError: the request does not parse, or an instance has another number of ids.
            LimitError: more than `rows_per_request_max` instances.
            RpcTimeoutError: the caller's timeout passed.
            SeekError, VersionNotLoadedError: the embedding could not be asked.
            PredictionError: no model is loaded, a value is of another width, or Paddle failed.
        """
        engine = self._slot.engine
        if engine is None:
            raise PredictionError(f"no model is loaded yet: {self._slot.problem}")
        trace.version = engine.manifest.version
        with trace.stage("parse"):
            request = await self._parse(payload, engine.manifest)
        trace.rows = len(request.dense)
        if not trace.rows:
            return EMPTY_RESPONSE
        context.check_deadline()
        with trace.stage("seek"):
            found = await self._cube.seek(
                self._conf.dict_conf.dict_name,
                request.keys,
                version=engine.manifest.version,
                dim=engine.manifest.embedding_dim,
            )
        context.check_deadline()
        with trace.stage("infer"):
            response, missing_by_slot = await self._threads.run(
                partial(self._infer, engine, request, found)
            )
        if missing_by_slot is not None:
            self._counters.count_missing(missing_by_slot)
        return response

    async def probe(self, manifest: Manifest) -> None:
        """Asks every shard for the embedding version of `manifest`.

        Raises:
            SeekError, VersionNotLoadedError: a shard cannot be asked, or has not loaded it.
            ModelError: its values are not `embedding_dim` floats wide.
        """
        one_key_a_shard = np.arange(self._conf.dict_conf.shard, dtype=np.uint64)
        found = await self._cube.seek(
            self._conf.dict_conf.dict_name,
            one_key_a_shard,
            version=manifest.version,
            dim=manifest.embedding_dim,
        )
        if (found.status == STATUS_WRONG_WIDTH).any():
            raise ModelError(
                f"dict {manifest.dict_name}, version {manifest.version}: its values are not"
                f" embedding_dim={manifest.embedding_dim} floats wide"
            )

    async def _parse(self, payload: bytes | memoryview, manifest: Manifest) -> _Request:
        parse = partial(_parse, payload, manifest, self._rows_max)
        if len(payload) <= _PARSE_ON_LOOP_BYTES_MAX:
            return parse()
        return await asyncio.to_thread(parse)

    def _infer(
        self, engine: Engine, request: _Request, found: SeekResult, thread: int
    ) -> tuple[bytes, NDArray[np.int64] | None]:
        """Response bytes, and the missing keys of each slot int64[slots] if there are any."""
        manifest = engine.manifest
        missing_by_slot = None
        if found.status.any():
            _check_widths(found.status, request.keys, manifest)
            missing = found.status == STATUS_MISSING
            if self._conf.default_value:
                found.rows[missing] = self._conf.default_value
            missing_by_slot = missing.reshape(manifest.slots, -1).sum(axis=1)
        rows = found.rows.reshape(manifest.slots, -1, manifest.embedding_dim)
        return encode_ctr_response(engine.predict(rows, request.dense, thread)), missing_by_slot


def _parse(payload: bytes | memoryview, manifest: Manifest, rows_max: int) -> _Request:
    sparse_ids, dense = parse_ctr_request(
        payload, slots=manifest.slots, dense=manifest.dense_dim, rows_max=rows_max
    )
    # All ids of a slot together: so are then their rows, which Paddle takes without a copy of ours.
    return _Request(np.ascontiguousarray(sparse_ids.T).reshape(-1), dense)


def _check_widths(status: NDArray[np.int32], keys: NDArray[np.int64], manifest: Manifest) -> None:
    wrong = np.flatnonzero(status == STATUS_WRONG_WIDTH)
    if not wrong.size:
        return
    slot, instance = divmod(int(wrong[0]), len(keys) // manifest.slots)
    raise PredictionError(
        f"dict {manifest.dict_name}, version {manifest.version}: the value of key"
        f" {int(keys.view(np.uint64)[wrong[0]])} (instance {instance}, slot {slot}) is not"
        f" {manifest.embedding_dim} floats wide"
    )
