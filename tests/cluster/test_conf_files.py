"""The parsers of this repository read what is written for them, and find in it what was meant."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import HealthCheck, given, settings

from ctr_serving.conf import read_engine_confs
from ctr_serving.main import app as ctr_app
from cube_cluster.cluster import Cluster
from cube_cluster.cluster_file import read_cluster
from cube_cluster.conf_files import MARK, ConfFiles
from cube_cluster.deployment import Deployment
from cube_cluster.layout import all_shard_servers, ctr_servers, shard_servers, transfers
from cube_core.command_line import _gflags_spelling
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.conf.prototxt import read_model_toolkit, read_predictors
from cube_core.conf.transfer_conf import read_transfer_conf
from cube_core.endpoint import Endpoint
from cube_server.main import app as server_app
from cube_transfer.main import app as transfer_app
from tests.cluster.clusters import cluster_texts

REPOSITORY = Path(__file__).parents[2]
ANY_HOST = "0.0.0.0"  # noqa: S104


def written(folder: Path, text: str) -> Cluster:
    """Writes the files of a cluster to `folder`; returns it as it was read."""
    path = folder / "cluster.yml"
    path.write_text(text, encoding="utf-8")
    cluster = read_cluster(path)
    files = ConfFiles(cluster, str(path), str(folder)).all()
    assert files == ConfFiles(read_cluster(path), str(path), str(folder)).all()
    for name, content in files.items():
        assert MARK in content
        (folder / name).write_text(content, encoding="utf-8")
    return cluster


def parameters(app: typer.Typer, *files: Path) -> dict[str, Any]:
    """What a role's command makes of files of flags."""
    command: Any = typer.main.get_command(app)
    arguments = _gflags_spelling(app, [f"--flagfile={file}" for file in files], ())
    params: dict[str, Any] = command.make_context("role", arguments).params
    return params


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=cluster_texts())
def test_what_is_written_is_read_back(tmp_path: Path, text: str) -> None:
    cluster = written(tmp_path, text)
    _check_topology(cluster, tmp_path)
    _check_flags(cluster, tmp_path)
    if cluster.ctr:
        _check_ctr(cluster, tmp_path)


def _check_topology(cluster: Cluster, folder: Path) -> None:
    servers = shard_servers(cluster)
    dicts = read_cube_conf(folder / "cube.conf")
    for transfer in transfers(cluster):
        conf, own = transfer.dict, [s for s in servers if s.dict_name == transfer.dict.name]
        places = [(s.shard, s.copy, s.host, s.port, s.data_dir) for s in own]
        read = read_transfer_conf(folder / transfer.conf_name)
        assert [
            (r.shard, r.copy_index, *r.endpoint, r.deploy_path) for r in read.replicas
        ] == places
        assert (read.dict_name, read.mode, read.build) == (conf.name, conf.mode, conf.build)
        assert read.donefile_address == conf.donefile_address
        engines = cluster.ctr.engines if cluster.ctr else []
        looked_at = ctr_servers(cluster) if conf.name in {e.dict_name for e in engines} else []
        assert read.ctr_servers == tuple(Endpoint(each.host, each.port) for each in looked_at)
        assert (read.wget_port, read.transfer_address) == (transfer.port, transfer.host)
        entry = dicts[conf.name]
        replicas = [(s, e.host, e.port) for s, each in enumerate(entry.replicas()) for e in each]
        assert sorted(set(replicas)) == sorted({(s, host, port) for s, _, host, port, _ in places})
        if conf.timeout_ms is not None:
            assert entry.timeout_ms == conf.timeout_ms
        if conf.load_balancer is not None:
            assert entry.load_balancer == conf.load_balancer


def _check_flags(cluster: Cluster, folder: Path) -> None:
    for server in shard_servers(cluster):
        found = parameters(server_app, folder / "gflags.conf", folder / f"{server.name}.flags")
        assert (found["host"], found["port"], found["grpc_port"]) == (
            *(server.host, server.port, server.grpc_port),
        )
        assert (found["dict_name"], found["shard"]) == ([server.dict_name], server.shard)
        assert found["data_dir"] == Path(server.data_dir)
        for name, value in (cluster.flags.cube_server | cluster.limits.cube_server).items():
            assert found[name] == value
    for transfer in transfers(cluster):
        found = parameters(transfer_app, folder / f"{transfer.name}.flags")
        assert found["config"] == str(folder / transfer.conf_name)


def _check_ctr(cluster: Cluster, folder: Path) -> None:
    assert cluster.ctr is not None
    engines = read_model_toolkit(folder / "model_toolkit.prototxt").engines
    assert [(e.name, e.sparse_param_service_table_name) for e in engines] == [
        (e.name, e.dict_name) for e in cluster.ctr.engines
    ]
    for engine, meant in zip(engines, cluster.ctr.engines, strict=True):
        if meant.default_embedding_value is not None:
            assert engine.default_embedding_value == meant.default_embedding_value
    servers = ctr_servers(cluster)
    predictors = read_predictors(folder / "predictors.prototxt").predictors
    addresses = ",".join(f"{each.host}:{each.port}" for each in servers)
    assert predictors[0].variants[0].naming_conf.cluster == f"list://{addresses}"
    for server in servers:
        found = parameters(ctr_app, folder / f"{server.name}.flags")
        assert (found["port"], found["grpc_port"]) == (server.port, server.grpc_port)
        for name, value in (cluster.flags.ctr_serving | cluster.limits.ctr_serving).items():
            assert found[name] == value


