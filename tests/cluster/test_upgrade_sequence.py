"""The commands of an upgrade, as docs/operating/passes.md has them, fail no request: neither seeks
nor predictions."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ctr_serving.client import CtrClient
from cube_api import CubeClient
from tests.cluster.site import TIMEOUT_S, Site, free_ports, states
from tests.cluster.test_rolling_upgrade import KEYS, ROWS, Load, write_pass
from tests.ctr.models import DICT_NAME, direct_probabilities, embedding, requests_of
from tests.docs.command_lines import lines_of
from tests.docs.pages import page, section
from tests.waiting import wait_until


def commands() -> list[list[str]]:
    """The calls of `cube restart` for all of a kind, without the name of the program."""
    text = section(page("operating/passes.md"), "Upgrade")
    calls = [shlex.split(line)[1:] for line in lines_of(text)]
    return [call for call in calls if call[:1] == ["restart"] and len(call) == 2]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """One shard and two of each server; a pass is served."""
    write_pass(tmp_path / "passes")
    site = Site(tmp_path, server_count=2)
    ports = free_ports(4)
    conf = {
        "name": DICT_NAME,
        "donefile_address": "passes/donefile",
        "shards": 1,
        "replicas": 2,
        "timeout_ms": 20_000,
        "servers": [{"port": port, "grpc_port": -1} for port in site.server_ports],
        "transfer": {"port": site.transfer_port},
    }
    ctr = {
        "servers": [{"port": port, "grpc_port": grpc} for port, grpc in (ports[:2], ports[2:])],
        "engines": [{"dict_name": DICT_NAME}],
    }
    site.write({"dicts": [conf], "ctr": ctr})
    try:
        started = site.cube("up", "--detach")
        assert started.returncode == 0, started.stderr
        wait_until(lambda: site.cube("status").returncode == 0, TIMEOUT_S, "all roles at work")
        yield site
    finally:
        site.clean()


def test_every_kind_is_restarted() -> None:
    kinds = [kind for _, kind in commands()]
    assert kinds == ["cube_server", "ctr_serving", "cube_transfer"]


@pytest.mark.timeout(400)
def test_an_upgrade_fails_no_request(site: Site) -> None:
    request = requests_of(ROWS)
    wanted = embedding(KEYS.view(np.int64), 1)
    probabilities = direct_probabilities(
        site.folder / "passes" / "1" / "dense", embedding(request[0], 1), request[1]
    )
    conf = site.run_dir / "conf"
    before = {name: site.identity(name) for name in site.record().roles}
    assert len(before) == 5
    with (
        CubeClient(conf / "cube.conf") as cube,
        CtrClient.from_conf(conf / "predictors.prototxt") as client,
    ):

        def seek() -> None:
            rows, status = cube.seek(DICT_NAME, KEYS)
            assert (status == 0).all()
            np.testing.assert_array_equal(rows, wanted)

        def predict() -> None:
            np.testing.assert_allclose(client.predict(*request), probabilities, atol=1e-5)

        with Load(seek, predict).running() as load:
            load.wait_for_more()
            for command in commands():
                done = site.cube(*command, "--timeout_s=120")
                assert done.returncode == 0, done.stderr
                load.wait_for_more()
    assert load.failures == []
    after = {name: site.identity(name) for name in site.record().roles}
    assert all(after[name] != identity for name, identity in before.items())
    assert {role.restart_count for role in site.record().roles.values()} == {0}
    wait_until(
        lambda: set(states(site.cube("status").stdout).values()) == {"ok"}, TIMEOUT_S, "all well"
    )
