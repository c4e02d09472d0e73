"""What is wrong in a cluster.yml is named with its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_cluster import yaml_source
from cube_cluster.cluster_file import read_cluster
from cube_core.errors import ConfError

GOOD = """\
host: 127.0.0.1
dicts:
  - name: d1
    donefile_address: /passes/donefile
    shards: 2
    replicas: 2
    port: 8001
    transfer: {port: 8098}
ctr:
  servers:
    - {port: 8010}
  engines:
    - name: ctr
      dict_name: d1
flags:
  cube_server: {in_mem: true}
limits:
  cube_server:
    connections_max: 100
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "cluster.yml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("old", "new", "line", "told"),
    [
        ("shards: 2", "shard: 2", 5, r"dicts\.0\.shard: no such field; did you mean shards\?"),
        ("host: 127", "hots: 127", 1, r"hots: no such field; did you mean host\?"),
        ("    shards: 2\n", "", 3, r"dicts\.0\.shards: is missing"),
        ("shards: 2", "shards: two", 5, r"dicts\.0\.shards: .*integer, not 'two'"),
        ("shards: 2", "shards: true", 5, r"dicts\.0\.shards: .*integer"),
        ("shards: 2", "shards: 0", 5, r"dicts\.0\.shards: .*greater than or equal to 1, not 0"),
        ("replicas: 2", "replicas: 2.5", 6, r"dicts\.0\.replicas"),
        ("port: 8001", "port: 70000", 7, r"dicts\.0\.port: .*65535"),
        ("    port: 8001\n", "", 3, r"dicts\.0\.port: is missing"),
        (
            "    port: 8001\n",
            "    port: 8001\n    retiring: {shards: 3, port: 8101}\n",
            3,
            r"dicts\.0\.first_server: is missing: .* such as 3",
        ),
        (
            "    port: 8001\n",
            "    port: 8001\n    first_server: 2\n    retiring: {shards: 3, port: 8101}\n",
            8,
            r"dicts\.0\.first_server: cube_server_2 is also one of dicts\.0\.retiring",
        ),
        (
            "    port: 8001\n",
            "    port: 8001\n    first_server: 3\n    retiring: {shards: 3, port: 8002}\n",
            7,
            r"dicts\.0\.port: 127\.0\.0\.1:8002 of cube_server_4 is also that of cube_server_0",
        ),
        (
            "    port: 8001\n",
            "    port: 8001\n    first_server: 3\n    retiring: {shard: 3, port: 8002}\n",
            9,
            r"dicts\.0\.retiring\.shard: no such field; did you mean shards\?",
        ),
        ("{port: 8098}", "{prot: 8098}", 8, r"transfer\.prot: no such field; did you mean port"),
        (
            "{port: 8098}",
            "{port: 8001}",
            8,
            r"127\.0\.0\.1:8001 of cube_transfer_0 .*cube_server_0",
        ),
        ("{port: 8010}", "{port: 9002}", 11, r"127\.0\.0\.1:9002 of ctr_serving_0"),
        ("{port: 8010}", "{port: 65000}", 11, r"servers\.0\.grpc_port: is missing"),
        ("dict_name: d1", "dict_name: d2", 14, r"ctr\.engines\.0\.dict_name: 'd2' is none"),
        ("dict_name: d1", "dict_name: d1\n      batch_wait_us: 300", 15, r"batch_wait_us: needs"),
        ("in_mem: true", "in_mem: 1", 16, r"flags\.cube_server\.in_mem: must be true or false"),
        ("in_mem: true", "in_mm: true", 16, r"no such flag; did you mean in_mem\?"),
        ("in_mem: true", "port: 1", 16, r"flags\.cube_server\.port: another field"),
        ("in_mem: true", "workers: 0", 16, r"flags\.cube_server\.workers: .*0"),
        ("in_mem: true", "workers: many", 16, r"flags\.cube_server\.workers: .*many"),
        ("in_mem: true", "connections_max: 5", 16, r"write it under limits\.cube_server"),
        ("connections_max: 100", "keep_versions: 3", 19, r"write it under flags\.cube_server"),
        ("connections_max: 100", "connections_max: 0", 19, r"limits\.cube_server\.connections_max"),
        ("/passes/donefile", "'/passes #1'", 4, r"donefile_address: '#' and '//'"),
        ("/passes/donefile", "''", 4, r"donefile_address"),
        ("name: d1", "name: a b", 3, r"dicts\.0\.name: 'a b' has characters"),
        ("host: 127.0.0.1", "host: '::1'", 1, r"host: '::1' has characters"),
        ("replicas: 2", "replicas: 2\n    replicas: 3", 7, r"replicas stands twice"),
        ("replicas: 2", "replicas: [2", 7, r"is not YAML"),
        ("replicas: 2", "replicas: !!int ''", 6, r"'' is no int"),
        ("replicas: 2", "replicas: !!bool x", 6, r"'x' is no bool"),
        ("replicas: 2", "replicas: 2026-99-99", 6, r"'2026-99-99' is no timestamp"),
        ("replicas: 2", "replicas: !!timestamp x", 6, r"'x' is no timestamp"),
        ("in_mem: true", "in_mem: [1]", 16, r"flags\.cube_server\.in_mem: "),
        ("in_mem: true", "log_dir: ' x'", 16, r"must be one line without blanks"),
        ("transfer: {port: 8098}", "build: {qant: int8}", 8, r"qant: .* did you mean quant"),
        ("transfer: {port: 8098}", "build: {quant: int9}", 8, r"quant: .*'int8', not 'int9'"),
        ("name: d1", "name: default", 3, r"'default' is a section of transfer\.conf"),
        ("    - {port: 8010}", "    3", 10, r"ctr\.servers: "),
        ("host: 127.0.0.1", "security: {tls_ca_file: x}", 1, r"tls_ca_file: needs tls_cert_file"),
        ("in_mem: true", "tls_cert_file: x", 16, r"another field of the file says it"),
        ("replicas: 2", "servers: [{port: 1}]", 6, r"servers: takes the place"),
        ("port: 8001", "servers: [{port: 1}]", 7, r"dicts\.0\.servers: names 1; .* need 4"),
        (
            "port: 8001",
            "port: 65535\n    grpc_port: 1",
            7,
            r"dicts\.0\.port: port of server 1 is over 65535",
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int, told: str
) -> None:
    read_cluster(write(tmp_path, GOOD))
    assert GOOD.count(old) >= 1
    path = write(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(ConfError, match=rf"^{re.escape(str(path))}:{line}: .*{told}"):
        read_cluster(path)


def test_two_servers_in_one_directory_are_refused(tmp_path: Path) -> None:
    servers = "servers: [{port: 8001, data_dir: a}, {port: 8002, data_dir: ./a/}]"
    text = GOOD.replace("replicas: 2", "replicas: 1").replace("port: 8001", servers)
    with pytest.raises(ConfError, match=r":7: dicts\.0\.servers\.1\.data_dir: .* cube_server_0"):
        read_cluster(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("- 1", r"cluster\.yml:1: must be a mapping"),
        ("dicts: []", r"cluster\.yml:1: dicts: .*at least 1"),
        ("run_dir: x", r"cluster\.yml:1: dicts: is missing"),
        ("1: 2", r"cluster\.yml:1: a field's name must be a word"),
        ("a: \x07", "is not YAML"),
        ("a: &x [*x]", "is not YAML|NODES_MAX"),
        ("a: !!python/name:os.system ''", r"cluster\.yml:1: is not YAML"),
    ],
)
def test_what_is_no_cluster_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ConfError, match=told):
        read_cluster(write(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfError, match=r"none\.yml: cannot be read"):
        read_cluster(tmp_path / "none.yml")


def test_aliases_that_multiply_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml_source, "NODES_MAX", 1000)
    lines = ["a0: &a0 [1, 1]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}, *a{n - 1}]" for n in range(1, 30)]
    with pytest.raises(ConfError, match="more than NODES_MAX"):
        read_cluster(write(tmp_path, "\n".join(lines)))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_other_text_is_read_or_refused_with_an_error_of_the_file(
    tmp_path: Path, data: st.DataObject
) -> None:
    words = st.sampled_from(
        ["dicts", "ctr", "- ", ": ", "[", "}", "&a", "*a", "<<", "!!int", "1e9"]
    )
    cut = data.draw(st.integers(0, len(GOOD)))
    text = GOOD[:cut] + data.draw(st.lists(words | st.text(max_size=4), max_size=4).map("".join))
    text += GOOD[data.draw(st.integers(cut, len(GOOD))) :]
    path = write(tmp_path, text.encode(errors="replace").decode())
    error: ConfError | None = None
    try:
        read_cluster(path)
    except ConfError as refusal:
        error = refusal
    assert error is None or str(error).startswith(str(path))
