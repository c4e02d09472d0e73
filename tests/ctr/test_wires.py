"""Predictions over every wire, from real shards and a real model."""

from __future__ import annotations

import os
import re
import signal
import socket
import struct
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ctr_serving.client import PROTOCOLS, CtrClient, PredictionError, RpcError
from ctr_serving.client._transports import SERVICE
from cube_core._native import encode_ctr_request, parse_ctr_response
from cube_core.endpoint import Endpoint
from cube_core.wire.prpc_blocking import BlockingConnection
from cube_proto import ctr_prediction_pb2
from tests.ctr.models import (
    EMBEDDING_DIM,
    SLOTS,
    direct_probabilities,
    embedding,
    publish,
    requests_of,
)
from tests.ctr.service import (
    SHARD_NUM,
    Ctr,
    Shards,
    ctr_running,
    shards_running,
    write_conf,
    write_tables,
)
from tests.waiting import wait_until

TIMEOUT_S = 10.0


def raw_call(ctr: Ctr, payload: bytes, method: str = "inference") -> bytes:
    connection = BlockingConnection(Endpoint.parse(ctr.address))
    try:
        frame = connection.call(SERVICE, method, payload, timeout_s=TIMEOUT_S)
        return bytes(frame.payload)
    finally:
        connection.close()


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("rows_num", [1, 2, 50, 1500])
def test_every_wire_answers_what_paddle_computes(
    ctr: Ctr, models: dict[int, Path], protocol: str, rows_num: int
) -> None:
    ids, dense = requests_of(rows_num, missing=True)
    expected = direct_probabilities(models[1], embedding(ids, seed=1), dense)
    with ctr.client(protocol) as client:
        np.testing.assert_allclose(client.predict(ids, dense), expected, atol=1e-6, rtol=0)


def test_json_over_http_as_brpc_maps_it(ctr: Ctr, models: dict[int, Path]) -> None:
    ids, dense = requests_of(2)
    body = {
        "instances": [
            {"sparse_ids": row_ids.tolist(), "dense_ids": row_dense.tolist()}
            for row_ids, row_dense in zip(ids, dense, strict=True)
        ]
    }
    answer = httpx.post(f"http://{ctr.address}/CTRPredictionService/inference", json=body)
    assert answer.status_code == 200
    reply = answer.json()
    assert reply["err_code"] == 0
    found = [[each["prob0"], each["prob1"]] for each in reply["predictions"]]
    expected = direct_probabilities(models[1], embedding(ids, seed=1), dense)
    np.testing.assert_allclose(np.array(found), expected, atol=1e-6, rtol=0)


def test_missing_keys_get_zeros_and_are_counted_by_slot(ctr: Ctr) -> None:
    ids, dense = requests_of(3)
    ids[0, 4] = ids[2, 4] = ids[1, 7] = 10**6
    before = np.array(ctr.status()["missing_keys_by_slot"] or [0] * SLOTS)
    with ctr.client() as client:
        client.predict(ids, dense)
    counted = np.array(ctr.status()["missing_keys_by_slot"]) - before
    assert counted.nonzero()[0].tolist() == [4, 7]
    assert counted[[4, 7]].tolist() == [2, 1]
    metrics = ctr.get("/metrics").text
    assert re.search(r'^ctr_missing_keys_total\{slot="4"\} [1-9]', metrics, re.MULTILINE)
    assert 'ctr_model{dict="ctr_embedding",engine="ctr_prediction",version="1_1"} 1.0' in metrics
    bucket = r'^ctr_stage_seconds_bucket\{le="(.*)",stage="seek"\} (.*)$'
    counts = dict(re.findall(bucket, metrics, re.MULTILINE))
    assert float(counts["+Inf"]) >= float(counts["0.5"]) > 0
    assert f'ctr_stage_seconds_count{{stage="seek"}} {counts["+Inf"]}' in metrics
    assert re.search(r'^ctr_stage_seconds_sum\{stage="infer"\} [0-9.e-]+$', metrics, re.MULTILINE)


def test_several_ids_a_slot_are_refused_by_the_op_for_one(ctr: Ctr) -> None:
    request = ctr_prediction_pb2.Request()
    counts = [2, 0, *[1] * (SLOTS - 2)]
    request.instances.add(sparse_ids=[1] * SLOTS, dense_ids=[0.5] * 13, ids_per_slot=counts)
    probabilities, err_code, err_msg = parse_ctr_response(
        raw_call(ctr, request.SerializeToString())
    )
    assert (len(probabilities), err_code) == (0, -1)
    assert "has ids_per_slot: only general ops take several ids a slot" in err_msg


