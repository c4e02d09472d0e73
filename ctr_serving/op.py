"""The CTR op: request bytes to features, then one batch seek and the dense model."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path

import numpy as np

from ctr_serving.batches import Batches
from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.engine import Engine
from ctr_serving.jobs import Features
from ctr_serving.manifest import Manifest
from ctr_serving.model_slot import ModelSlot
from ctr_serving.sources import Source
from ctr_serving.trace import Trace
from cube_core._native import encode_ctr_response, parse_ctr_request
from cube_core.errors import ModelError, NotServingError
from cube_core.wire.service import RpcContext

# About 0.2 ms of parsing; larger requests are parsed in a thread.
_PARSE_ON_LOOP_BYTES_MAX = 64 << 10

EMPTY_RESPONSE = encode_ctr_response(np.empty((0, 2), np.float32))


class CtrOp:
    """Predicts with the model in the slot; one model and one embedding version a request.

    Attributes:
        batches: the queue of its requests.
    """

    def __init__(
        self,
        conf: EngineConf,
        slot: ModelSlot,
        source: Source,
        counters: Counters,
        *,
        rows_per_request_max: int,
        queue_timeout_s: float,
    ) -> None:
        self._conf = conf
        self._slot = slot
        self._source = source
        self._rows_max = rows_per_request_max
        self.batches = Batches(conf, source, counters, queue_timeout_s=queue_timeout_s)

    async def predict(
        self, payload: bytes | memoryview, context: RpcContext, trace: Trace
    ) -> bytes:
        """Request bytes to Response bytes with a prediction for each instance.

        Raises:
            WireError: the request does not parse, or an instance has another number of ids.
            LimitError: more than `rows_per_request_max` instances.
            OverloadError: it waited too long.
            RpcTimeoutError: the caller's timeout passed.
            SeekError, VersionNotLoadedError: the embedding could not be asked.
            NotServingError: no model is loaded.
            PredictionError: a value is of another width, or Paddle failed.
        """
        engine = self._slot.engine
        if engine is None:
            raise NotServingError(f"no model is loaded yet: {self._slot.problem}")
        trace.version = engine.manifest.version
        start_s = time.perf_counter()
        if len(payload) <= _PARSE_ON_LOOP_BYTES_MAX:
            features = _parse(payload, engine.manifest, self._rows_max)
        else:
            parse = partial(_parse, payload, engine.manifest, self._rows_max)
            features = await asyncio.to_thread(parse)
        trace.seconds["parse"] = time.perf_counter() - start_s
        trace.rows = len(features.dense)
        if not trace.rows:
            return EMPTY_RESPONSE
        return await self.batches.answer(engine, features, context, trace)

    def load(self, directory: Path) -> Engine:
        """Loads a model of the configured dict; see `Engine.load`.

        Raises:
            ModelError: it cannot be loaded, or is of another dict.
        """
        engine = Engine.load(directory, self._conf.defaults)
        dict_name = self._conf.dict_name
        if dict_name and engine.manifest.dict_name != dict_name:
            raise ModelError(
                f"{directory}/manifest.json: dict_name: {engine.manifest.dict_name!r} is not"
                f" {dict_name!r} of sparse_param_service_table_name"
            )
        return engine

    async def probe(self, manifest: Manifest) -> object:
        """Makes sure that the embedding version of `manifest` can be asked; see `Source.prepare`.

        Raises:
            SeekError, VersionNotLoadedError, ModelError: it cannot.
        """
        return await self._source.prepare(
            manifest.dict_name, manifest.version, manifest.embedding_dim
        )


def _parse(payload: bytes | memoryview, manifest: Manifest, rows_max: int) -> Features:
    sparse_ids, dense = parse_ctr_request(
        payload, slots=manifest.slots, dense=manifest.dense_dim, rows_max=rows_max
    )
    return Features(sparse_ids.reshape(-1), dense)
