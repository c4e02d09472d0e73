"""`POST /v1/ctr/predict`: its answers and its errors."""

from __future__ import annotations

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI

from ctr_serving.criteo import read_rows
from ctr_serving.http_predict import JSON_BYTES_MAX, PATH, add_predict_route
from ctr_serving.http_schema import (
    Failure,
    InvalidRequest,
    PredictRequest,
    Shape,
)
from cube_core.errors import RpcTimeoutError
from cube_core.wire.http import service_router
from cube_core.wire.limits import WireLimits
from cube_core.wire.service import RpcContext, Service
from cube_proto import ctr_prediction_pb2
from tests.ctr.http_calls import changed, instances_of, post, probabilities_of
from tests.ctr.local import write_shard_tables
from tests.ctr.models import (
    DENSE_DIM,
    DICT_NAME,
    EMBEDDING_DIM,
    ROW_COUNT,
    SLOTS,
    direct_probabilities,
    embedding,
    publish,
    requests_of,
)
from tests.ctr.networks import make_network, run_directly, write_network_manifest
from tests.ctr.service import Ctr, Shards, ctr_running, shards_running, write_conf
from tests.waiting import wait_until


@pytest.mark.parametrize("rows_num", [1, 50, 1500])
def test_instances_are_answered_as_paddle_computes(
    ctr: Ctr, models: dict[int, Path], rows_num: int
) -> None:
    ids, dense = requests_of(rows_num, missing=True)
    answer = post(ctr, instances_of(ids, dense))
    expected = direct_probabilities(models[1], embedding(ids, seed=1), dense)
    np.testing.assert_allclose(probabilities_of(answer), expected, atol=1e-6, rtol=0)


