"""The configuration files of a Paddle Serving deployment, as they are, name what has no effect."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from ctr_serving.client import CtrClient
from ctr_serving.client._routes import read_routes
from ctr_serving.conf import read_engine_confs
from ctr_serving.main import _IGNORED_FLAGS
from ctr_serving.main import app as ctr_serving_app
from ctr_serving.workflow_conf import read_workflow
from cube_core import command_line
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.conf.transfer_conf import read_transfer_conf
from cube_core.errors import ConfError
from cube_transfer.donefile import parse_donefile
from docs_site.commands import ignored_flags
from tests.docs.command_lines import check

FILES = Path(__file__).parent / "files"


def test_transfer_conf() -> None:
    conf = read_transfer_conf(FILES / "transfer.conf")
    assert (conf.dict_name, conf.shard_num, conf.copy_num, conf.wget_port) == (
        "test_dict",
        2,
        1,
        8098,
    )
    assert [str(each.endpoint) for each in conf.replicas] == ["127.0.0.1:8000", "127.0.0.1:8027"]
    assert conf.replicas[0].deploy_path == "/ssd2/cube_open"


def test_two_shards_at_one_address_are_named(tmp_path: Path) -> None:
    path = tmp_path / "transfer.conf"
    text = (FILES / "transfer.conf").read_text()
    path.write_text(text.replace("127.0.0.1:8027", "127.0.0.1:8000"))
    with pytest.raises(ConfError, match=r"cube1_0: 127\.0\.0\.1:8000 is also cube0_0"):
        read_transfer_conf(path)


def test_cube_conf() -> None:
    dicts = read_cube_conf(FILES / "cube.conf")
    first, second = dicts["test_dict"], dicts["table_test_1"]
    assert (first.timeout_ms, first.retry, first.backup_request_ms) == (200, 3, 100)
    assert [len(shard) for shard in first.replicas()] == [1, 1]
    assert [str(shard[0]) for shard in second.replicas()] == [
        "127.0.0.1:8950",
        "127.0.0.1:8951",
        "127.0.0.1:8952",
    ]


def test_donefiles() -> None:
    bases = parse_donefile((FILES / "base.txt").read_bytes(), "base.txt")
    patches = parse_donefile((FILES / "patch.txt").read_bytes(), "patch.txt")
    assert not bases.errors
    assert not patches.errors
    assert [each.id for each in bases.entries] == ["1594201012", "1594201312"]
    assert patches.entries[0].key == "1594201312"


def test_model_toolkit() -> None:
    ctr, dense = read_engine_confs(FILES / "model_toolkit.prototxt", FILES / "cube.conf")
    assert (ctr.sparse_service, ctr.dict_name) == ("REMOTE", "test_dict")
    assert dense.sparse_service == "NONE"


def test_the_workflow_of_the_ctr_service_is_taken_and_others_are_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    confs = read_engine_confs(FILES / "model_toolkit.prototxt", FILES / "cube.conf")
    with caplog.at_level(logging.WARNING):
        groups = read_workflow(FILES / "workflow.prototxt", FILES / "service.prototxt", confs)
    assert groups is not None
    (node,) = groups[0]
    assert (node.op_type, node.engines) == ("CTRPredictionOp", ("ctr_prediction",))
    assert "not served here: EchoKVDBService" in caplog.text
    # One engine alone is served by the fixed op, the fastest way.
    assert read_workflow(FILES / "workflow.prototxt", FILES / "service.prototxt", confs[:1]) is None


def test_an_op_of_the_original_that_there_is_not_is_named(tmp_path: Path) -> None:
    path = tmp_path / "workflow.prototxt"
    path.write_text(
        'workflows { name: "w" workflow_type: "Sequence"'
        ' nodes { name: "elastic_ctr_prediction_op" type: "ElasticCTRPredictionOp" } }'
    )
    confs = read_engine_confs(FILES / "model_toolkit.prototxt", FILES / "cube.conf")
    groups = read_workflow(path, None, confs[:1])
    assert groups is not None
    with pytest.raises(ConfError, match=r"nodes\[0\]\.type: 'ElasticCTRPredictionOp' is neither"):
        groups[0][0].load_op()


@pytest.mark.parametrize("no_hedge", ["-1", "4294967295"])
def test_predictors(tmp_path: Path, no_hedge: str) -> None:
    path = tmp_path / "predictors.prototxt"
    text = (FILES / "predictors.prototxt").read_text()
    path.write_text(
        text.replace("hedge_request_timeout_ms: -1", f"hedge_request_timeout_ms: {no_hedge}")
    )
    routes = read_routes(path, "ctr_prediction_service")
    assert routes.weights == [50, 50]
    with CtrClient.from_conf(path, "ctr_prediction_service") as client:
        assert list(client.variants) == ["var1", "var2"]


def test_flags_of_the_predictor_are_named_where_they_have_no_effect(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    with pytest.raises(SystemExit), caplog.at_level(logging.WARNING):
        command_line.run(
            ctr_serving_app,
            [f"--flagfile={FILES / 'gflags_predictor.conf'}", f"--conf={tmp_path / 'none'}"],
            ignored_flags=_IGNORED_FLAGS,
        )
    problem = capsys.readouterr().err
    assert "no such flag" not in problem
    assert str(tmp_path / "none") in problem


def test_flags_that_have_no_effect_are_in_the_documentation() -> None:
    assert {"enable_cube", "general_model_path"} <= set(ignored_flags("ctr-serving"))


@pytest.mark.parametrize(
    "line",
    [
        f"cube-server --flagfile={FILES / 'gflags_cube.conf'}",
        "cube-transfer -p 8099 -l 4 --config conf/transfer.conf",
        "cube-cli -config_file conf/cube.conf -keys keys -dict test_dict -print_output true"
        " -batch 1",
        "cube-builder -dict_name=test_dict -job_mode=base -last_version=0 -cur_version=1 "
        "-depend_version=1 -input_path=./in -output_path=./out -shard_num=2 -only_build=false",
        "ctr-serving --workflow_path=conf --inferservice_path=conf --logger_path=conf "
        "--resource_path=conf --resource_file=resource.prototxt",
    ],
)
def test_command_lines_of_scripts(line: str) -> None:
    check(line)
