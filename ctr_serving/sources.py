"""Where the vectors of sparse ids come from, by `sparse_param_service_type`."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ctr_serving.cached_source import CachedSource
from ctr_serving.conf import EngineConf
from ctr_serving.local_tables import LocalTables
from cube_api import STATUS_WRONG_WIDTH, AsyncCubeClient, SeekResult
from cube_core.errors import ConfError, ModelError

Keys = NDArray[np.uint64] | NDArray[np.int64]


class Source(Protocol):
    """Answers batches of keys from a pinned version; `AsyncCubeClient.seek` tells the rest."""

    async def seek(
        self,
        dict_name: str,
        keys: Keys,
        *,
        version: str,
        dim: int,
        on_failure: Literal["raise", "status"] = "raise",
        log_id: int = 0,
    ) -> SeekResult:
        """Rows float32[n, dim] and status int32[n] of keys uint64[n] or int64[n]; servers name the
        seek by `log_id` in their logs."""
        ...

    async def prepare(self, dict_name: str, version: str, dim: int) -> object:
        """Makes sure that seeks of this version can be answered.

        Returns:
            what keeps the version there, to be held as long as it is sought.

        Raises:
            SeekError, VersionNotLoadedError: a shard cannot be asked, or has not loaded it.
            ModelError: its values are not `dim` floats wide, or its tables cannot be used.
        """
        ...


class OpenSources(AsyncExitStack):
    """Makes the source of each engine: one client for all that ask the same cube.conf, and one set
    of tables for all that read the same directory. Closed with the stack.

    Args:
        spin_us: of the clients, as `AsyncCubeClient` takes it.
    """

    def __init__(self, *, spin_us: int = 0) -> None:
        super().__init__()
        self._spin_us = spin_us
        self._sources: dict[Path, Source] = {}

    async def of(self, conf: EngineConf) -> Source:
        """The source of one engine.

        Raises:
            ConfError: cube.conf is wrong.
        """
        if conf.sparse_service == "NONE":
            return NoSource()
        path = conf.tables_dir or conf.cube_conf_path
        if path not in self._sources:
            if conf.tables_dir is not None:
                self._sources[path] = LocalTables(path)
            else:
                cube = await self.enter_async_context(AsyncCubeClient(path, spin_us=self._spin_us))
                self._sources[path] = CubeSource(cube)
        source = self._sources[path]
        return CachedSource(source, conf.cache_bytes) if conf.cache_bytes else source


class CubeSource:
    """REMOTE: shard servers, asked over the wire."""

    def __init__(self, cube: AsyncCubeClient) -> None:
        self.cube = cube
        self.seek = cube.seek

    async def prepare(self, dict_name: str, version: str, dim: int) -> object:
        dict_conf = self.cube.dicts.get(dict_name)
        if dict_conf is None:
            raise ConfError("cube.conf", "", f"has no dict {dict_name!r}")
        one_key_a_shard = np.arange(dict_conf.shard, dtype=np.uint64)
        found = await self.cube.seek(dict_name, one_key_a_shard, version=version, dim=dim)
        if (found.status == STATUS_WRONG_WIDTH).any():
            raise ModelError(
                f"dict {dict_name}, version {version}: its values are not {dim} floats wide"
            )
        return None


class NoSource:
    """NONE: the model takes no vectors; ids of requests are not looked up."""

    async def seek(
        self,
        dict_name: str,
        keys: Keys,
        *,
        version: str,
        dim: int,
        on_failure: Literal["raise", "status"] = "raise",
        log_id: int = 0,
    ) -> SeekResult:
        del dict_name, dim, on_failure, log_id
        rows = np.empty((len(keys), 0), np.float32)
        return SeekResult(rows, np.zeros(len(keys), np.int32), version)

    async def prepare(self, dict_name: str, version: str, dim: int) -> object:
        del version
        if dim:
            raise ModelError(
                f"manifest.json: embedding_dim: the model takes vectors of {dim} floats from"
                f" {dict_name!r}, but sparse_param_service_type is NONE"
            )
        return None
