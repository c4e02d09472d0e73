"""Lines about requests: of those that fail or are slow, named by their caller, and not too many."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from ctr_serving.predictor import import_paddle
from cube_api import CubeClient
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.endpoint import Endpoint
from cube_core.errors import CubeError, PredictionError, RpcError, VersionNotLoadedError
from cube_core.request_log import LINES_AT_ONCE, LINES_PER_S, RequestLog
from cube_core.wire.prpc_blocking import BlockingConnection
from cube_proto import dict_pb2
from tests.ctr.models import make_model, publish, requests_of, write_manifest
from tests.ctr.service import ctr_running, shards_running, write_conf, write_tables
from tests.logs.lines import json_lines
from tests.processes import Role, running
from tests.server.tables import DICT_NAME, place_table
from tests.waiting import wait_until

DEADLINE_S = 60.0
MISSING_KEY = 987654321987654321


def test_so_many_lines_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    now_s = 100.0
    requests = RequestLog(lambda: now_s)
    with caplog.at_level(logging.INFO, "cube.requests"):
        for _ in range(LINES_AT_ONCE + 7):
            requests.failed("S.m", "no such thing", peer="1.2.3.4:5", request_id="9")
        assert len(caplog.records) == LINES_AT_ONCE
        now_s += 1 / LINES_PER_S
        requests.slow("S.m", 2.5, request_id="10")
        requests.slow("S.m", 2.5, request_id="11")
    first, *_, last = caplog.records
    assert first.getMessage() == "S.m failed: no such thing from 1.2.3.4:5"
    assert vars(first)["fields"] == {"method": "S.m", "peer": "1.2.3.4:5", "request_id": "9"}
    assert last.getMessage() == "S.m took 2.500 s; 7 lines before it were left out"
    assert vars(last)["fields"]["seconds"] == 2.5


def test_a_peer_makes_no_lines_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    RequestLog().failed("S.m", "a\nERROR cube.audit: b\r\n" + "x" * 10_000)
    (record,) = caplog.records
    assert "\n" not in record.getMessage()
    assert len(record.getMessage()) < 1000


def test_commands_may_take_their_time(caplog: pytest.LogCaptureFixture) -> None:
    RequestLog().slow("ControlService.cmd", 100.0)
    assert not caplog.records


def request_lines(role: Role, name: str) -> dict[str, dict[str, Any]]:
    """By request id."""
    lines = json_lines(role, name)
    return {line["request_id"]: line for line in lines if line["logger"] == "cube.requests"}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_shard_server(tmp_path: Path, workers: int) -> None:
    place_table(tmp_path / "data", 10)
    (tmp_path / "data" / "VERSION").write_text("10_10")
    flags = ["--port=0", "--grpc_port=0", "--data_dir=data", f"--dict_name={DICT_NAME}"]
    flags += [f"--workers={workers}", "--log_format=json"]
    with running("cube_server.main", flags, cwd=tmp_path) as role:
        endpoint = Endpoint("127.0.0.1", role.port())
        pinned = dict_pb2.DictRequest(keys=[MISSING_KEY], version="9_9").SerializeToString()
        good = dict_pb2.DictRequest(keys=[MISSING_KEY]).SerializeToString()
        connection = BlockingConnection(endpoint)
        connection.call("DictService", "seek", good, timeout_s=DEADLINE_S, log_id=70)
        for method, log_id in (("seek", 71), ("nonsense", 72)):
            with pytest.raises(RpcError):
                connection.call("DictService", method, pinned, timeout_s=DEADLINE_S, log_id=log_id)
        connection.close()
        with httpx.Client(base_url=f"http://{endpoint}", trust_env=False) as http:
            answer = http.post("/DictService/seek", json={"keys": [1]}, headers=named("good"))
            assert answer.headers["x-request-id"] == "good"
            failed = http.post("/DictService/seek", content=b"{", headers=named("http-1"))
            assert failed.headers["x-request-id"] == "http-1"
            renamed = http.get("/health", headers=named("no name; at=all"))
            assert re.fullmatch("[0-9a-f]{16}", renamed.headers["x-request-id"])
        with grpc.insecure_channel(f"127.0.0.1:{role.port('grpc_port')}") as channel:
            seek = channel.unary_unary("/rec.mcube.DictService/seek", None, None)
            with pytest.raises(grpc.RpcError):
                seek(pinned, metadata=(("x-request-id", "grpc-1"),), timeout=DEADLINE_S)
        expected = {"71", "72", "http-1", "grpc-1"}
        wait_until(
            lambda: set(request_lines(role, "cube-server")) >= expected,
            DEADLINE_S,
            "a line for each request that failed",
        )
        lines = request_lines(role, "cube-server")
        assert set(lines) == expected
        assert lines["71"]["method"] == "DictService.seek"
        assert "version '9_9' is not loaded" in lines["71"]["message"]
        assert lines["72"]["peer"].startswith("127.0.0.1:")
        assert lines["grpc-1"]["method"] == "DictService.seek"
        role.stop()
        json_lines(role, "cube-server")
        assert str(MISSING_KEY) not in role.log()


def test_a_seek_of_the_client_library(tmp_path: Path) -> None:
    with shards_running(tmp_path, "1_1", seed=1) as shards:
        write_conf(tmp_path, shards.ports)
        with CubeClient(read_cube_conf(tmp_path / "cube.conf")) as client:
            keys = np.arange(10, dtype=np.uint64)
            client.seek("ctr_embedding", keys, log_id=80)
            with pytest.raises(VersionNotLoadedError):
                client.seek("ctr_embedding", keys, version="9_9", log_id=81)
        for role in shards.roles:
            wait_until(lambda role=role: "request_id=81" in role.log(), DEADLINE_S, "its line")  # type: ignore[misc]
            assert "request_id=80" not in role.log()


def test_a_predictor(tmp_path: Path) -> None:
    import_paddle()
    model = tmp_path / "1"
    make_model(model, 1)
    write_manifest(model, "1_1")
    ids, dense = requests_of(3, seed=1)
    with shards_running(tmp_path, "1_1", seed=1) as shards:
        write_conf(tmp_path, shards.ports, timeout_ms=500)
        publish(tmp_path / "model", model)
        with ctr_running(tmp_path, "--log_format=json", "--slow_request_ms=1") as ctr:
            wait_until(lambda: ctr.get("/ready").status_code == 200, DEADLINE_S, "a model served")
            with ctr.client() as client:
                many = requests_of(5000, seed=1)
                client.predict(*many, log_id=90)
                shards.roles[0].stop()
                for protocol, log_id in (("baidu_std", 91), ("http", 92), ("grpc", 93)):
                    with ctr.client(protocol) as other, pytest.raises(CubeError):
                        other.predict(ids, dense, log_id=log_id)
            answer = httpx.post(
                f"http://{ctr.address}/v1/ctr/predict", json={"instances": 5}, headers=named("v1")
            )
            assert answer.status_code == 422
            lines = request_lines(ctr.role, "ctr-serving")
            # Where it is slow as well as failed, the later line counts.
            assert {"90", "91", "92", "93", "v1"} <= set(lines)
            assert lines["90"]["seconds"] > 0.001
            messages = [line["message"] for line in json_lines(ctr.role, "ctr-serving")]
            shard = f"127.0.0.1:{shards.ports[0]}"
            assert sum("failed" in text and shard in text for text in messages) >= 3
            ctr.role.stop()
            json_lines(ctr.role, "ctr-serving")


def test_the_shards_of_a_predictor(tmp_path: Path) -> None:
    import_paddle()
    model = tmp_path / "1"
    make_model(model, 1)
    write_manifest(model, "1_1")
    with shards_running(tmp_path, "1_1", seed=1, flags=["--keep_replaced_s=0"]) as shards:
        write_conf(tmp_path, shards.ports)
        publish(tmp_path / "model", model)
        with ctr_running(tmp_path) as ctr, ctr.client() as client:
            wait_until(lambda: ctr.get("/ready").status_code == 200, DEADLINE_S, "a model served")
            client.predict(*requests_of(3), log_id=95)
            for version in ("2_2", "3_3"):
                write_tables(shards.data_dirs, version, seed=1)
                shards.serve_version(version)
            with pytest.raises(PredictionError, match="1_1"):
                client.predict(*requests_of(3), log_id=96)
            for role in shards.roles:
                wait_until(lambda role=role: "request_id=96" in role.log(), DEADLINE_S, "its line")  # type: ignore[misc]
                assert "request_id=95" not in role.log()


def named(request_id: str) -> dict[str, str]:
    return {"x-request-id": request_id, "content-type": "application/json"}
