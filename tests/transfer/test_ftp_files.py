"""Passes and donefiles on a real FTP server."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cube_core.errors import DeployError
from cube_transfer.source import PulledPass
from tests.transfer.remote_pass import KEY_COUNT, leave_part, require_pulled, write_pass
from tests.transfer.site import Site


class FtpDirectory:
    """The server's address, and the commands that it got."""

    def __init__(self, port: int) -> None:
        self.url = f"ftp://127.0.0.1:{port}"
        self.commands: list[str] = []


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_pass(tmp_path / "trainer")


@pytest.fixture
def pulled(tmp_path: Path) -> PulledPass:
    return PulledPass(tmp_path / "pulls" / "1_1")


@pytest.fixture
def ftp(train: Path) -> Iterator[FtpDirectory]:
    with warnings.catch_warnings():
        # It stands on modules that newer Pythons do without.
        warnings.simplefilter("ignore")
        from pyftpdlib.authorizers import DummyAuthorizer
        from pyftpdlib.handlers import FTPHandler
        from pyftpdlib.ioloop import IOLoop
        from pyftpdlib.servers import FTPServer

    class Handler(FTPHandler):  # type: ignore[misc]
        def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
            directory.commands.append(line)
            super().pre_process_command(line, cmd, arg)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Handler.authorizer = DummyAuthorizer()
        Handler.authorizer.add_anonymous(str(train))
        Handler.authorizer.add_user("trainer", "s3cret", str(train))
    server = FTPServer(("127.0.0.1", 0), Handler, ioloop=IOLoop())
    directory = FtpDirectory(server.address[1])
    stopping = threading.Event()

    def serve() -> None:
        while not stopping.is_set():
            server.serve_forever(timeout=0.02, blocking=False, handle_exit=False)
        server.close_all()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield directory
    stopping.set()
    thread.join(10)


async def _pull(pulled: PulledPass, location: str, dense: str = "") -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        if dense:
            await pulled.pull_dense(dense, http)
        await pulled.pull_input(location, http)


async def test_a_pass_is_resumed(train: Path, pulled: PulledPass, ftp: FtpDirectory) -> None:
    part = train / "1" / "embedding" / "part-00001"
    leave_part(pulled, part.name, part.read_bytes()[:700])
    await _pull(pulled, f"{ftp.url}/1/embedding", f"{ftp.url}/1/dense")
    require_pulled(pulled, train)
    assert "REST 700" in ftp.commands


async def test_a_directory_without_manifest(
    train: Path, pulled: PulledPass, ftp: FtpDirectory
) -> None:
    (train / "1" / "embedding" / "_manifest.json").unlink()
    address = ftp.url.replace("//", "//trainer:s3cret@")
    await _pull(pulled, f"{address}/1/embedding")
    require_pulled(pulled, train)


async def test_what_the_server_refuses(pulled: PulledPass, ftp: FtpDirectory) -> None:
    wrong = ftp.url.replace("//", "//trainer:wrong-one@")
    with pytest.raises(DeployError, match="530") as caught:
        await _pull(pulled, f"{wrong}/1/embedding")
    assert "wrong-one" not in str(caught.value)
    with pytest.raises(DeployError, match="/nowhere"):
        await _pull(pulled, f"{ftp.url}/nowhere")


async def test_a_server_that_is_down(pulled: PulledPass, unused_tcp_port: int) -> None:
    with pytest.raises(OSError, match="ftp://127") as caught:
        await _pull(pulled, f"ftp://127.0.0.1:{unused_tcp_port}/1")
    assert not isinstance(caught.value, DeployError)


def test_a_donefile(site: Site, train: Path, ftp: FtpDirectory) -> None:
    donefile = train / "donefile" / "base.txt"
    donefile.parent.mkdir()
    donefile.write_text(json.dumps(site.trainer.line("1")) + "\n")
    with site.transfer(donefile_address=f"{ftp.url}/donefile"):
        site.await_stage("1", "done")
        site.require_served("1", key_count=KEY_COUNT)
        assert site.published() == "1_1"
        site.require_tidy()
