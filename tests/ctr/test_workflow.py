"""Workflows as files: read, checked, and served by a process with ops of a user's module."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest

from benchmarks.ctr_load import answer_all
from ctr_serving.client import ConnectError, CtrClient
from ctr_serving.conf import read_engine_confs
from ctr_serving.workflow_conf import Node, file_of_flags, read_workflow
from cube_core._native import encode_ctr_request, parse_ctr_response
from cube_core.errors import ConfError
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
    write_manifest,
)
from tests.ctr.networks import make_network, run_directly, write_network_manifest
from tests.ctr.service import Shards, ctr_running, write_conf
from tests.ctr.test_wires import raw_call
from tests.waiting import wait_until


def nodes(text: str) -> str:
    return f'workflows {{ name: "w" workflow_type: "Sequence" {text} }}'


ONE = nodes('nodes { name: "ctr_prediction" type: "CTRPredictionOp" }')
CHAIN = nodes(
    """
    nodes { name: "c" type: "SlotsOp" dependencies { name: "a" mode: "RO" }
            dependencies { name: "b" mode: "RW" } }
    nodes { name: "a" type: "SlotsOp" engines: "y" }
    nodes { name: "b" type: "SlotsOp" engines: "x" engines: "y" }
    """
)


def read(
    root: Path, workflow: str, service: str | None = None, engines: str = "x"
) -> list[list[Node]] | None:
    write_conf(root, [8001, 8002])
    toolkit = root / "model_toolkit.prototxt"
    text = toolkit.read_text()
    toolkit.write_text("".join(text.replace('"ctr_prediction"', f'"{each}"') for each in engines))
    (root / "workflow.prototxt").write_text(workflow)
    if service is not None:
        (root / "service.prototxt").write_text(service)
    return read_workflow(
        root / "workflow.prototxt",
        None if service is None else root / "service.prototxt",
        read_engine_confs(toolkit, root / "cube.conf"),
    )


def test_nodes_are_put_in_the_order_of_their_dependencies(tmp_path: Path) -> None:
    groups = read(tmp_path, CHAIN.replace('name: "c"', 'name: "x"'), engines="xy")
    assert groups is not None
    assert [{node.name for node in group} for group in groups] == [{"a", "b"}, {"x"}]
    by_name = {node.name: node for group in groups for node in group}
    assert by_name["a"].engines == ("y",)
    assert by_name["b"].engines == ("x", "y")
    assert by_name["x"].engines == ("x",)
    assert by_name["x"].dependencies == ("a", "b")


def test_the_op_of_the_original_alone_needs_no_general_op(tmp_path: Path) -> None:
    assert read(tmp_path, ONE) is None
    assert read(tmp_path, ONE.replace("CTRPredictionOp", "SlotsOp")) is not None


def test_the_sample_files_are_valid() -> None:
    conf = Path(__file__).parents[2] / "conf"
    confs = read_engine_confs(conf / "model_toolkit.prototxt", conf / "cube.conf")
    assert read_workflow(conf / "workflow.prototxt", conf / "service.prototxt", confs) is None


def test_a_service_names_its_workflow(tmp_path: Path) -> None:
    both = ONE.replace("CTRPredictionOp", "SlotsOp") + ONE.replace('"w"', '"v"')
    service = 'port: 8010 services { name: "CTRPredictionService" workflows: "w" }'
    assert read(tmp_path, both, service) is not None
    assert read(tmp_path, both, service.replace('"w"', '"v"')) is None


SERVICE = 'services { name: "CTRPredictionService" workflows: "w" }'


@pytest.mark.parametrize(
    ("workflow", "service", "message"),
    [
        ("", None, "workflow.prototxt: workflows: at least one"),
        (ONE + ONE, None, "workflows: are several: say which one in service.prototxt"),
        (ONE, SERVICE.replace('"w"', '"v"'), "services[0].workflows: 'v' is no workflow of"),
        (ONE, SERVICE.replace("CTRP", "P"), "must have one service CTRPredictionService"),
        (ONE, SERVICE.replace("}", "enable_map_request_to_workflow: true }"), "for all requests"),
        (ONE.replace("Sequence", "Tree"), None, "workflows[0].workflow_type: 'Tree' is not"),
        (CHAIN.replace('"b" mode', '"d" mode'), None, "nodes[0].dependencies: 'd' is no node"),
        (CHAIN.replace("RW", "WO"), None, "nodes[0].dependencies.mode: 'WO' is not RO or RW"),
        (CHAIN.replace('"y" }', '"z" }'), None, "engines: 'z' is no engine; there are x, y"),
        (CHAIN.replace('name: "b" type', 'name: "a" type'), None, "two nodes have one name"),
        (
            nodes('nodes { name: "a" type: "SlotsOp" } nodes { name: "b" type: "SlotsOp" }'),
            None,
            "one node must make the answer, not a, b",
        ),
        (
            nodes(
                """
                nodes { name: "a" type: "SlotsOp" dependencies { name: "b" mode: "RO" } }
                nodes { name: "b" type: "SlotsOp" dependencies { name: "a" mode: "RO" } }
                """
            ),
            None,
            "depend on each other: ['",
        ),
        (nodes(""), None, "one node must make the answer, not none"),
    ],
)
def test_a_workflow_that_cannot_be_is_named(
    tmp_path: Path, workflow: str, service: str | None, message: str
) -> None:
    with pytest.raises(ConfError, match=re.escape(message)):
        read(tmp_path, workflow, service, engines="xy")


def test_several_engines_need_a_workflow(tmp_path: Path) -> None:
    read(tmp_path, CHAIN, engines="xy")
    confs = read_engine_confs(tmp_path / "model_toolkit.prototxt", tmp_path / "cube.conf")
    with pytest.raises(
        ConfError, match="--workflow_file: is missing: it says what the engines x, y"
    ):
        read_workflow(None, None, confs)
    (tmp_path / "model_toolkit.prototxt").write_text(
        (tmp_path / "model_toolkit.prototxt").read_text().replace('"y"', '"x"')
    )
    with pytest.raises(ConfError, match=r"engines\[1\]\.name: 'x' stands twice"):
        read_engine_confs(tmp_path / "model_toolkit.prototxt", tmp_path / "cube.conf")


@pytest.mark.parametrize(
    ("op_type", "message"),
    [
        ("GeneralInferOp", "'GeneralInferOp' is neither SlotsOp nor module.Class"),
        ("no_such_ops.Mine", "ModuleNotFoundError: No module named 'no_such_ops'"),
        ("broken_ops.Mine", "ZeroDivisionError"),
        ("json.Mine", "AttributeError: module 'json' has no attribute 'Mine'"),
        ("json.loads", "it is no class made of ctr_serving.ops.Op"),
        ("json.JSONDecoder", "it is no class made of ctr_serving.ops.Op"),
    ],
)
def test_an_op_that_cannot_be_imported_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, op_type: str, message: str
) -> None:
    monkeypatch.setattr("sys.path", list(sys.path))
    (tmp_path / "broken_ops.py").write_text("1 / 0\n")
    groups = read(tmp_path, nodes(f'nodes {{ name: "a" type: "{op_type}" }}'))
    assert groups is not None
    with pytest.raises(ConfError, match=re.escape(message)) as raised:
        groups[0][0].load_op()
    assert "workflows[0].nodes[0].type" in str(raised.value)


def test_flags_name_files_as_in_the_original(tmp_path: Path) -> None:
    assert file_of_flags("", "", "workflow.prototxt") is None
    assert file_of_flags(str(tmp_path), "", "workflow.prototxt") is None
    (tmp_path / "workflow.prototxt").touch()
    assert file_of_flags(str(tmp_path), "", "workflow.prototxt") == tmp_path / "workflow.prototxt"
    assert file_of_flags("conf", "w.prototxt", "workflow.prototxt") == Path("conf/w.prototxt")
    assert file_of_flags("", "conf/w.prototxt", "workflow.prototxt") == Path("conf/w.prototxt")


def test_the_26_slots_are_one_configuration_of_the_general_op(
    shards: Shards, models: dict[int, Path], tmp_path: Path
) -> None:
    write_conf(tmp_path, shards.ports, extra="default_embedding_value: 0.5 enable_batch_align: 1")
    (tmp_path / "workflow.prototxt").write_text(ONE.replace("CTRPredictionOp", "SlotsOp"))
    publish(tmp_path / "model", models[1])
    ids, dense = requests_of(50, missing=True)
    rows = embedding(ids, seed=1)
    rows[ids < 0] = 0.5
    with ctr_running(tmp_path, "--workflow_file=workflow.prototxt") as ctr, ctr.client() as client:
        wait_until(ctr.model_version, what="model 1 served")
        wanted = direct_probabilities(models[1], rows, dense)
        np.testing.assert_allclose(client.predict(ids, dense), wanted, atol=1e-6, rtol=0)
        assert ctr.status()["missing_keys_by_slot"] == (ids < 0).sum(axis=0).tolist()
        payloads = [encode_ctr_request(ids[:1], dense[:1])] * 64
        before = ctr.status()["stage_seconds"]["seek"]
        answer_all(ctr.role.port(), payloads, 64, 64)
        after = ctr.status()["stage_seconds"]["seek"]
        assert sum(after.values()) - after["sum"] - sum(before.values()) + before["sum"] < 32
        payload = payloads[0]
        _, _, err_msg = parse_ctr_response(raw_call(ctr, payload, "debug"))
        # Engine and node have one name.
        stages = "".join(rf"ctr_prediction\.{stage}_us=\d+ " for stage in STAGES)
        told = rf"version=1_1 rows=1 parse_us=\d+ {stages}total_us=\d+ row_us=\d+ missing=0:"
        assert re.match(told, err_msg)


STAGES = ("seek", "preprocess", "queue", "infer", "inference", "postprocess")

OPS = '''
import numpy as np
from ctr_serving.ops import Op, look_up


class Blend(Op):
    """A share of the wide model's clicks, and the rest of the deep one's."""

    share = 0.25

    async def preprocess(self, call):
        return await look_up(call)

    async def postprocess(self, call, fetch):
        if (call.instances.dense < 0).any():
            raise ValueError("a dense value is negative")
        wide = call.inputs["wide"]["fetch_name_0"][:, 1]
        return self.share * wide + (1 - self.share) * fetch["fetch_name_0"][:, 1]
'''

BLEND = nodes(
    """
    nodes { name: "wide" type: "SlotsOp" }
    nodes { name: "deep" type: "blend_ops.Blend" dependencies { name: "wide" mode: "RO" } }
    """
)

WIDE_DICT = "first_order"


@pytest.fixture
def blend(tmp_path: Path, models: dict[int, Path]) -> Path:
    """A directory with two engines, tables of two dicts, and a module of ops."""
    write_conf(tmp_path, [8001, 8002], extra="enable_batch_align: 1")
    path = tmp_path / "model_toolkit.prototxt"
    text = path.read_text().replace("REMOTE", "LOCAL").replace("./model/", "./NAME/")
    path.write_text(
        "".join(
            text.replace('"ctr_prediction"', f'"{name}"')
            .replace("NAME", name)
            .replace(f'"{DICT_NAME}"', f'"./tables/{dict_name}"')
            for name, dict_name in (("deep", DICT_NAME), ("wide", WIDE_DICT))
        )
    )
    keys = np.arange(ROW_COUNT, dtype=np.uint64)
    rows = embedding(keys.view(np.int64), 1)
    tables = tmp_path / "tables"
    write_shard_tables(tables, "1_1", keys, rows, dict_name=DICT_NAME)
    first_order = np.ascontiguousarray(rows[:, :1])
    write_shard_tables(tables, "1_1", keys, first_order, dict_name=WIDE_DICT, shard_num=1)
    make_network(tmp_path / "wide_model", 5, {"wide": SLOTS, "dense": DENSE_DIM})
    write_network_manifest(
        tmp_path / "wide_model",
        "1_1",
        slots=SLOTS,
        dense_dim=DENSE_DIM,
        dense_input="dense",
        dicts={WIDE_DICT: {"dim": 1}},
        lookups=[{"slot": slot, "dict": WIDE_DICT, "input": "wide"} for slot in range(SLOTS)],
    )
    for name, model in (("wide", tmp_path / "wide_model"), ("deep", models[1])):
        (tmp_path / name).mkdir()
        publish(tmp_path / name, model)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "workflow.prototxt").write_text(BLEND)
    (tmp_path / "conf" / "blend_ops.py").write_text(OPS)
    return tmp_path


def test_ops_of_a_users_module_are_served(blend: Path, models: dict[int, Path]) -> None:
    ids, dense = requests_of(20)
    vectors = embedding(ids, 1)
    assert vectors.shape[2] == EMBEDDING_DIM
    feed = {"wide": vectors[:, :, 0], "dense": dense}
    wide = run_directly(blend / "wide_model", feed)[:, 1]
    deep = direct_probabilities(models[1], vectors, dense)[:, 1]
    with ctr_running(blend, "--workflow_path=conf") as ctr, ctr.client() as client:
        wait_until(lambda: ctr.get("/ready").status_code == 200, what="both models served")
        found = client.predict(ids, dense)
        np.testing.assert_allclose(found[:, 1], 0.25 * wide + 0.75 * deep, atol=1e-6, rtol=0)
        assert [each["engine"] for each in ctr.status()["engines"]] == ["deep", "wide"]
        metrics = ctr.get("/metrics").text
        assert 'ctr_model{dict="",engine="wide",version="1_1"} 1.0' in metrics
        failed = httpx.post(
            f"http://{ctr.address}/CTRPredictionService/inference",
            json={"instances": [{"sparse_ids": [1] * SLOTS, "dense_ids": [-1] * DENSE_DIM}]},
        ).json()
        assert failed["err_code"] == -1
        assert failed["err_msg"] == "op deep: postprocess: ValueError: a dense value is negative"
        # Two ids in slot 0, none in slot 1.
        counts = np.array([[2, 0, *[1] * (SLOTS - 2)]])
        two = np.array([5, 7, *ids[0, 2:]])
        several = client.predict(two, dense[:1], ids_per_slot=counts)
        pooled = vectors[:1].copy()
        pooled[0, 0] = embedding(np.array([5, 7]), 1).sum(axis=0)
        pooled[0, 1] = 0
        wide = run_directly(blend / "wide_model", {"wide": pooled[:, :, 0], "dense": dense[:1]})
        deep = direct_probabilities(models[1], pooled, dense[:1])
        wanted = 0.25 * wide[:, 1] + 0.75 * deep[:, 1]
        np.testing.assert_allclose(several[:, 1], wanted, atol=1e-6, rtol=0)
        body = {
            "sparse_ids": two.tolist(),
            "dense_ids": dense[0].tolist(),
            "ids_per_slot": counts[0].tolist(),
        }
        mapped = httpx.post(
            f"http://{ctr.address}/CTRPredictionService/inference", json={"instances": [body]}
        ).json()
        assert mapped["predictions"][0]["prob1"] == pytest.approx(wanted[0], abs=1e-6)


@pytest.mark.parametrize(
    ("ids", "counts", "message"),
    [
        ([1, 2], [[1, 2]], "ids_per_slot counts 3 ids"),
        ([1], [[2, -1]], "not negative"),
        ([1], [1], "must be [n, slots]"),
        ([1, 1], [[1], [1]], "and dense (1, 13) must be"),
    ],
)
def test_ids_that_do_not_fit_their_counts_are_not_sent(
    ids: list[int], counts: list[int], message: str
) -> None:
    dense = np.zeros((1, DENSE_DIM), np.float32)
    with CtrClient("127.0.0.1:1") as client, pytest.raises(ValueError, match=re.escape(message)):
        client.predict(np.array(ids), dense, ids_per_slot=np.array(counts))


def test_an_engine_that_no_node_names_does_not_hold_up_the_others(blend: Path) -> None:
    (blend / "conf" / "workflow.prototxt").write_text(
        nodes('nodes { name: "it" type: "SlotsOp" engines: "wide" }')
    )
    # Of the other there is neither a model nor a table.
    shutil.rmtree(blend / "deep")
    ids, dense = requests_of(3)
    feed = {"wide": embedding(ids, 1)[:, :, 0], "dense": dense}
    with ctr_running(blend, "--workflow_path=conf") as ctr, ctr.client() as client:
        wait_until(lambda: ctr.get("/ready").status_code == 200, what="the model served")
        wanted = run_directly(blend / "wide_model", feed)
        np.testing.assert_allclose(client.predict(ids, dense), wanted, atol=1e-6, rtol=0)
        assert [each["engine"] for each in ctr.status()["engines"]] == ["wide"]
        told = "engine deep: is not loaded: no node of the workflow names it"
        assert told in ctr.role.log()


def test_without_a_model_of_one_engine_clients_are_sent_elsewhere(blend: Path) -> None:
    shutil.rmtree(blend / "deep")
    with ctr_running(blend, "--workflow_path=conf") as ctr, ctr.client() as client:
        wait_until(lambda: ctr.status()["engines"][1]["model"], what="one of the models")
        with pytest.raises(ConnectError, match="engine deep: no model is loaded yet") as raised:
            client.predict(*requests_of(1))
        assert raised.value.code == 2003
        answer = httpx.post(f"http://{ctr.address}/CTRPredictionService/inference", json={})
        assert (answer.status_code, answer.headers["x-bd-error-code"]) == (503, "2003")


def test_one_engine_is_reloaded_and_the_other_stays(blend: Path, models: dict[int, Path]) -> None:
    with ctr_running(blend, "--workflow_path=conf") as ctr, ctr.client() as client:
        wait_until(lambda: ctr.get("/ready").status_code == 200, what="both models served")
        ids, dense = requests_of(5)
        before = client.predict(ids, dense)
        model = shutil.copytree(models[2], blend / "second")
        write_manifest(model, "1_1")
        publish(blend / "deep", model)
        wait_until(lambda: ctr.status()["engines"][0]["switches"] == 2, what="the other model")
        assert ctr.status()["engines"][1]["switches"] == 1
        assert np.abs(client.predict(ids, dense) - before).max() > 1e-4
        broken = blend / "broken"
        broken.mkdir()
        publish(blend / "wide", broken)
        wait_until(
            lambda: "manifest.json: cannot be read" in ctr.status()["engines"][1]["problem"],
            what="the reason",
        )
        assert ctr.status()["engines"][0]["problem"] == ""
        assert len(client.predict(ids, dense)) == 5
