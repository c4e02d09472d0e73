"""The client for threads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import numpy as np
from numpy.typing import NDArray

from cube_api._blocking_run import run
from cube_api._directory import Directory
from cube_api._new_call import bytes_call, rows_call
from cube_api._options import OnFailure, OnMissing, OnMissingBytes, SeekOptions, policy_of_bytes
from cube_api._pool import ConnectionPool
from cube_api._result import SeekBytesResult, SeekResult
from cube_api._topology import DictTopology, Topology
from cube_core.conf.cube_conf import DictConf
from cube_core.errors import SeekError


class CubeClient:
    """Asks the shard servers of a `cube.conf` for rows. Thread-safe: every seek has connections of
    its own, kept for later seeks. Usable in forked children.

    Args:
        conf: path of `cube.conf`, which is watched: a changed one is taken over between two seeks,
            a broken one is logged and the old one stays; or its dicts by name.

    Raises:
        ConfError: names the file and the field.
    """

    def __init__(self, conf: Path | str | Mapping[str, DictConf]) -> None:
        self._directory = Directory(conf)
        self._adopted = self._directory.topology
        self._pool = ConnectionPool(self._adopted)
        self._closed = False

    @property
    def dicts(self) -> Mapping[str, DictConf]:
        """The configured dicts by name."""
        return self._directory.topology.confs

    def seek(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        *,
        version: str | None = None,
        dim: int | None = None,
        timeout_ms: int | None = None,
        on_missing: OnMissing = "zeros",
        on_failure: OnFailure = "raise",
        log_id: int = 0,
    ) -> SeekResult:
        """Looks up a batch of keys: `rows, status = client.seek(…)`.

        All rows come from one version: the pinned one, else the one that all shards agree on.

        Args:
            keys: uint64[n], any order, duplicates allowed; int64[n] is taken as two's complement.
                No keys cause no traffic.
            version: "<base>_<version>" to answer from; what the servers serve when None.
            dim: floats a row; when None that of the first found value, else that of earlier seeks,
                else 0.
            timeout_ms: for the whole seek, retries included; that of the dict when None.
            on_missing: the row of keys that are in no table: "zeros", a default row (float32[dim]),
                or "raise" for an error.
            on_failure: "raise", or "status": the keys of a shard that fails, or is too late, get
                status -3 and zeros, and `errors` of the result says why. Versions that are not
                loaded, or not agreed upon, are raised all the same.
            log_id: number of the seek, by which the servers' logs name it; 0 for none.

        Returns:
            rows float32[n, dim] and status int32[n] (0 found, -1 missing, -2 of another width, -3
            the shard failed; the last two with a row of zeros), and `version` and `errors` as
            attributes.

        Raises:
            ConfError: no such dict.
            SeekTimeoutError: not all shards answered in time; names them.
            MissingKeysError: keys are missing, with on_missing="raise".
            ShardError: a shard cannot be asked or answers malformed bytes; names its endpoints.
            VersionNotLoadedError: the pinned version, or any, is not loaded.
            SeekError: the shards do not come to one version; or the client is closed.
        """
        options = SeekOptions(version, dim, timeout_ms, on_missing, on_failure, log_id)
        return run(rows_call(self._dict_named(dict_name), keys, options), self._pool)

    def seek_bytes(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        *,
        version: str | None = None,
        timeout_ms: int | None = None,
        on_missing: OnMissingBytes = "empty",
        on_failure: OnFailure = "raise",
        log_id: int = 0,
    ) -> SeekBytesResult:
        """As `seek`, for values of any width: `offsets, values, status = client.seek_bytes(…)`.

        Args:
            on_missing: the value of keys that are in no table: "empty", or "raise" for an error.

        Returns:
            offsets int64[n + 1], values uint8[b] and status int32[n] (0 found, -1 missing, -3 the
            shard failed): the value of key i is between offsets i and i + 1, or `result.value(i)`.

        Raises:
            As `seek`.
        """
        policy = policy_of_bytes(on_missing)
        options = SeekOptions(version, None, timeout_ms, policy, on_failure, log_id)
        return run(bytes_call(self._dict_named(dict_name), keys, options), self._pool)

    def close(self) -> None:
        """Closes its connections; seeks of other threads still end well."""
        self._closed = True
        self._directory.close()
        self._pool.close()

    def _dict_named(self, name: str) -> DictTopology:
        if self._closed:
            raise SeekError("the client is closed")
        return self._topology().dict_named(name)

    def _topology(self) -> Topology:
        topology = self._directory.topology
        if topology is not self._adopted:
            self._adopted = topology
            self._pool.adopt(topology)
        return topology

    def __enter__(self) -> CubeClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
