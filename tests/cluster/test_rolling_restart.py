"""Shard servers are restarted one after another under requests, none of which fails; with tokens
and mutual TLS between all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.load import Load
from tests.cluster.site import Site, states
from tests.security.certificates import Authority
from tests.server.tables import make_table


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


def test_a_restart_of_all_servers_fails_no_request(site: Site) -> None:
    started = site.cube("up", "--detach")
    assert started.returncode == 0, started.stderr
    told = states(site.cube("status").stdout)
    assert [told["cube_server_0"], told["cube_server_1"]] == ["ok", "ok"]
    assert "no such file yet" in told["cube_transfer_0"]
    before = [site.identity("cube_server_0"), site.identity("cube_server_1")]
    with Load(site.run_dir / "conf" / "cube.conf").running() as load:
        load.wait_for_more()
        restarted = site.cube("restart", "cube_server")
        assert restarted.returncode == 0, restarted.stderr
        load.wait_for_more()
    assert load.failures == []
    assert before != [site.identity("cube_server_0"), site.identity("cube_server_1")]
