"""cube.conf: what it says is what is asked; what is wrong with it is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_core.conf.cube_conf import read_cube_conf
from cube_core.endpoint import Endpoint
from cube_core.errors import ConfError

SAMPLE = Path(__file__).parents[2] / "conf" / "cube.conf"


def entry(**changes: Any) -> dict[str, Any]:
    """A valid entry with two shards; a change to None removes the field."""
    fields: dict[str, Any] = {
        "dict_name": "d",
        "shard": 2,
        "dup": 1,
        "timeout": 200,
        "retry": 3,
        "backup_request": 100,
        "type": "ipport",
        "load_balancer": "rr",
        "nodes": [{"ip": "127.0.0.1", "port": 8001}, {"ip": "127.0.0.1", "port": 8002}],
    }
    fields.update(changes)
    return {name: value for name, value in fields.items() if value is not None}


def write(path: Path, *entries: Any) -> Path:
    target = path / "cube.conf"
    target.write_text(json.dumps(list(entries)))
    return target


def test_the_sample_file_is_valid() -> None:
    conf = read_cube_conf(SAMPLE)["ctr_embedding"]
    assert (conf.timeout_ms, conf.retry, conf.backup_request_ms) == (200, 3, 100)
    assert conf.replicas() == [[Endpoint("127.0.0.1", 8001)], [Endpoint("127.0.0.1", 8002)]]


def test_ipport_names_one_server_a_shard(tmp_path: Path) -> None:
    conf = read_cube_conf(write(tmp_path, entry()))["d"]
    assert conf.replicas() == [[Endpoint("127.0.0.1", 8001)], [Endpoint("127.0.0.1", 8002)]]


def test_ipport_list_names_the_replicas_of_a_shard(tmp_path: Path) -> None:
    nodes = [{"ipport_list": "list://a:1, b:2"}, {"ipport_list": "c:3"}]
    conf = read_cube_conf(write(tmp_path, entry(type="ipport_list", nodes=nodes)))["d"]
    assert conf.replicas() == [[Endpoint("a", 1), Endpoint("b", 2)], [Endpoint("c", 3)]]


def test_ipport_parallel_has_all_shards_behind_the_first_node(tmp_path: Path) -> None:
    nodes = [{"ip": "10.0.0.1", "port": 9}]
    conf = read_cube_conf(write(tmp_path, entry(type="ipport_parallel", shard=3, nodes=nodes)))
    assert conf["d"].replicas() == [[Endpoint("10.0.0.1", 9)]] * 3


def test_several_dicts_and_unknown_fields(tmp_path: Path) -> None:
    conf = read_cube_conf(write(tmp_path, entry(later_field=1), entry(dict_name="e")))
    assert list(conf) == ["d", "e"]


@pytest.mark.parametrize(
    ("changes", "field", "problem"),
    [
        ({"dict_name": None}, "0.dict_name", "required"),
        ({"dict_name": ""}, "0.dict_name", "at least 1 character"),
        ({"shard": None}, "0.shard", "required"),
        ({"shard": 0}, "0.shard", "greater than or equal to 1"),
        ({"shard": "two"}, "0.shard", "integer"),
        ({"timeout": 0}, "0.timeout", "greater than or equal to 1"),
        ({"retry": -1}, "0.retry", "greater than or equal to 0"),
        ({"type": "zk"}, "0.type", "'ipport'"),
        ({"load_balancer": "best"}, "0.load_balancer", "'rr'"),
        ({"nodes": None}, "0.nodes", "required"),
        ({"nodes": [{"ip": "h", "port": 1}]}, "0", "nodes: 1 entries for 2 shards"),
        ({"nodes": [{"ip": "h", "port": 1}, {"ip": "h"}]}, "0", "nodes.1: needs ip and port"),
        (
            {"nodes": [{"ip": "h", "port": 1}, {"ip": "h", "port": 65536}]},
            "0.nodes.1.port",
            "65535",
        ),
        (
            {"nodes": [{"ip": "h", "port": 1}, {"ip": "h", "port": 1}]},
            "0",
            "h:1 stands for shard 0 and 1",
        ),
        (
            {"type": "ipport_list", "nodes": [{"ipport_list": "list://h:1"}, {}]},
            "0",
            "nodes.1.ipport_list: missing",
        ),
        (
            {"type": "ipport_list", "nodes": [{"ipport_list": "list://h:1"}, {"ipport_list": "h"}]},
            "0",
            "nodes.1.ipport_list: 'h' is not host:port",
        ),
        (
            {"type": "ipport_list", "nodes": [{"ipport_list": "zk://x"}, {"ipport_list": "h:1"}]},
            "0",
            "zk:// is not supported",
        ),
    ],
)
def test_names_the_field_that_is_wrong(
    tmp_path: Path, changes: dict[str, Any], field: str, problem: str
) -> None:
    path = write(tmp_path, entry(**changes))
    with pytest.raises(ConfError) as raised:
        read_cube_conf(path)
    assert raised.value.file == str(path)
    assert raised.value.field == field
    assert problem in raised.value.problem


def test_a_dict_that_stands_twice(tmp_path: Path) -> None:
    with pytest.raises(ConfError, match=r"1\.dict_name: 'd' stands twice"):
        read_cube_conf(write(tmp_path, entry(), entry()))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("[{]", "is not JSON"),
        ("\n\n[{]", ":3: is not JSON"),
        ("{}", "must be a JSON array"),
        ("[]", "must be a JSON array"),
        ("[1]", "0: Input should be"),
        ("[" * 100_000, "is not JSON"),
        ('[{"shard": ' + "9" * 5000 + "}]", "is not JSON"),
    ],
)
def test_a_file_that_is_no_list_of_dicts(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "cube.conf"
    path.write_text(text)
    with pytest.raises(ConfError) as raised:
        read_cube_conf(path)
    assert str(raised.value).startswith(str(path))
    assert problem in str(raised.value)


def test_a_file_that_is_not_there_or_no_text(tmp_path: Path) -> None:
    with pytest.raises(ConfError, match="cannot be read"):
        read_cube_conf(tmp_path / "cube.conf")
    (tmp_path / "cube.conf").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfError, match="cannot be read"):
        read_cube_conf(tmp_path / "cube.conf")


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(name=st.sampled_from(sorted(entry())), value=_JSON)
def test_any_value_of_a_field_is_taken_or_refused_by_name(
    tmp_path: Path, name: str, value: object
) -> None:
    path = write(tmp_path, {**entry(), name: value})
    try:
        dicts = read_cube_conf(path)
    except ConfError as error:
        refusal = str(error)
    else:
        assert all(len(conf.replicas()) == conf.shard for conf in dicts.values())
        return
    assert refusal.startswith(f"{path}: 0")
