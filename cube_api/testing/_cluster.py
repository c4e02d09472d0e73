"""Shard servers in the process of a test."""

from __future__ import annotations

import asyncio
import tempfile
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube_api.testing._server import FakeServer
from cube_core._native import Table, write_table
from cube_core.conf.cube_conf import DictConf

_CALL_TIMEOUT_S = 30.0


class FakeCluster:
    """Shard servers that hold given rows, on sockets of 127.0.0.1, in a thread of the test.

        keys = np.array([1, 2, 3], np.uint64)
        with FakeCluster(keys, np.ones((3, 8), np.float32), shard_num=2, replicas=2) as cluster:
            with CubeClient(cluster.conf(retry=1)) as cube:
                cluster.kill(0, 1)
                rows, status = cube.seek("fake", keys)

    They answer seeks by the kernel of the real server, versions and pins included; nothing else.

    Args:
        keys: uint64[n] or int64[n], each once.
        rows: float32[n, dim]; or a value of any width each, for `seek_bytes`.
        dict_name: the one dict that it serves.
        shard_num: a key is served by shard `key % shard_num`.
        replicas: servers of each shard.
        version: "<base>_<version>" of the rows.

    Raises:
        ValueError: keys and rows that do not fit each other, or a malformed version.
    """

    def __init__(
        self,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        rows: NDArray[np.float32] | Sequence[bytes],
        *,
        dict_name: str = "fake",
        shard_num: int = 1,
        replicas: int = 1,
        version: str = "1_1",
    ) -> None:
        if shard_num < 1 or replicas < 1:
            raise ValueError(f"shard_num={shard_num} and replicas={replicas} must be at least 1")
        self.dict_name = dict_name
        self._shard_num = shard_num
        self._folder = tempfile.TemporaryDirectory(prefix="fake-cluster-")
        self._current: list[Table] = []
        self._servers = [[FakeServer() for _ in range(replicas)] for _ in range(shard_num)]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        try:
            self.switch(keys, rows, version)
            for server in self._all():
                self._run(server.start())
        except BaseException:
            self.close()
            raise

    def conf(self, **fields: Any) -> dict[str, DictConf]:
        """What a client takes in place of the path of a `cube.conf`.

        Args:
            fields: other fields of `cube.conf`, such as `timeout=2000` or `backup_request=10`.
        """
        shards = [",".join(str(server.endpoint) for server in shard) for shard in self._servers]
        entry = {
            "dict_name": self.dict_name,
            "shard": self._shard_num,
            "dup": len(self._servers[0]),
            "timeout": 2000,
            "type": "ipport_list",
            "nodes": [{"ipport_list": f"list://{servers}"} for servers in shards],
        }
        return {self.dict_name: DictConf.model_validate({**entry, **fields})}

    def switch(
        self,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        rows: NDArray[np.float32] | Sequence[bytes],
        version: str,
        *,
        shard: int | None = None,
    ) -> None:
        """Serves these rows from now on; the version before stays for requests that pin it.

        Args:
            shard: switch only this one, as in the middle of a deployment.
        """
        shape = rows.shape if isinstance(rows, np.ndarray) else (len(rows), 0)
        if keys.ndim != 1 or len(shape) != 2 or len(keys) != shape[0]:
            raise ValueError(f"keys {keys.shape} and rows {shape} do not fit each other")
        shards = range(self._shard_num) if shard is None else [shard]
        tables = {each: self._table(keys, rows, version, each) for each in shards}
        previous = dict(enumerate(self._current))
        for each, table in tables.items():
            for server in self._servers[each]:
                server.serve(table, previous.get(each))
        self._current = list({**previous, **tables}.values())

    def kill(self, shard: int, replica: int = 0) -> None:
        """The server dies: its connections are lost, further ones refused."""
        self._run(self._servers[shard][replica].stop())

    def revive(self, shard: int, replica: int = 0) -> None:
        """It is there again, at the same address."""
        self._run(self._servers[shard][replica].start())

    def delay(self, shard: int, replica: int = 0, *, delay_ms: float) -> None:
        """Its answers come so much later; 0 ends that."""
        self._servers[shard][replica].delay_s = delay_ms / 1000

    def hang(self, shard: int, replica: int = 0, *, hangs: bool = True) -> None:
        """It takes requests and answers none."""
        self._servers[shard][replica].hangs = hangs

    def requests_num(self, shard: int, replica: int = 0) -> int:
        """Seeks that came to it, those without an answer included."""
        return self._servers[shard][replica].requests_num

    def close(self) -> None:
        """Ends the servers and removes their tables."""
        if self._loop.is_closed():
            return
        for server in self._all():
            self._run(server.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CALL_TIMEOUT_S)
        self._loop.close()
        self._folder.cleanup()

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _all(self) -> list[FakeServer]:
        return [server for shard in self._servers for server in shard]

    def _table(
        self,
        keys: NDArray[Any],
        rows: NDArray[np.float32] | Sequence[bytes],
        version: str,
        shard: int,
    ) -> Table:
        numbers = np.ascontiguousarray(keys).view(np.uint64)
        mine = numbers % np.uint64(self._shard_num) == shard
        path = Path(self._folder.name) / f"{version}_part{shard}.table"
        values, layout = _stored(rows, np.flatnonzero(mine))
        write_table(
            str(path),
            np.ascontiguousarray(numbers[mine]),
            values,
            dict_name=self.dict_name,
            version=version,
            shard=shard,
            shard_num=self._shard_num,
            **layout,
        )
        return Table.open(str(path))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_CALL_TIMEOUT_S)


def _stored(
    rows: NDArray[np.float32] | Sequence[bytes], at: NDArray[np.intp]
) -> tuple[NDArray[np.uint8], dict[str, Any]]:
    """The rows with these indexes as a table takes them, and how it is told of their widths."""
    if isinstance(rows, np.ndarray):
        return np.ascontiguousarray(rows[at], np.float32).view(np.uint8), {}
    values = [rows[i] for i in at.tolist()]
    offsets = np.cumsum([0, *map(len, values)], dtype=np.int64)
    joined = np.frombuffer(b"".join(values), np.uint8)
    return joined, {"value_kind": "variable", "offsets": offsets}
