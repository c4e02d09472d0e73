"""Answers of shard servers, sound ones, and both clients behind one face."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cube_api import AsyncCubeClient, CubeClient, DictConf, SeekBytesResult, SeekResult
from cube_api._options import OnFailure, OnMissing, OnMissingBytes
from cube_core._native import (
    Frame,
    Seeker,
    Table,
    encode_error_frame,
    encode_response_frame,
    write_table,
)
from cube_core.endpoint import Endpoint
from cube_core.errors import VersionNotLoadedError
from cube_proto.dict_pb2 import DictRequest, DictResponse
from tests.prpc_peer import Answer, LoopThread

MISSING = 0xFFFFFFFF


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
        on_missing: OnMissing = "zeros",
        on_failure: OnFailure = "raise",
    ) -> SeekResult: ...

    def seek_bytes(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        *,
        version: str | None = None,
        timeout_ms: int | None = None,
        on_missing: OnMissingBytes = "empty",
        on_failure: OnFailure = "raise",
    ) -> SeekBytesResult: ...

    def close(self) -> None: ...


class AsyncInThread:
    """`AsyncCubeClient` on a loop in a thread."""

    spin_us = 0

    def __init__(self, thread: LoopThread, conf: Path | dict[str, DictConf]) -> None:
        self._thread = thread
        self._client = AsyncCubeClient(conf, spin_us=self.spin_us)

    def seek(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        **options: Any,
    ) -> SeekResult:
        return self._thread.run(self._client.seek(dict_name, keys, **options))

    def seek_bytes(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        **options: Any,
    ) -> SeekBytesResult:
        return self._thread.run(self._client.seek_bytes(dict_name, keys, **options))

    def close(self) -> None:
        self._thread.run(self._client.close())


class PinnedInThread(AsyncInThread):
    """The same as a predictor asks it: for one version, 1_1, and rows of four floats."""

    spin_us = 300

    def seek(
        self,
        dict_name: str,
        keys: NDArray[np.uint64] | NDArray[np.int64],
        **options: Any,
    ) -> SeekResult:
        return super().seek(dict_name, keys, **{"version": "1_1", "dim": 4, **options})


CLIENTS: dict[str, Callable[[LoopThread, Path | dict[str, DictConf]], Client]] = {
    "sync": lambda _, conf: CubeClient(conf),
    "async": AsyncInThread,
    "pinned": PinnedInThread,
}


@contextlib.contextmanager
def client_of(kind: str, thread: LoopThread, conf: Path | dict[str, DictConf]) -> Iterator[Client]:
    """The client of that name in CLIENTS."""
    client = CLIENTS[kind](thread, conf)
    try:
        yield client
    finally:
        client.close()
