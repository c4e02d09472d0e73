"""The stream of events, over real HTTP, and who may listen."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cube_core.errors import LimitError
from cube_transfer.page.listeners import LISTENERS_MAX, Listeners
from tests.transfer.site import Site
from tests.waiting import wait_until

READ, OPERATE = "token-to-read", "token-to-operate"


@contextlib.contextmanager
def listening(site: Site, token: str = "") -> Iterator[Iterator[tuple[str, Any]]]:
    """Events as (kind, what is told)."""
    headers = {"authorization": f"Bearer {token}"} if token else {}
    with site.http.stream("GET", f"{site.url()}/events", headers=headers, timeout=60) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()

        def events() -> Iterator[tuple[str, Any]]:
            kind = ""
            for line in lines:
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield kind, json.loads(line.removeprefix("data: "))

        yield events()


def test_what_is_told(site: Site) -> None:
    with site.transfer("--sample_interval_s=1"):
        with listening(site) as events:
            assert next(events) == ("hello", {"right": "operate"})
            state = next(told for kind, told in events if kind == "state")
            assert [each["key"] for each in state["problems"]] == ["empty"]
            site.trainer.announce(site.trainer.write("1"))
            for kind, told in events:
                if kind == "state" and told["wanted"] == "1_1" and told["under_way"] is None:
                    state = told
                    if all(each["state"] == "serves" for each in told["servers"]):
                        break
            assert {each["version"] for each in state["servers"]} == {"1_1"}
            (deployment,) = state["deployments"]
            assert [step["name"] for step in deployment["steps"]] == (
                ["pull", "build", "ship", "load", "switch", "publish", "tidy"]
            )
            assert list(deployment["shards_took_s"]) == ["ship", "load", "switch"]
            site.seek("cube0_0", [0, 2, 4, 1 << 40])
            charts = next(
                told for kind, told in events if kind == "charts" and any(told["series"]["keys"])
            )
            assert len(charts["times_s"]) == len(charts["series"]["keys"])
            assert max(filter(None, charts["series"]["missing"])) == 0.25
            assert set(charts["loads"]) == set(site.servers)
        # A page that is left frees its place.
        for _ in range(LISTENERS_MAX + 1):
            with listening(site) as events:
                assert next(events)[0] == "hello"


def test_listeners_are_bounded_and_a_slow_one_holds_nobody_up(site: Site) -> None:
    with site.transfer("--sample_interval_s=1") as daemon, contextlib.ExitStack() as stack:
        for _ in range(LISTENERS_MAX):
            # They never read what is sent to them, but for the byte that says they have a place.
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", daemon.port())))
            slow.settimeout(60)
            slow.sendall(b"GET /events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert slow.recv(1) == b"H"
        refused = wait_until(lambda: _refused(site), what="no place left")
        assert "pages are open already" in refused
        site.trainer.announce(site.trainer.write("1"))
        site.await_stage("1", "done")
        stack.close()
        wait_until(lambda: _first_of(site) == "hello", what="a place is free again")


def _refused(site: Site) -> str:
    with site.http.stream("GET", f"{site.url()}/events") as answer:
        if answer.status_code != 503:
            return ""
        assert answer.headers["retry-after"]
        detail: str = json.loads(answer.read())["detail"]
        return detail


def _first_of(site: Site) -> str:
    with listening(site) as events:
        return next(events)[0]


def test_who_may_listen(site: Site, tmp_path: Path) -> None:
    for name, token in (("read", READ), ("operate", OPERATE)):
        (tmp_path / name).write_text(token)
    with site.transfer("--read_token_file=read", "--operate_token_file=operate"):
        assert site.http.get(f"{site.url()}/events").status_code == 401
        assert site.http.get(f"{site.url()}/").status_code == 200
        for token, right in ((READ, "read"), (OPERATE, "operate")):
            with listening(site, token) as events:
                assert next(events) == ("hello", {"right": right})


def test_the_files_of_the_page(site: Site) -> None:
    with site.transfer():
        page = site.http.get(f"{site.url()}/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        for name in ("page.js", "show.js", "page.css", "icon.svg"):
            assert f"page/{name}" in page.text
            part = site.http.get(f"{site.url()}/page/{name}")
            assert part.headers["x-content-type-options"] == "nosniff"
        for name in ("routes.py", "..%2froutes.py", "../routes.py", ""):
            assert site.http.get(f"{site.url()}/page/{name}").status_code == 404


async def test_a_listener_gets_the_newest_of_each_kind() -> None:
    listeners = Listeners(listeners_max=1, heartbeat_s=0.01)
    listeners.admit()
    with pytest.raises(LimitError, match="LISTENERS_MAX"):
        listeners.admit()
    listeners.send("state", b"1")
    listeners.send("state", b"2")
    listeners.send("charts", b"3")
    stream = listeners.stream(b"first")
    assert await anext(stream) == b"first"
    assert await anext(stream) == b"event: state\ndata: 2\n\nevent: charts\ndata: 3\n\n"
    assert await anext(stream) == b": still here\n\n"
    # What is as it was is not sent again.
    listeners.send("state", b"2")
    assert await anext(stream) == b": still here\n\n"
    listeners.send("state", b"4")
    assert await anext(stream) == b"event: state\ndata: 4\n\n"
    waiting = asyncio.ensure_future(_ended(stream))
    listeners.close()
    assert await asyncio.wait_for(waiting, 30)
    listeners.leave()
    listeners.admit()


async def _ended(stream: Any) -> bool:
    async for _ in stream:
        pass
    return True
