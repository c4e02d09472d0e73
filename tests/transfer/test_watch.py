"""Watching a donefile that comes, grows, is replaced, or cannot be reached."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from watchfiles._rust_notify import WatchfilesRustInternalError

from cube_core.errors import ConfError
from cube_transfer.donefile import donefile_address
from cube_transfer.watch import DonefileWatch
from tests.transfer.http_directory import http_directory


@contextlib.asynccontextmanager
async def watching(address: str, poll_interval_ms: int = 50) -> AsyncIterator[DonefileWatch]:
    async with httpx.AsyncClient(trust_env=False) as http:
        watch = DonefileWatch(donefile_address(address), poll_interval_ms, http)
        task = asyncio.ensure_future(watch.run())
        try:
            yield watch
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _append(path: Path, pass_id: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({"id": pass_id, "key": pass_id, "input": "x"}) + "\n")


async def _await_ids(watch: DonefileWatch, ids: list[str]) -> None:
    async def changed() -> None:
        while [entry.id for entry in watch.reading.entries] != ids:
            watch.changed.clear()
            await watch.changed.wait()

    await asyncio.wait_for(changed(), 10)


async def _await_true(condition: Callable[[], bool]) -> None:
    """For what raises no event: asks again in every turn of the loop's clock."""
    deadline = asyncio.get_running_loop().time() + 10
    tick = asyncio.Event()
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(tick.wait(), 0.01)


async def test_a_local_file_that_comes_later_and_grows(tmp_path: Path) -> None:
    directory = tmp_path / "donefile"
    async with watching(str(directory)) as watch:
        await _await_true(lambda: "base.txt: no such file yet" in watch.error)
        _append(directory / "base.txt", "1")
        await _await_ids(watch, ["1"])
        assert watch.error == ""
        _append(directory / "base.txt", "2")
        await _await_ids(watch, ["1", "2"])


async def test_a_change_is_seen_before_the_poll_is_due(tmp_path: Path) -> None:
    _append(tmp_path / "base.txt", "1")
    async with watching(str(tmp_path), poll_interval_ms=60_000) as watch:
        await _await_ids(watch, ["1"])

        # Also what comes before the file system's watch stands.
        for number in range(2, 5):
            _append(tmp_path / "base.txt", str(number))
            await _await_ids(watch, [str(each) for each in range(1, number + 1)])


async def test_a_directory_that_is_replaced(tmp_path: Path) -> None:
    directory = tmp_path / "donefile"
    _append(directory / "base.txt", "1")
    async with watching(str(directory)) as watch:
        await _await_ids(watch, ["1"])
        directory.rename(tmp_path / "old")
        await _await_true(lambda: watch.error != "")
        _append(directory / "base.txt", "2")
        await _await_ids(watch, ["2"])


@pytest.mark.parametrize(
    "error",
    [
        WatchfilesRustInternalError("Error creating recommended watcher: Too many open files"),
        OSError("OS file watch limit reached"),
        FileNotFoundError("No such file or directory"),
    ],
)
async def test_a_directory_that_cannot_be_watched_is_polled(
    tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As awatch says it where all of the user's inotify is taken, or the directory just went."""

    async def refused(*_: object, **__: object) -> AsyncIterator[None]:
        raise error
        yield

    monkeypatch.setattr("cube_transfer.watch.awatch", refused)
    _append(tmp_path / "base.txt", "1")
    async with watching(str(tmp_path)) as watch:
        await _await_ids(watch, ["1"])
        _append(tmp_path / "base.txt", "2")
        await _await_ids(watch, ["1", "2"])


async def test_http_answers_that_fail_are_told_and_tried_again(tmp_path: Path) -> None:
    _append(tmp_path / "base.txt", "1")
    with http_directory(tmp_path) as source:
        source.statuses["base.txt"] = 503
        async with watching(f"{source.url}/base.txt") as watch:
            await _await_true(lambda: "HTTP 503" in watch.error)
            del source.statuses["base.txt"]
            await _await_ids(watch, ["1"])
            assert watch.error == ""
            _append(tmp_path / "base.txt", "2")
            await _await_ids(watch, ["1", "2"])


async def test_each_time_that_a_donefile_cannot_be_read_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And not only the first, maybe months ago."""
    _append(tmp_path / "base.txt", "1")
    with http_directory(tmp_path) as source:
        async with watching(f"{source.url}/base.txt") as watch:
            for number in range(1, 4):
                source.statuses["base.txt"] = 503
                await _await_true(lambda: "HTTP 503" in watch.error)
                assert caplog.text.count("HTTP 503") == number
                del source.statuses["base.txt"]
                await _await_true(lambda: watch.error == "")


async def test_a_host_that_is_not_there(unused_tcp_port: int) -> None:
    async with watching(f"http://127.0.0.1:{unused_tcp_port}/donefile") as watch:
        await _await_true(lambda: "donefile/base.txt: " in watch.error)


@pytest.mark.parametrize("address", ["afs://cluster/donefile", "gopher://host/donefile"])
async def test_other_schemes_are_refused(address: str) -> None:
    async with httpx.AsyncClient() as http:
        with pytest.raises(ConfError, match="donefile_address"):
            DonefileWatch(donefile_address(address), 1000, http)
