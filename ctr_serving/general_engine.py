"""One engine of model_toolkit.prototxt, for the ops of a workflow."""

from __future__ import annotations

from pathlib import Path

from ctr_serving.conf import EngineConf
from ctr_serving.counters import Counters
from ctr_serving.model_slot import ModelSlot
from ctr_serving.network import Network
from ctr_serving.network_manifest import NetworkManifest
from ctr_serving.ops._op import ServedEngine
from ctr_serving.run_queue import RunQueue
from ctr_serving.seek_queue import SeekQueues
from ctr_serving.sources import Source
from cube_core.errors import ModelError, NotServingError


class GeneralEngine:
    """Its configuration, the model in its slot, its source of vectors, and the queues of its seeks
    and its runs."""

    def __init__(
        self,
        conf: EngineConf,
        slot: ModelSlot[Network],
        source: Source,
        counters: Counters,
        *,
        queue_timeout_s: float,
    ) -> None:
        self.conf = conf
        self.slot = slot
        self._source = source
        self._seeks = SeekQueues(conf, source, counters, queue_timeout_s=queue_timeout_s)
        self._runs = RunQueue(conf, counters, queue_timeout_s=queue_timeout_s)

    def served(self) -> ServedEngine:
        """What a request that begins now is answered by.

        Raises:
            NotServingError: no model is loaded.
        """
        network = self.slot.engine
        if network is None:
            raise NotServingError(
                f"engine {self.conf.name}: no model is loaded yet: {self.slot.problem}"
            )
        return ServedEngine(self.conf.name, network, self._seeks, self._runs)

    def load(self, directory: Path) -> Network:
        """Loads a model for this engine.

        Raises:
            ModelError: it cannot be loaded, or needs vectors that the engine has no source of.
        """
        network = Network.load(directory, self.conf.defaults)
        if network.manifest.dicts and self.conf.sparse_service == "NONE":
            raise ModelError(
                f"{directory}/manifest.json: dicts: the model takes vectors, but"
                " sparse_param_service_type is NONE"
            )
        return network

    async def probe(self, manifest: NetworkManifest) -> object:
        """Makes sure that the version of every dict can be asked; see `Source.prepare`."""
        return [
            await self._source.prepare(name, manifest.version_of(name), use.dim)
            for name, use in manifest.dicts.items()
        ]
