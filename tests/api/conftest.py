"""Peers and clients for the tests of the client library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from cube_api import DictConf
from tests.api.peers import CLIENTS, Client, answer_from, client_of, new_seeker, write_shard
from tests.prpc_peer import Answer, LoopThread, Peer

NewPeer = Callable[[Answer], Peer]
NewClient = Callable[[dict[str, DictConf]], Client]


@pytest.fixture(scope="session")
def server_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture(scope="session")
def client_thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    yield thread
    thread.close()


@pytest.fixture
def new_peer(server_thread: LoopThread) -> Iterator[NewPeer]:
    with ExitStack() as stack:

        def make(answer: Answer) -> Peer:
            peer = Peer(server_thread, answer)
            stack.callback(peer.stop)
            return peer

        yield make


@pytest.fixture(params=["sync", "async"])
def new_client(request: pytest.FixtureRequest, client_thread: LoopThread) -> Iterator[NewClient]:
    """Makes clients; every test that asks for it runs with each of the two."""
    with clients(request.param, client_thread) as make:
        yield make


@pytest.fixture(params=CLIENTS)
def any_client(request: pytest.FixtureRequest, client_thread: LoopThread) -> Iterator[NewClient]:
    """As `new_client`, for tests that hold with one pinned version too."""
    with clients(request.param, client_thread) as make:
        yield make


@contextmanager
def clients(kind: str, thread: LoopThread) -> Iterator[NewClient]:
    with ExitStack() as stack:

        def make(conf: dict[str, DictConf]) -> Client:
            return stack.enter_context(client_of(kind, thread, conf))

        yield make


@pytest.fixture
def two_shards(new_peer: NewPeer, tmp_path: Path) -> list[Peer]:
    """Servers of the keys below 100 in two shards, version 1_1, four floats a row."""
    return [
        new_peer(answer_from(new_seeker(write_shard(tmp_path, shard, 2, "1_1"))))
        for shard in range(2)
    ]