def test_raw_criteo_fields_are_hashed_as_those_of_a_file(ctr: Ctr, tmp_path: Path) -> None:
    integers: list[list[float | None]] = [[1, None, 3.5, *range(10)], [-2, 0, None, *range(10)]]
    categories: list[list[str | None]] = [
        [f"{slot:08x}" for slot in range(26)],
        ["", None, *["68fd1e64"] * 24],
    ]
    path = tmp_path / "rows.tsv"
    path.write_text(
        "".join(
            "\t".join("" if field is None else str(field) for field in (*numbers, *texts)) + "\n"
            for numbers, texts in zip(integers, categories, strict=True)
        )
    )
    rows = read_rows(path)
    body = {
        "criteo_rows": [
            {"integers": numbers, "categories": texts}
            for numbers, texts in zip(integers, categories, strict=True)
        ]
    }
    with ctr.client() as client:
        expected = client.predict(rows.sparse_ids, rows.dense)
    np.testing.assert_allclose(probabilities_of(post(ctr, body)), expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("form", ["instances", "criteo_rows"])
def test_no_instances_have_no_predictions(ctr: Ctr, form: str) -> None:
    assert post(ctr, {form: []}).json() == {"predictions": []}


def test_debug_tells_version_and_times(ctr: Ctr) -> None:
    reply = post(ctr, instances_of(*requests_of(2)), "?debug=true").json()
    assert "version=1_1" in reply["message"]
    assert len(reply["predictions"]) == 2


@pytest.mark.parametrize(
    ("body", "loc", "message"),
    [
        (b"{", [], "Invalid JSON"),
        (b"\xff", [], "Invalid JSON"),
        (b"[" * 100_000, [], "recursion limit"),
        ([], [], "an object"),
        ({}, [], "either instances or criteo_rows"),
        ({"instances": [], "criteo_rows": []}, [], "either instances or criteo_rows"),
        ({"instance": []}, ["instance"], "Extra inputs"),
        (changed(("instances", 1, "sparse_ids", 3), "4"), ["sparse_ids", 3], "valid integer"),
        (changed(("instances", 1, "sparse_ids", 3), 2**63), ["sparse_ids", 3], "less than"),
        (changed(("instances", 1, "sparse_ids"), [1] * 25), ["sparse_ids"], "has 25 values"),
        (changed(("instances", 1, "sparse_ids"), []), ["sparse_ids"], "has 0 values"),
        (changed(("instances", 1, "ids_per_slot"), [2]), ["ids_per_slot"], "counts 2 ids"),
        (changed(("instances", 1, "ids_per_slot"), [2, 0] + [1] * 24), ["ids_per_slot"], "one id"),
        (changed(("instances", 1, "ids_per_slot"), [-1]), ["ids_per_slot", 0], "greater"),
        (changed(("instances", 1, "dense_ids"), [1.0] * 14), ["dense_ids"], "has 14 values"),
        (changed(("instances", 1, "dense_ids", 12), None), ["dense_ids", 12], "valid number"),
        (changed(("instances", 1, "dense_ids", 12), float("nan")), ["dense_ids", 12], "finite"),
        (changed(("instances", 1, "dense_ids", 12), 1e39), ["dense_ids", 12], "less than"),
        (changed(("instances", 1, "dense_id"), []), ["dense_id"], "Extra inputs"),
    ],
)
def test_a_wrong_field_is_named(ctr: Ctr, body: Any, loc: list[Any], message: str) -> None:
    answer = post(ctr, body)
    assert answer.status_code == 422, answer.text
    (problem,) = InvalidRequest.model_validate_json(answer.content).detail
    inside: list[str | int] = ["instances", 1] if "instances" in problem.loc else []
    assert problem.loc == ["body", *inside, *loc]
    assert message in problem.msg


def test_a_wrong_field_of_a_criteo_row_is_named(ctr: Ctr) -> None:
    row: dict[str, list[Any]] = {"integers": [1] * 13, "categories": ["a"] * 25 + ["é" * 600]}
    cases: list[tuple[dict[str, list[Any]], list[str | int]]] = [
        ({**row, "integers": [1] * 12}, ["integers"]),
        ({**row, "categories": ["a"] * 25 + [1]}, ["categories", 25]),
        (row, ["categories", 25]),
    ]
    for body, loc in cases:
        answer = post(ctr, {"criteo_rows": [body]})
        assert answer.status_code == 422
        (problem,) = InvalidRequest.model_validate_json(answer.content).detail
        assert problem.loc == ["body", "criteo_rows", 0, *loc]


def test_what_is_over_a_limit_says_which(ctr: Ctr) -> None:
    answer = post(ctr, instances_of(*requests_of(2001)))
    assert answer.status_code == 413
    assert "2000" in Failure.model_validate_json(answer.content).detail
    answer = post(ctr, b" " * (JSON_BYTES_MAX + 1))
    assert answer.status_code == 413
    assert str(JSON_BYTES_MAX) in Failure.model_validate_json(answer.content).detail


def test_an_answer_that_json_cannot_hold_is_an_error(ctr: Ctr) -> None:
    answer = post(ctr, changed(("instances", 1, "dense_ids"), [3e38, -3e38] * 6 + [3e38]))
    assert answer.status_code == 503
    assert "instance 1" in Failure.model_validate_json(answer.content).detail


def test_without_a_model(shards: Shards, tmp_path: Path) -> None:
    write_conf(tmp_path, shards.ports)
    with ctr_running(tmp_path) as ctr:
        answer = post(ctr, instances_of(*requests_of(1)))
        assert answer.status_code == 503
        assert "no model is loaded yet" in Failure.model_validate_json(answer.content).detail
        assert post(ctr, {}).status_code == 422


def test_several_ids_a_slot_for_a_general_op(tmp_path: Path) -> None:
    """A model over two slots, one of which has any number of ids."""
    keys = np.arange(ROW_COUNT, dtype=np.uint64)
    rows = embedding(keys.view(np.int64), 1)
    write_shard_tables(tmp_path / "tables", "1_1", keys, rows, dict_name=DICT_NAME)
    model = tmp_path / "vectors"
    make_network(model, 5, {"vectors": 2 * EMBEDDING_DIM, "dense": 3})
    lookups = [{"slot": slot, "dict": DICT_NAME, "input": "vectors"} for slot in range(2)]
    write_network_manifest(
        model,
        "1_1",
        slots=2,
        dense_dim=3,
        dense_input="dense",
        dicts={DICT_NAME: {"dim": EMBEDDING_DIM}},
        lookups=lookups,
    )
    write_conf(tmp_path, [8001])
    toolkit = tmp_path / "model_toolkit.prototxt"
    text = toolkit.read_text().replace("REMOTE", "LOCAL")
    toolkit.write_text(text.replace(f'"{DICT_NAME}"', f'"./tables/{DICT_NAME}"'))
    publish(tmp_path / "model", model)
    (tmp_path / "workflow.prototxt").write_text(
        'workflows { name: "w" workflow_type: "Sequence" nodes { name: "op" type: "SlotsOp" } }'
    )
    body: dict[str, list[dict[str, Any]]] = {
        "instances": [
            {"sparse_ids": [5, 7, 9], "ids_per_slot": [2, 1], "dense_ids": [0.5, 1, 2]},
            {"sparse_ids": [8], "ids_per_slot": [0, 1], "dense_ids": [0.5, 1, 2]},
            {"sparse_ids": [3, 4], "dense_ids": [0.5, 1, 2]},
        ]
    }
    pooled = np.stack(
        [
            np.concatenate([rows[5] + rows[7], rows[9]]),
            np.concatenate([np.zeros(EMBEDDING_DIM, np.float32), rows[8]]),
            np.concatenate([rows[3], rows[4]]),
        ]
    )
    dense = np.array([[0.5, 1, 2]] * 3, np.float32)
    expected = run_directly(model, {"vectors": pooled, "dense": dense})
    with ctr_running(tmp_path, "--workflow_file=workflow.prototxt") as ctr:
        wait_until(lambda: ctr.get("/ready").status_code == 200, what="the model served")
        np.testing.assert_allclose(probabilities_of(post(ctr, body)), expected, atol=1e-6, rtol=0)
        body["instances"][1]["ids_per_slot"] = [0, 1, 0]
        problem = InvalidRequest.model_validate_json(post(ctr, body).content).detail[0]
        assert problem.loc == ["body", "instances", 1, "ids_per_slot"]
        assert "has 3 values, the model takes 2" in problem.msg
        criteo = {"criteo_rows": [{"integers": [1] * 13, "categories": ["a"] * 26}]}
        answer = post(ctr, criteo)
        assert answer.status_code == 422
        assert "the model takes 2 slots and 3 dense values" in answer.text


async def test_the_callers_timeout_reaches_the_handler() -> None:
    deadlines: list[float | None] = []

    async def late(payload: bytes | memoryview, context: RpcContext) -> bytes:
        deadlines.append(context.deadline_s)
        raise RpcTimeoutError("the caller's timeout passed")

    descriptor = ctr_prediction_pb2.DESCRIPTOR.services_by_name["CTRPredictionService"]
    app = FastAPI()
    service = Service(descriptor, {"inference": late, "debug": late})
    add_predict_route(app, service, lambda: Shape(SLOTS, DENSE_DIM, False), WireLimits())
    body = instances_of(*requests_of(1))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://ctr", timeout=10
    ) as client:
        begin_s = time.monotonic()
        answers = [
            await client.post(f"{PATH}{query}", json=body)
            for query in ("", "?timeout_ms=60000", "?timeout_ms=0", f"?timeout_ms={10**400}")
        ]
    assert [answer.status_code for answer in answers] == [504, 504, 422, 504]
    assert Failure.model_validate(answers[0].json()).detail == "the caller's timeout passed"
    assert InvalidRequest.model_validate(answers[2].json()).detail[0].loc == ["query", "timeout_ms"]
    unbound, bound, _ = deadlines
    assert unbound is None
    assert bound is not None
    assert begin_s + 60 <= bound <= time.monotonic() + 60


