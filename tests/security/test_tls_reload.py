"""Certificates, and who may sign them, replaced while roles and clients run."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

import grpc
import httpx
import pytest

from cube_api import AsyncCubeClient, CubeClient
from cube_core import tls
from cube_core.errors import ConfError, ShardError
from cube_core.tls import ClientTls, Renewed, ServerTls, TlsFiles
from cube_core.wire.grpc_server import _Certificates
from tests.processes import running
from tests.security.certificates import Authority, Side, flags
from tests.security.tls_wires import KEYS, WIRES, conf_of, seek, serving, tls_of
from tests.server.tables import DICT_NAME
from tests.transfer.passes import DICT_NAME as PASS_DICT_NAME
from tests.waiting import wait_until

FAILURES = (ShardError, httpx.TransportError, grpc.RpcError)


@pytest.fixture
def old(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "old")


@pytest.fixture
def new(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "new")


def client_of(shows: Authority, trusts: Authority) -> TlsFiles:
    return shows.issue("client", trusts=trusts.ca_file)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_shard_server_shows_the_new_certificate_and_asks_for_the_new_authority(
    tmp_path: Path, old: Authority, new: Authority, workers: int
) -> None:
    side = Side.of(tmp_path / "server", old)
    with serving(tmp_path, f"--workers={workers}", *flags(side.files)) as role:

        def gets_in(wire: str, *, shows: Authority, trusts: Authority) -> bool:
            try:
                seek(wire, role, tmp_path, client_of(shows, trusts))
            except FAILURES:
                return False
            return True

        for wire in WIRES:
            assert gets_in(wire, shows=old, trusts=old), wire
            assert not gets_in(wire, shows=old, trusts=new), wire
        # Half of the pair does not fit: the old one stays.
        shutil.copy(new.issue("localhost").cert_file, side.files.cert_file)
        for wire in WIRES:
            assert gets_in(wire, shows=old, trusts=old), wire
        assert "the certificates before it stay in use" in role.log()

        side.show(new)
        for wire in WIRES:
            assert gets_in(wire, shows=old, trusts=new), wire
            assert not gets_in(wire, shows=old, trusts=old), wire
        side.trust(new)
        for wire in WIRES:
            assert gets_in(wire, shows=new, trusts=new), wire
            assert not gets_in(wire, shows=old, trusts=new), wire


async def test_clients_of_a_shard_server_use_what_is_there_when_they_connect(
    tmp_path: Path, old: Authority, new: Authority
) -> None:
    server, client = Side.of(tmp_path / "server", old), Side.of(tmp_path / "client", old)
    with serving(tmp_path, *flags(server.files)) as role:
        port = role.port()
        conf = conf_of(tmp_path, port, **tls_of(client.files))
        blocking, asking = CubeClient(conf), AsyncCubeClient(conf)
        assert (blocking.seek(DICT_NAME, KEYS).status == 0).all()
        assert ((await asking.seek(DICT_NAME, KEYS)).status == 0).all()
    for side in (server, client):
        side.show(new)
        side.trust(new)
    with serving(tmp_path, *flags(server.files), port=port), blocking:

        def is_answered() -> bool:
            try:
                return bool((blocking.seek(DICT_NAME, KEYS).status == 0).all())
            except ShardError:
                return False

        await asyncio.to_thread(wait_until, is_answered, 20, "the blocking client is back")
        async with asking:
            assert ((await asking.seek(DICT_NAME, KEYS)).status == 0).all()


def test_the_daemon_shows_and_uses_what_was_replaced(
    tmp_path: Path, old: Authority, new: Authority
) -> None:
    server, daemon = Side.of(tmp_path / "server", old), Side.of(tmp_path / "daemon", old)
    (tmp_path / "base.txt").touch()
    dict_flag = f"--dict_name={PASS_DICT_NAME}"

    def status(port: int, authority: Authority) -> dict[str, object]:
        files = client_of(authority, authority)
        context = ClientTls(files).context()
        with httpx.Client(verify=context, trust_env=False) as client:
            found: dict[str, object] = client.get(f"https://127.0.0.1:{port}/status").json()
            return found

    def server_problem(port: int, authority: Authority) -> object:
        replicas = status(port, authority)["replicas"]
        assert isinstance(replicas, dict)
        return replicas["cube0_0"]["error"] or ("" if replicas["cube0_0"]["reached"] else "unseen")

    server_flags = ["--port=0", "--grpc_port=-1", dict_flag, *flags(server.files)]
    with running("cube_server.main", server_flags, cwd=tmp_path) as role:
        server_port = role.port()
        conf = write_transfer_conf(tmp_path, server_port)
        daemon_flags = [f"--config={conf}", "--port=0", *flags(daemon.files)]
        with running("cube_transfer.main", daemon_flags, cwd=tmp_path) as transfer:
            port = transfer.port()
            wait_until(lambda: server_problem(port, old) == "", 20, "the server is seen")
            role.stop()
            wait_until(lambda: server_problem(port, old) != "", 20, "the server is missed")
            for side in (server, daemon):
                side.show(new)
                side.trust(new)
            server_flags[0] = f"--port={server_port}"
            with running("cube_server.main", server_flags, cwd=tmp_path):
                wait_until(lambda: server_problem(port, new) == "", 20, "the server is seen again")
            with pytest.raises(httpx.TransportError):
                status(port, old)


def write_transfer_conf(directory: Path, server_port: int) -> Path:
    lines = [
        "[default]",
        f"dict_name: {PASS_DICT_NAME}",
        "wget_port: 8098",
        f"donefile_address: {directory}",
        f"output_address: {directory / 'output'}",
        f"tmp_address: {directory / 'tmp'}",
        "shard_num: 1",
        "copy_num: 1",
        "[cube_agent]",
        f"cube0_0: 127.0.0.1:{server_port}:./x",
    ]
    path = directory / "transfer.conf"
    path.write_text("\n".join([*lines, ""]))
    return path


def test_grpc_takes_only_what_fits_together(tmp_path: Path, old: Authority, new: Authority) -> None:
    side = Side.of(tmp_path / "server", old)
    certificates = _Certificates(ServerTls(side.files))
    first = certificates.configuration
    assert certificates.changed() is None
    shutil.copy(new.issue().cert_file, side.files.cert_file)
    assert certificates.changed() is None
    assert certificates.configuration is first
    side.show(new)
    second = certificates.changed()
    assert second is certificates.configuration is not first
    assert certificates.changed() is None
    Path(side.files.ca_file).unlink()
    assert certificates.changed() is None
    side.trust(new)
    assert certificates.changed() is not None


def test_what_is_replaced_is_closed_when_nothing_is_under_way(
    tmp_path: Path, old: Authority, new: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    side = Side.of(tmp_path / "client", old)
    client_tls = ClientTls(side.files)
    made: list[ssl.SSLContext] = []

    def make() -> ssl.SSLContext:
        made.append(client_tls.context())
        return made[-1]

    renewed = Renewed(make, client_tls)
    assert renewed.get() is made[0] is renewed.get()
    side.trust(new)
    assert renewed.get() is made[1] is renewed.get()
    assert renewed.all() == [made[1], made[0]]
    assert renewed.outlived() == []
    monkeypatch.setattr(tls, "OUTLIVED_S", -1.0)
    assert renewed.outlived() == [made[0]]
    assert (renewed.outlived(), renewed.all()) == ([], [made[1]])


def test_files_that_cannot_be_used_are_told_of_once(
    tmp_path: Path, old: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    side = Side.of(tmp_path / "client", old)
    client_tls = ClientTls(side.files)
    before = client_tls.context()
    for spoil in (
        lambda: Path(side.files.ca_file).write_text("no certificate"),
        lambda: Path(side.files.ca_file).unlink(),
    ):
        caplog.clear()
        spoil()
        assert [client_tls.context() for _ in range(5)] == [before] * 5
        (record,) = caplog.records
        assert side.files.ca_file in record.getMessage()
    side.trust(old)
    assert client_tls.context() is not before


def test_files_that_may_be_read_at_last_are_taken(
    tmp_path: Path, old: Authority, new: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = TlsFiles.load

    def load_as_user(files: TlsFiles, context: ssl.SSLContext) -> None:
        # Also where tests are run by root, who may read everything.
        if not Path(files.key_file).stat().st_mode & 0o400:
            raise ConfError(files.key_file, "", "Permission denied")
        load(files, context)

    monkeypatch.setattr(TlsFiles, "load", load_as_user)
    side = Side.of(tmp_path / "server", old)
    server_tls = ServerTls(side.files)
    before = server_tls.newest()
    side.show(new)
    Path(side.files.key_file).chmod(0)
    assert server_tls.newest() is before
    Path(side.files.key_file).chmod(0o600)
    assert server_tls.newest() is not before
