"""Shard servers are restarted one after another under requests, none of which fails; with tokens
and mutual TLS between all of them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cube_api import CubeClient
from tests.cluster.site import TIMEOUT_S, Site, states
from tests.security.certificates import Authority
from tests.server.tables import make_table
from tests.waiting import wait_until

KEYS = np.arange(1, 101, dtype=np.uint64)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, server_count=2)
    conf = {
        "name": "d",
        "donefile_address": "passes/donefile",
        "shards": 1,
        "replicas": 2,
        "timeout_ms": 20_000,
        "servers": [{"port": port, "grpc_port": -1} for port in site.server_ports],
        "transfer": {"port": site.transfer_port},
    }
    (tmp_path / "secret").mkdir()
    authority = Authority(tmp_path / "secret", "own")
    files = authority.issue(trusts=authority.ca_file)
    (tmp_path / "secret" / "read").write_text("token-to-read")
    (tmp_path / "secret" / "operate").write_text("token-to-operate")
    security = {
        "read_token_file": "secret/read",
        "operate_token_file": "secret/operate",
        "tls_cert_file": str(Path(files.cert_file).relative_to(tmp_path)),
        "tls_key_file": files.key_file,
        "tls_ca_file": str(Path(files.ca_file).relative_to(tmp_path)),
    }
    site.write({"dicts": [conf], "security": security})
    for number in range(2):
        data_dir = tmp_path / "data" / f"cube_server_{number}"
        make_table(data_dir / "10_10" / "d_part0.table", 10, dict_name="d")
        (data_dir / "VERSION").write_text("10_10")
    yield site
    site.clean()


class Load:
    """Seeks without a pause; what failed is kept."""

    def __init__(self, cube_conf: Path) -> None:
        self.answered = 0
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._cube_conf = cube_conf
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with CubeClient(self._cube_conf) as cube:
            while not self._stopping.is_set():
                try:
                    _, status = cube.seek("d", KEYS)
                    assert (status == 0).all()
                    self.answered += 1
                except Exception as error:
                    self.failures.append(str(error))

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        self._thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            self._thread.join()


def test_a_restart_of_all_servers_fails_no_request(site: Site) -> None:
    started = site.cube("up", "--detach")
    assert started.returncode == 0, started.stderr
    told = states(site.cube("status").stdout)
    assert [told["cube_server_0"], told["cube_server_1"]] == ["ok", "ok"]
    assert "no such file yet" in told["cube_transfer_0"]
    before = [site.identity("cube_server_0"), site.identity("cube_server_1")]
    with Load(site.run_dir / "conf" / "cube.conf").running() as load:
        wait_until(lambda: load.answered > 100, TIMEOUT_S, "answers")
        restarted = site.cube("restart", "cube_server")
        assert restarted.returncode == 0, restarted.stderr
        reached = load.answered + 100
        wait_until(lambda: load.answered > reached, TIMEOUT_S, "answers after the restart")
    assert load.failures == []
    assert before != [site.identity("cube_server_0"), site.identity("cube_server_1")]