def test_what_only_ops_know_is_left_to_them() -> None:
    request = PredictRequest.model_validate(
        {"instances": [{"sparse_ids": [1, 2, 3], "ids_per_slot": [2, 1], "dense_ids": []}]}
    )
    message = ctr_prediction_pb2.Request.FromString(request.payload(None))
    assert list(message.instances[0].sparse_ids) == [1, 2, 3]
    assert list(message.instances[0].ids_per_slot) == [2, 1]


def test_one_id_a_slot_may_be_counted(ctr: Ctr) -> None:
    """As a client does that serves general ops too."""
    body = instances_of(*requests_of(2))
    plain = probabilities_of(post(ctr, body))
    for instance in body["instances"]:
        instance["ids_per_slot"] = [1] * SLOTS
    np.testing.assert_array_equal(probabilities_of(post(ctr, body)), plain)


@pytest.mark.parametrize(
    ("told", "wait_s"), [(None, None), ("0", None), ("60000", 60.0), ("6e4", 0), ("-1", 0)]
)
async def test_the_header_of_a_timeout_reaches_the_handler_of_any_service(
    told: str | None, wait_s: float | None
) -> None:
    deadlines: list[float | None] = []

    async def late(payload: bytes | memoryview, context: RpcContext) -> bytes:
        deadlines.append(context.deadline_s)
        raise RpcTimeoutError("the caller's timeout passed")

    descriptor = ctr_prediction_pb2.DESCRIPTOR.services_by_name["CTRPredictionService"]
    app = FastAPI()
    app.include_router(service_router([Service(descriptor, {"inference": late, "debug": late})]))
    headers = {} if told is None else {"x-bd-timeout-ms": told}
    begin_s = time.monotonic()
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://ctr", timeout=10
    ) as client:
        answer = await client.post("/CTRPredictionService/inference", headers=headers)
    if wait_s == 0:
        assert (answer.status_code, deadlines) == (400, [])
        assert f"header x-bd-timeout-ms: '{told}' is not a number of ms" in answer.text
        return
    assert answer.status_code == 504
    (deadline_s,) = deadlines
    assert (deadline_s is None) == (wait_s is None)
    if deadline_s is not None and wait_s is not None:
        assert begin_s + wait_s <= deadline_s <= time.monotonic() + wait_s


