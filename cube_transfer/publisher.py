"""Which dense model goes with a version, and its way to the CTR servers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx

from cube_core.model_directory import publish, republish
from cube_transfer.dense_manifest import relabel_dense
from cube_transfer.settings import Settings
from cube_transfer.state import PassRecord, State

log = logging.getLogger(__name__)


class Publisher:
    """Publishes the dense model of each version that the servers have switched to."""

    def __init__(self, settings: Settings, state: State, http: httpx.AsyncClient) -> None:
        self._settings = settings
        self._state = state
        self._http = http

    async def publish(self, record: PassRecord) -> None:
        """Publishes the model of the pass; that of what it is laid over, if it is a patch of
        embeddings alone. What cannot have one is told in the log.

        Raises:
            DeployError, ModelError, OSError, httpx.RequestError: as `PulledPass.pull_dense` and
                `publish.publish`.
        """
        target = self._settings.model_deploy_path
        if target is None:
            log.warning("pass %s: no dense model is published: no model_deploy_path", record.id)
        elif record.dense and record.kind != "rollback":
            pulled = self._settings.pulled(record.version)
            await pulled.pull_dense(record.dense, self._http)
            await asyncio.to_thread(publish, pulled.dense, target, record.version)
        elif (target / record.version).is_dir():
            await asyncio.to_thread(republish, target, record.version)
        else:
            await asyncio.to_thread(self._publish_that_below, record, target)

    def _publish_that_below(self, record: PassRecord, target: Path) -> None:
        model = model_below(self._state, record.version, target)
        if model is None:
            log.warning("pass %s: no dense model is published: the pass has none", record.id)
            return
        relabelled = self._settings.pulled(record.version).dense
        relabel_dense(model, relabelled, self._settings.conf.dict_name, record.version)
        publish(relabelled, target, record.version)


def model_below(state: State, version: str, deploy_path: Path) -> Path | None:
    """The model that was published for what a patch is laid over; None when there is none."""
    for record in state.stack_of(version)[-2::-1]:
        published = deploy_path / record.version
        if published.is_dir():
            return published
        if record.dense:
            break
    return None