def test_a_request_without_instances_has_no_predictions(ctr: Ctr) -> None:
    probabilities, err_code, err_msg = parse_ctr_response(raw_call(ctr, b""))
    assert (len(probabilities), err_code, err_msg) == (0, 0, "")


def test_nan_in_a_row_does_not_touch_other_rows(ctr: Ctr) -> None:
    ids, dense = requests_of(3)
    with ctr.client() as client:
        clean = client.predict(ids, dense)
        dense[1, 0] = np.nan
        probabilities = client.predict(ids, dense)
    np.testing.assert_allclose(probabilities[[0, 2]], clean[[0, 2]], atol=1e-6, rtol=0)


def test_debug_tells_version_and_times(ctr: Ctr) -> None:
    ids, dense = requests_of(2)
    payload = encode_ctr_request(ids, dense)
    probabilities, err_code, err_msg = parse_ctr_response(raw_call(ctr, payload, "debug"))
    expected, _, _ = parse_ctr_response(raw_call(ctr, payload))
    assert err_code == 0
    np.testing.assert_allclose(probabilities, expected, atol=1e-6, rtol=0)
    stages = " ".join(rf"{stage}_us=\d+" for stage in ("parse", "queue", "seek", "infer", "total"))
    assert re.fullmatch(rf"version=1_1 rows=2 {stages} row_us=\d+,\d+", err_msg)


def test_debug_names_missing_keys(ctr: Ctr) -> None:
    ids, dense = requests_of(150)
    ids[0, 4] = 10**6
    ids[2, 25] = -5
    before = ctr.status()["missing_keys"]
    _, _, err_msg = parse_ctr_response(raw_call(ctr, encode_ctr_request(ids, dense), "debug"))
    assert err_msg.endswith(" missing=0:4=1000000,2:25=-5")
    rows = re.search(r" row_us=([0-9,]+),… ", err_msg)
    assert rows is not None
    assert len(rows[1].split(",")) == 100
    # Measuring asks no shard again.
    assert ctr.status()["missing_keys"] == before + 2
    ids[:] = 10**6
    _, _, err_msg = parse_ctr_response(raw_call(ctr, encode_ctr_request(ids, dense), "debug"))
    assert err_msg.count("=1000000,") == 100
    assert err_msg.endswith("=1000000,…")


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("slots", "dense_dim", "message"),
    [
        (25, 13, "instance 0: 25 sparse_ids, expected 26"),
        (26, 12, "instance 0: 12 dense_ids, expected 13"),
        (27, 13, "instance 0: 27 sparse_ids, expected 26"),
    ],
)
def test_another_number_of_ids_is_told_with_err_code(
    ctr: Ctr, protocol: str, slots: int, dense_dim: int, message: str
) -> None:
    with ctr.client(protocol) as client:
        with pytest.raises(PredictionError, match=message) as raised:
            client.predict(np.zeros((2, slots), np.int64), np.zeros((2, dense_dim), np.float32))
        assert raised.value.err_code == -1
        assert len(client.predict(*requests_of(1))) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_bytes_that_do_not_parse_are_error_1003(ctr: Ctr, protocol: str) -> None:
    with ctr.client(protocol) as client:
        (variant,) = client._routes.variants
        transport = client._transport(next(variant.servers(0.0)), variant)
        with pytest.raises(RpcError) as raised:
            transport.call(b"\x0a\xff\xff\xff\xff\x0f12", TIMEOUT_S)
        assert raised.value.code == 1003
        assert len(client.predict(*requests_of(1))) == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_too_many_rows_name_the_limit(ctr: Ctr, protocol: str) -> None:
    with ctr.client(protocol) as client, pytest.raises(RpcError, match="2000") as raised:
        client.predict(*requests_of(2001))
    assert raised.value.code == 2004


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(payload=st.binary(max_size=300) | st.binary(max_size=60).map(lambda b: b"\x0a\x3c" + b))
def test_any_bytes_are_answered(ctr: Ctr, payload: bytes) -> None:
    if parses(payload):
        _, err_code, err_msg = parse_ctr_response(raw_call(ctr, payload))
        assert err_code == (-1 if err_msg else 0)
    else:
        with pytest.raises(RpcError) as raised:
            raw_call(ctr, payload)
        assert raised.value.code == 1003


