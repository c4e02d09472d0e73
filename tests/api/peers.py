"""Servers on 127.0.0.1 whose answers a test decides, and both clients behind one face."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from cube_api import AsyncCubeClient, CubeClient, DictConf, SeekResult
from cube_core._native import (
    Frame,
    Seeker,
    Table,
    encode_error_frame,
    encode_response_frame,
    parse_frames,
    write_table,
)
from cube_core.endpoint import Endpoint
from cube_core.errors import VersionNotLoadedError
from cube_proto.dict_pb2 import DictRequest, DictResponse

T = TypeVar("T")
Answer = Callable[[Frame], bytes]

MISSING = 0xFFFFFFFF
_JOIN_TIMEOUT_S = 10.0


class LoopThread:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def close(self) -> None:
        self.run(self.loop.shutdown_default_executor())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(_JOIN_TIMEOUT_S)
        self.loop.close()


class Peer:
    """A baidu_std server. `answer` makes the bytes to send for each request and may be replaced at
    any time; `accepts = False` closes connections at once; `hold = True` keeps answers back until
    `release`; `answered_num` counts requests."""

    def __init__(self, thread: LoopThread, answer: Answer) -> None:
        self._thread = thread
        self.answer = answer
        self.accepts = True
        self.hold = False
        self.requests_num = 0
        self.connections_num = 0
        self._held: list[tuple[asyncio.Transport, bytes]] = []
        self._transports: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None
        self.port = 0
        self.start()

    @property
    def endpoint(self) -> Endpoint:
        return Endpoint("127.0.0.1", self.port)

    @property
    def held_num(self) -> int:
        return len(self._held)

    def start(self) -> None:
        """Listens, on the same port as before."""
        self._thread.run(self._start())

    def stop(self) -> None:
        """Stops listening and drops every connection, as a process that dies."""
        self._thread.run(self._stop())

    def release(self) -> None:
        """Sends what was held back, the last first."""
        self._thread.run(self._release())

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _PeerProtocol(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for transport in list(self._transports):
                transport.abort()
            await self._server.wait_closed()

    async def _release(self) -> None:
        self.hold = False
        while self._held:
            transport, data = self._held.pop()
            transport.write(data)

    def connected(self, transport: asyncio.Transport) -> None:
        self.connections_num += 1
        self._transports.add(transport)
        if not self.accepts:
            transport.close()

    def disconnected(self, transport: asyncio.Transport) -> None:
        self._transports.discard(transport)

    def requested(self, transport: asyncio.Transport, frame: Frame) -> None:
        self.requests_num += 1
        data = self.answer(frame)
        if self.hold:
            self._held.append((transport, data))
        else:
            transport.write(data)


class _PeerProtocol(asyncio.Protocol):
    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer.connected(self._transport)

    def data_received(self, data: bytes) -> None:
        frames, used_bytes, _ = parse_frames(self._data + data, 64 << 20)
        self._data = (self._data + data)[used_bytes:]
        for frame in frames:
            self._peer.requested(self._transport, frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.disconnected(self._transport)


def answer_from(seeker: Seeker) -> Answer:
    """Answers with the seek kernel of the shard server."""

    def answer(frame: Frame) -> bytes:
        try:
            return encode_response_frame(frame.correlation_id, seeker.seek(frame.payload))
        except VersionNotLoadedError as error:
            return encode_error_frame(frame.correlation_id, 2001, str(error))

    return answer


def answer_with(values: Mapping[int, bytes], version: str | None = "1_1") -> Answer:
    """Answers from a dict, by protobuf's own classes, without pinned versions: as old servers."""

    def answer(frame: Frame) -> bytes:
        request = DictRequest.FromString(bytes(frame.payload))
        response = DictResponse()
        for key in request.keys:
            value = values.get(key)
            response.values.add(
                status=MISSING if value is None else 0, value=b"" if value is None else value
            )
        if request.version_required and version is not None:
            response.version = version
        return encode_response_frame(frame.correlation_id, response.SerializeToString())

    return answer


def write_shard(
    folder: Path, shard: int, shard_num: int, version: str, *, keys_num: int = 100, dim: int = 4
) -> Table:
    """A table of the keys below `keys_num` of a shard; row k is `k + base of version / 8`."""
    keys = np.arange(shard, keys_num, shard_num, dtype=np.uint64)
    path = folder / f"{version}_part{shard}_of_{shard_num}.table"
    write_table(
        str(path),
        keys,
        np.ascontiguousarray(expected_rows(keys, version, dim)).view(np.uint8),
        dict_name="d",
        version=version,
        shard=shard,
        shard_num=shard_num,
    )
    return Table.open(str(path))


def expected_rows(keys: NDArray[np.uint64], version: str, dim: int = 4) -> NDArray[np.float32]:
    column = keys.astype(np.float32) + np.float32(int(version.partition("_")[0]) / 8)
    return np.repeat(column[:, None], dim, axis=1)


def new_seeker(current: Table | None, *others: Table) -> Seeker:
    seeker = Seeker(1 << 20, 64 << 20)
    seeker.set_tables(current, others)
    return seeker


def conf_of(shards: Sequence[Sequence[Endpoint]], **changes: Any) -> dict[str, DictConf]:
    """A conf with dict "d" of these shards and their replicas."""
    fields: dict[str, Any] = {
        "dict_name": "d",
        "shard": len(shards),
        "timeout": 2000,
        "retry": 2,
        "type": "ipport_list",
        "nodes": [{"ipport_list": "list://" + ",".join(map(str, shard))} for shard in shards],
    }
    return {"d": DictConf.model_validate({**fields, **changes})}


class Client(Protocol):
    """What both clients do, without `await`."""

    def seek(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        *,
        version: str | None = None,
        dim: int | None = None,
        timeout_ms: int | None = None,
    ) -> SeekResult: ...

    def close(self) -> None: ...


class AsyncInThread:
    """`AsyncCubeClient` on a loop in a thread."""

    def __init__(self, thread: LoopThread, conf: dict[str, DictConf]) -> None:
        self._thread = thread
        self._client = AsyncCubeClient(conf)

    def seek(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        *,
        version: str | None = None,
        dim: int | None = None,
        timeout_ms: int | None = None,
    ) -> SeekResult:
        return self._thread.run(
            self._client.seek(dict_name, keys, version=version, dim=dim, timeout_ms=timeout_ms)
        )

    def close(self) -> None:
        self._thread.run(self._client.close())


@contextlib.contextmanager
def client_of(kind: str, thread: LoopThread, conf: dict[str, DictConf]) -> Iterator[Client]:
    """The client named "sync" or "async"."""
    client: Client = CubeClient(conf) if kind == "sync" else AsyncInThread(thread, conf)
    try:
        yield client
    finally:
        client.close()
