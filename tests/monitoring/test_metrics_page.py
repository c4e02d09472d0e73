"""What running roles expose after some traffic is what docs/reference/metrics.md says."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest

from ctr_serving.predictor import import_paddle
from tests.ctr.models import make_model, publish, requests_of, write_manifest
from tests.ctr.service import ctr_running, shards_running, write_conf
from tests.monitoring.documented import documented_of, exposed
from tests.transfer.passes import Patch
from tests.transfer.site import Site
from tests.waiting import wait_until

DEADLINE_S = 60.0


def metrics_of(url: str) -> str:
    return httpx.get(f"{url}/metrics", trust_env=False).raise_for_status().text


def value(text: str, sample: str) -> float:
    """Of the sample that is written so, labels in the order of the alphabet."""
    found = [line.rpartition(" ") for line in text.splitlines()]
    values = [float(number) for name, _, number in found if name == sample]
    assert len(values) == 1, f"{sample} is there {len(values)} times in\n{text}"
    return values[0]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A server to which the daemon has deployed a base and a patch."""
    site = Site(tmp_path_factory.mktemp("site"), 1, 1)
    try:
        site.start()
        site.trainer.announce(site.trainer.write("1"))
        with site.transfer(mode="base_delta"):
            wait_until(lambda: site.stage("1") == "done", DEADLINE_S, "pass 1 done")
            site.trainer.announce_patches(site.trainer.write_patch(Patch("1", "2", sets=[1])))
            wait_until(lambda: site.stage("1_2") == "done", DEADLINE_S, "patch 2 done")
            yield site
    finally:
        site.close()


def test_the_daemon(site: Site) -> None:
    text = metrics_of(site.url())
    assert exposed(text) == documented_of("cube-transfer")
    dict_name = site.status()["dict_name"]
    assert value(text, f'cube_transfer_wanted_version{{dict="{dict_name}",version="1_2"}}') == 1
    for kind in ("base", "patch"):
        labels = f'{{kind="{kind}",result="done"}}'
        assert value(text, f"cube_transfer_deployments_total{labels}") == 1
    announced_s = value(text, f'cube_transfer_served_pass_timestamp_seconds{{dict="{dict_name}"}}')
    done_s = value(text, 'cube_transfer_last_deployment_timestamp_seconds{result="done"}')
    assert 0 < announced_s < done_s < time.time() + 1
    assert value(text, 'cube_transfer_last_deployment_timestamp_seconds{result="failed"}') == 0
    assert value(text, 'cube_transfer_step_seconds_count{step="switch"}') == 2
    replica = f'{{dict="{dict_name}",replica="cube0_0",shard="0"}}'
    wait_until(
        lambda: value(metrics_of(site.url()), f"cube_transfer_replica_ready{replica}") == 1,
        DEADLINE_S,
        "the server said to be ready",
    )
    assert value(text, 'cube_transfer_disk_free_bytes{directory="output"}') > 0


def test_a_shard_server(site: Site) -> None:
    site.seek("cube0_0", [1, 1 << 40])
    text = metrics_of(f"http://127.0.0.1:{site.servers['cube0_0'].port()}")
    assert exposed(text) == documented_of("cube-server")
    dict_name = site.status()["dict_name"]
    for name in ("version", "wanted_version"):
        assert value(text, f'cube_server_{name}{{dict="{dict_name}",version="1_2"}}') == 1
    assert value(text, "cube_server_seek_missing_keys_total") == 1
    free = value(text, 'cube_server_disk_free_bytes{directory="data"}')
    assert 0 < free <= value(text, 'cube_server_disk_size_bytes{directory="data"}')


def test_a_predictor(tmp_path: Path) -> None:
    import_paddle()
    model = tmp_path / "1"
    make_model(model, 1)
    write_manifest(model, "1_1")
    ids, dense = requests_of(3, seed=1)
    ids[0, 5] = 1 << 40
    with shards_running(tmp_path, "1_1", seed=1) as shards:
        write_conf(tmp_path, shards.ports, extra="enable_batch_align: 1 cube_cache_mb: 1")
        publish(tmp_path / "model", model)
        with ctr_running(tmp_path) as ctr, ctr.client() as client:
            wait_until(lambda: ctr.get("/ready").status_code == 200, DEADLINE_S, "a model served")
            client.predict(ids, dense)
            with pytest.raises(Exception, match="ids"):
                client.predict(np.zeros((1, 3), np.int64), dense[:1])
            text = ctr.get("/metrics").text
    assert exposed(text) == documented_of("ctr-serving")
    labels = '{dict="ctr_embedding",engine="ctr_prediction",version="1_1"}'
    assert value(text, f"ctr_model{labels}") == 1
    assert value(text, 'ctr_model_problem{engine="ctr_prediction"}') == 0
    assert value(text, 'ctr_missing_keys_total{slot="5"}') == 1
    assert value(text, 'ctr_requests_total{outcome="ok"}') == 1
    assert value(text, 'ctr_stage_seconds_count{stage="queue"}') == 1
    assert value(text, "ctr_request_seconds_count") >= 1