@pytest.mark.parametrize(
    "head",
    [b"PRPC" + struct.pack(">II", (64 << 20) + 1, 10), b"PRPC" + struct.pack(">II", 10, 11)],
    ids=["oversized", "meta over body"],
)
def test_a_frame_that_cannot_be_ends_its_connection_only(ctr: Ctr, head: bytes) -> None:
    endpoint = Endpoint.parse(ctr.address)
    with ctr.client() as client, socket.create_connection(endpoint, TIMEOUT_S) as bad:
        client.predict(*requests_of(1))
        bad.sendall(head)
        assert bad.recv(100) == b""
        assert len(client.predict(*requests_of(1))) == 1


def test_grpc_health_and_operators_routes(ctr: Ctr) -> None:
    assert ctr.get("/health").text == "OK"
    status = ctr.status()
    assert status["model"]["version"] == "1_1"
    assert status["problem"] == ""
    assert status["requests"]["ok"] > 0
    with grpc.insecure_channel(ctr.grpc_address) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def parses(payload: bytes) -> bool:
    try:
        ctr_prediction_pb2.Request.FromString(payload)
    except DecodeError:
        return False
    return True


def failure_of(client: CtrClient, *request: Any) -> str:
    try:
        client.predict(*request)
    except PredictionError as error:
        return str(error)
    return ""


def test_a_shard_that_is_down_is_an_error_and_never_zeros(
    models: dict[int, Path], tmp_path: Path
) -> None:
    ids, dense = requests_of(4)
    expected = direct_probabilities(models[1], embedding(ids, seed=1), dense)
    with shards_running(tmp_path, "1_1", seed=1) as shards:
        write_conf(tmp_path, shards.ports, timeout_ms=500)
        publish(tmp_path / "model", models[1])
        with ctr_running(tmp_path) as ctr, ctr.client() as client:
            wait_until(ctr.model_version, what="model 1 served")
            shards.roles[1].stop()
            message = failure_of(client, ids, dense)
            assert "shard 1" in message
            assert f"127.0.0.1:{shards.ports[1]}" in message
            even = ids - ids % 2
            assert len(client.predict(even, dense)) == 4
            shards.restart(1)
            found = wait_until(lambda: client.predict(ids, dense).tolist(), what="shard 1 back")
            np.testing.assert_allclose(np.array(found), expected, atol=1e-6, rtol=0)
            os.kill(shards.roles[0].process.pid, signal.SIGSTOP)
            try:
                assert "shard 0" in failure_of(client, ids, dense)
            finally:
                os.kill(shards.roles[0].process.pid, signal.SIGCONT)
            wait_until(lambda: client.predict(ids, dense).tolist(), what="shard 0 back")
            assert ctr.status()["requests"]["failed"] >= 2


def test_the_configured_default_stands_for_missing_keys(
    shards: Shards, models: dict[int, Path], tmp_path: Path
) -> None:
    write_conf(tmp_path, shards.ports, extra="default_embedding_value: 0.5")
    publish(tmp_path / "model", models[1])
    ids, dense = requests_of(3, missing=True)
    rows = embedding(ids, seed=1)
    rows[ids < 0] = 0.5
    with ctr_running(tmp_path) as ctr, ctr.client() as client:
        wait_until(ctr.model_version, what="model 1 served")
        np.testing.assert_allclose(
            client.predict(ids, dense),
            direct_probabilities(models[1], rows, dense),
            atol=1e-6,
            rtol=0,
        )


def test_values_of_another_width_are_an_error(models: dict[int, Path], tmp_path: Path) -> None:
    with shards_running(tmp_path, None) as shards:
        # The ids that the model's probe asks for are missing, so that only a request can see it.
        write_tables(shards.data_dirs, "1_1", seed=1, dim=EMBEDDING_DIM - 1, first_id=SHARD_NUM)
        shards.serve_version("1_1")
        write_conf(tmp_path, shards.ports)
        publish(tmp_path / "model", models[1])
        with ctr_running(tmp_path) as ctr, ctr.client() as client:
            wait_until(ctr.model_version, what="model 1 served")
            message = failure_of(client, np.full((2, SLOTS), 77), requests_of(2)[1])
            assert "value of key 77 (instance 0, slot 0) is not 10 floats" in message