def test_an_overload_is_503_and_who_does_not_wait_any_more_gets_504(
    models: dict[int, Path], tmp_path: Path
) -> None:
    url, body = "/CTRPredictionService/inference", instances_of(*requests_of(1))
    with shards_running(tmp_path, "1_1", seed=1) as shards:
        write_conf(tmp_path, shards.ports, timeout_ms=20_000, extra="enable_batch_align: 1")
        publish(tmp_path / "model", models[1])
        with (
            ctr_running(tmp_path, "--requests_pending_max=3", "--queue_timeout_ms=30000") as ctr,
            ThreadPoolExecutor(3) as pool,
        ):
            wait_until(ctr.model_version, what="the model served")
            stopped = shards.roles[0].process.pid
            os.kill(stopped, signal.SIGSTOP)
            try:
                held = []
                for number, headers in enumerate([{}, {}, {"x-bd-timeout-ms": "1"}], 1):
                    held.append(
                        pool.submit(
                            httpx.post,
                            f"http://{ctr.address}{url}",
                            json=body,
                            headers=headers,
                            timeout=30,
                        )
                    )
                    wait_until(
                        lambda: ctr.status()["requests_pending"] == number,  # noqa: B023
                        what=f"{number} under way",
                    )
                refused = httpx.post(f"http://{ctr.address}{url}", json=body)
                assert (refused.status_code, refused.headers["x-bd-error-code"]) == (503, "2004")
                assert "requests_pending_max=3 requests are under way" in refused.text
                answer = post(ctr, body)
                assert answer.status_code == 503
                detail = Failure.model_validate_json(answer.content).detail
                assert "requests_pending_max=3" in detail
            finally:
                os.kill(stopped, signal.SIGCONT)
            statuses = [each.result().status_code for each in held]
            assert statuses == [200, 200, 504]
            assert ctr.status()["requests"] == {"ok": 2, "limit": 2, "timeout": 1}