def test_the_predictor_and_the_daemon_agree_on_where_models_are(tmp_path: Path) -> None:
    cluster = written(tmp_path, (REPOSITORY / "conf" / "cluster.yml").read_text())
    (engine,) = read_engine_confs(tmp_path / "model_toolkit.prototxt", tmp_path / "cube.conf")
    published = read_transfer_conf(tmp_path / "transfer.conf").model_deploy_path
    assert engine.model_path == Path(published, "current")
    assert engine.dict_name == cluster.dicts[0].name


def test_replicas_of_a_shard_are_on_different_hosts_where_there_are_enough(tmp_path: Path) -> None:
    cluster = written(
        tmp_path,
        "dicts: [{name: d, donefile_address: x, shards: 3, replicas: 2, port: 8001,"
        " hosts: [h1, h2, h3]}]",
    )
    servers = shard_servers(cluster)
    assert [(s.name, s.shard, s.copy, s.host, s.port, s.grpc_port) for s in servers] == [
        ("cube_server_0", 0, 0, "h1", 8001, 9001),
        ("cube_server_1", 0, 1, "h2", 8001, 9001),
        ("cube_server_2", 1, 0, "h3", 8001, 9001),
        ("cube_server_3", 1, 1, "h1", 8002, 9002),
        ("cube_server_4", 2, 0, "h2", 8002, 9002),
        ("cube_server_5", 2, 1, "h3", 8002, 9002),
    ]


@pytest.mark.parametrize(
    "where", [f"listen_host: {ANY_HOST}", "security: {operate_token_file: secret/token}"]
)
def test_settings_of_all_roles_reach_their_flags(tmp_path: Path, where: str) -> None:
    written(tmp_path, f"{(REPOSITORY / 'conf' / 'cluster.yml').read_text()}\n{where}\n")
    found = parameters(transfer_app, tmp_path / "cube_transfer_0.flags")
    if "listen" in where:
        server = parameters(server_app, tmp_path / "cube_server_0.flags")
        assert (server["host"], found["host"]) == (ANY_HOST, ANY_HOST)
        assert ANY_HOST not in (tmp_path / "cube.conf").read_text()
    else:
        server = parameters(server_app, tmp_path / "gflags.conf")
        for each in (server, found):
            assert each["operate_token_file"] == str(Path("secret", "token"))


RESHARDING = """
dicts:
  - {name: a, donefile_address: x, shards: 3, port: 8101, first_server: 5, timeout_ms: 77,
     retiring: {shards: 2, replicas: 2, port: 8001}, transfer: {port: 8098}}
  - {name: b, donefile_address: x, shards: 1, port: 8201, first_server: 4, transfer: {port: 8099}}
"""


def test_servers_of_two_topologies_stand_side_by_side(tmp_path: Path) -> None:
    cluster = written(tmp_path, RESHARDING)
    found = {s.name: (s.dict_name, s.shard, s.copy, s.port) for s in all_shard_servers(cluster)}
    assert list(found) == [f"cube_server_{i}" for i in (0, 1, 2, 3, 5, 6, 7, 4)]
    assert found["cube_server_3"] == ("a", 1, 1, 8004)
    assert found["cube_server_7"] == ("a", 2, 0, 8103)
    assert {s.dict_name for s in shard_servers(cluster) if s.port < 8100} == set()
    flags = parameters(server_app, tmp_path / "cube_server_3.flags")
    assert (flags["port"], flags["shard"], flags["data_dir"]) == (
        8004,
        1,
        Path("data/cube_server_3"),
    )
    conf = read_transfer_conf(tmp_path / "transfer.conf")
    assert [each.endpoint.port for each in conf.replicas] == [8101, 8102, 8103]
    assert conf.cube_conf == str(tmp_path / "cube.conf")
    (replicas,) = {len(each) for each in read_cube_conf(tmp_path / "cube.conf")["a"].replicas()}
    assert replicas == 1


def test_clients_stay_at_the_servers_that_are_found_while_others_are_retiring(
    tmp_path: Path,
) -> None:
    """What else there is to change is changed; a dict without such servers is as the file says."""
    written(tmp_path, RESHARDING)
    path = tmp_path / "cube.conf"
    before = json.loads(path.read_text())
    old = [{"ipport_list": f"list://127.0.0.1:{port}"} for port in (8001, 8003)]
    before[0] |= {"shard": 2, "nodes": old, "timeout": 1}
    before[1] |= {"nodes": [{"ipport_list": "list://127.0.0.1:1"}]}
    path.write_text(json.dumps(before))
    text = Deployment.read(tmp_path / "cluster.yml").files(tmp_path)["cube.conf"]
    path.write_text(text)
    dicts = read_cube_conf(path)
    assert [each[0].port for each in dicts["a"].replicas()] == [8001, 8003]
    assert dicts["a"].timeout_ms == 77
    assert dicts["b"].replicas()[0][0].port == 8201
    path.write_text("no JSON")
    fresh = json.loads(Deployment.read(tmp_path / "cluster.yml").files(tmp_path)["cube.conf"])
    assert fresh[0]["shard"] == 3
