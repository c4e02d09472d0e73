"""A server that is told of no dict serves those it finds in its data directory."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cube_core.access import Asker
from cube_core.errors import RpcError
from cube_server.control_plane import ControlPlane
from cube_server.settings import ServerSettings
from tests.processes import running
from tests.server.client import ServerClient
from tests.server.tables import make_table
from tests.server.test_dicts import first_value

Url = Callable[[str], str]


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def url(tmp_path: Path) -> Iterator[Url]:
    """Addresses of the files in tmp_path/"served"."""
    (tmp_path / "served").mkdir()
    handler = functools.partial(_Handler, directory=str(tmp_path / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield lambda name: f"http://127.0.0.1:{server.server_address[1]}/{name}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("workers", [1, 2])
def test_dicts_found_in_the_directory_and_new_ones(tmp_path: Path, url: Url, workers: int) -> None:
    for name, base in (("users", 1), ("my_items", 2), ("my_items", 3)):
        path = tmp_path / "data" / name / f"{base}_{base}" / f"{name}_part0.table"
        make_table(path, base, dict_name=name)
    (tmp_path / "data" / "users" / "VERSION").write_text("1_1")
    (tmp_path / "data" / "my_items" / "VERSION").write_text("3_3")
    (tmp_path / "data" / "lost+found").mkdir()
    (tmp_path / "data" / "empty").mkdir()
    report = make_table(tmp_path / "served" / "new.table", 7, dict_name="fresh")
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data", f"--workers={workers}"]
    order = {
        "version": "7_7",
        "url": url("new.table"),
        "size": report.file_bytes,
        "crc32c": report.crc32c,
    }
    with running("cube_server.main", arguments, cwd=tmp_path) as role, ServerClient(role) as client:
        assert "dicts=my_items,users" in role.ready_line
        assert first_value(client, "users") == 1e6
        assert first_value(client, "my_items") == first_value(client, None) == 3e6
        with pytest.raises(RpcError, match="dict 'fresh' is not served"):
            client.seek([0], dict_name="fresh")
        assert client.command("enable", version="7_7", dict_name="fresh").status_code == 500
        refused = client.command("download", dict_name="../fresh", **order)
        assert "use letters, digits" in refused.text
        lost = {**order, "url": url("nothing.table")}
        assert client.command("download", dict_name="fresh", **lost).status_code == 500
        assert not (tmp_path / "data" / "fresh").exists()
        client.state("download", dict_name="fresh", **order)
        # Until it serves a version, the server is as ready as before.
        assert client.http.get("/ready").status_code == 200
        with pytest.raises(RpcError, match="no version is loaded"):
            client.seek([0], dict_name="fresh")
        client.state("enable", version="7_7", dict_name="fresh")
        assert first_value(client, "fresh") == 7e6
        assert first_value(client, "users") == 1e6
        assert set(client.status()["dicts"]) == {"my_items", "users", "fresh"}
        assert 'dict="fresh"' in client.http.get("/metrics").text
    with running("cube_server.main", arguments, cwd=tmp_path) as role, ServerClient(role) as client:
        assert "dicts=fresh,my_items,users" in role.ready_line
        assert first_value(client, "fresh") == 7e6


@pytest.mark.parametrize("second", ["download", "enable"])
async def test_a_new_dict_is_taken_in_once(tmp_path: Path, url: Url, second: str) -> None:
    """Another command for it comes while workers are told of it."""
    report = make_table(tmp_path / "served" / "new.table", 7, dict_name="fresh")
    order = {
        "version": "7_7",
        "url": url("new.table"),
        "size": report.file_bytes,
        "crc32c": report.crc32c,
        "dict_name": "fresh",
    }
    make_table(tmp_path / "data" / "1_1" / "first_part0.table", 1, dict_name="first")
    told, go_on = asyncio.Event(), asyncio.Event()

    async def publish(*_: object) -> None:
        told.set()
        await go_on.wait()

    async def counts() -> dict[str, int]:
        return {}

    def command(cmd: str) -> asyncio.Task[bytes]:
        body = json.dumps({"cmd": cmd, **order}).encode()
        return asyncio.create_task(plane.command(body, Asker("127.0.0.1:1")))

    plane = ControlPlane(ServerSettings(data_dir=tmp_path / "data"), publish, counts)
    await plane.open()
    await plane.start()
    try:
        downloads = [command("download"), command("download")]
        await told.wait()
        another = command(second)
        await asyncio.sleep(0.2)
        go_on.set()
        await asyncio.gather(*downloads)
        await asyncio.wait([another])
        await command("enable")
        assert [each.shown_name for each in plane.dicts] == ["", "fresh"]
        assert (await plane.status())["dicts"]["fresh"]["cur_version"] == "7_7"
    finally:
        await plane.stop()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_dict_that_was_copied_there_needs_no_restart(tmp_path: Path, workers: int) -> None:
    def copy(name: str, base: int) -> None:
        path = tmp_path / "data" / name / f"{base}_{base}" / f"{name}_part0.table"
        make_table(path, base, dict_name=name)

    copy("users", 1)
    (tmp_path / "data" / "users" / "VERSION").write_text("1_1")
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data", f"--workers={workers}"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role, ServerClient(role) as client:
        copy("items", 2)
        assert "is not served; served: users" in client.command("status", dict_name="items").text
        assert client.state("bg_load_base", dict_name="items", version="2") == ("", "2_2", 2)
        client.state("bg_switch", dict_name="items")
        assert first_value(client, "items") == 2e6
        assert first_value(client, "users") == first_value(client, None) == 1e6
        assert set(client.status()["dicts"]) == {"items", "users"}
        for name in ("nothing", "../users", "1_1"):
            assert "is not served" in client.command("enable", dict_name=name, version="1").text


def test_a_dict_beside_that_of_an_unnamed_server(tmp_path: Path, url: Url) -> None:
    """The first dict that comes has the data directory to itself, others have one in it."""
    arguments = ["--port=0", "--grpc_port=-1", "--data_dir=data"]
    with running("cube_server.main", arguments, cwd=tmp_path) as role, ServerClient(role) as client:
        assert client.http.get("/ready").status_code == 503
        for name, base in (("users", 1), ("items", 2)):
            report = make_table(tmp_path / "served" / f"{name}.table", base, dict_name=name)
            client.state(
                "download",
                dict_name=name,
                version=f"{base}_{base}",
                url=url(f"{name}.table"),
                size=report.file_bytes,
                crc32c=report.crc32c,
            )
        client.state("enable", dict_name="items", version="2_2")
        assert client.http.get("/ready").status_code == 503
        client.state("enable", version="1_1")
        assert client.http.get("/ready").status_code == 200
        assert first_value(client, None) == first_value(client, "users") == 1e6
        assert first_value(client, "items") == 2e6
    data_dir = tmp_path / "data"
    assert (data_dir / "1_1" / "users_part0.table").is_file()
    assert (data_dir / "items" / "2_2" / "items_part0.table").is_file()
    with running("cube_server.main", arguments, cwd=tmp_path) as role, ServerClient(role) as client:
        assert (first_value(client, None), first_value(client, "items")) == (1e6, 2e6)
