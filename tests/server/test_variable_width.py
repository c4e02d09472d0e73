"""A dict whose values have a width each, asked over every wire."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from cube_api import CubeClient, DictConf
from cube_core._native import write_table
from cube_core.errors import RpcError
from cube_proto import dict_pb2
from tests.processes import Role, running
from tests.server.client import ServerClient
from tests.waiting import wait_until

KEY_COUNT = 3000
WIDEST = 65_535
MISSING = 0xFFFFFFFF
FRAME_BYTES_MAX = 1 << 20


def value_of(key: int) -> bytes:
    """1 to 200 bytes; of every thousandth key as many as there may be."""
    return bytes([key % 251]) * (WIDEST if key % 1000 == 999 else 1 + key % 200)


@pytest.fixture(
    scope="module",
    params=[["--workers=1"], ["--workers=2"], ["--noin_mem"]],
    ids=["one_process", "workers", "mapped"],
)
def role(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Role]:
    directory = tmp_path_factory.mktemp("variable")
    path = directory / "data" / "1_1" / "lists_part0.table"
    path.parent.mkdir(parents=True)
    values = [value_of(key) for key in range(KEY_COUNT)]
    write_table(
        str(path),
        np.arange(KEY_COUNT, dtype=np.uint64),
        np.frombuffer(b"".join(values), np.uint8),
        dict_name="lists",
        version="1_1",
        shard=0,
        shard_num=1,
        value_kind="variable",
        offsets=np.cumsum([0, *map(len, values)], dtype=np.int64),
    )
    (directory / "data" / "VERSION").write_text("1_1")
    flags = ["--port=0", "--grpc_port=0", "--data_dir=data", f"--frame_bytes_max={FRAME_BYTES_MAX}"]
    with running("cube_server.main", [*flags, *request.param], cwd=directory) as role:
        yield role


def test_every_wire_gives_the_same_values(role: Role) -> None:
    keys = [0, 7, 999, KEY_COUNT, 7, 2999]
    expected = [b"" if key >= KEY_COUNT else value_of(key) for key in keys]
    request = dict_pb2.DictRequest(keys=keys, version_required=True)
    with ServerClient(role) as client:
        response = client.seek(keys, version_required=True)
        assert [each.value for each in response.values] == expected
        assert [each.status for each in response.values] == [0, 0, 0, MISSING, 0, 0]
        assert response.version == "1_1"
        reply = client.http.post("/DictService/seek", json={"keys": keys}).json()
        assert [base64.b64decode(each["value"]) for each in reply["values"]] == expected
        proto = client.http.post(
            "/DictService/seek",
            content=request.SerializeToString(),
            headers={"content-type": "application/proto"},
        )
        assert dict_pb2.DictResponse.FromString(proto.content) == response
    with grpc.insecure_channel(f"127.0.0.1:{role.port('grpc_port')}") as channel:
        seek = channel.unary_unary(
            "/rec.mcube.DictService/seek",
            request_serializer=dict_pb2.DictRequest.SerializeToString,
            response_deserializer=dict_pb2.DictResponse.FromString,
        )
        assert seek(request, timeout=10) == response


def test_long_answers_and_those_over_the_limit(role: Role) -> None:
    """The first is answered in a thread; the limit is on what an answer really takes."""
    keys = [key for key in range(KEY_COUNT) if key % 1000 != 999]
    with ServerClient(role) as client:
        assert [each.value for each in client.seek(keys).values] == list(map(value_of, keys))
        problem = rf"of 20 keys take \d+ bytes, over frame_bytes_max {FRAME_BYTES_MAX}"
        with pytest.raises(RpcError, match=problem) as caught:
            client.seek([999] * 20)
        assert caught.value.code == 2004
        assert client.seek([0]).values[0].value == value_of(0)


def test_what_the_server_says_of_the_table(role: Role) -> None:
    with ServerClient(role) as client:
        [table] = client.status()["versions"]
        told = (table["value_kind"], table["value_bytes"], table["value_bytes_max"])
        assert told == ("variable", 0, WIDEST)
        verified = client.command("verify", version="1_1").json()
        assert (verified["value_kind"], verified["key_count"]) == ("variable", KEY_COUNT)


def test_the_client_library_takes_them(role: Role) -> None:
    conf = DictConf.model_validate(
        {
            "dict_name": "lists",
            "shard": 1,
            "timeout": 5000,
            "type": "ipport",
            "nodes": [{"ip": "127.0.0.1", "port": role.port()}],
        }
    )
    keys = np.arange(0, KEY_COUNT + 10, 7, dtype=np.uint64)
    with CubeClient({"lists": conf}) as cube:
        result = cube.seek_bytes("lists", keys, version="1_1")
        for i, key in enumerate(keys.tolist()):
            found = key < KEY_COUNT
            assert result.status[i] == (0 if found else -1)
            assert result.value(i).tobytes() == (value_of(key) if found else b"")


def write_lists(path: Path, values: dict[int, bytes], version: str, deletes: list[int]) -> None:
    """A whole table, or a patch of the base 1_1 if `version` is one."""
    path.parent.mkdir(parents=True)
    is_patch = version != "1_1"
    write_table(
        str(path),
        np.array(list(values), np.uint64),
        np.frombuffer(b"".join(values.values()), np.uint8),
        dict_name="lists",
        version=version,
        shard=0,
        shard_num=1,
        value_kind="variable",
        offsets=np.cumsum([0, *map(len, values.values())], dtype=np.int64),
        base_version="1_1" if is_patch else "",
        deletions=np.array(deletes, np.uint64) if is_patch else None,
    )


@pytest.mark.parametrize("workers", [1, 2])
def test_patches_of_variable_width(tmp_path: Path, workers: int) -> None:
    base = {key: value_of(key) for key in range(300)}
    changes = {3: b"another width", 700: b"new" * 9000, 8: b"x"}
    write_lists(tmp_path / "data/1_1/lists_part0.table", base, "1_1", [])
    write_lists(tmp_path / "data/1_2/lists_part0.table", changes, "1_2", [4, 5])
    write_lists(tmp_path / "data/1_3/lists_part0.table", {5: b"back"}, "1_3", [700])
    (tmp_path / "data" / "VERSION").write_text("1_1")
    expected = {**base, **changes, 4: b"", 5: b""}
    last = {**expected, 5: b"back", 700: b""}
    flags = ["--port=0", "--grpc_port=-1", "--data_dir=data", f"--workers={workers}"]
    keys = [*range(0, 300, 7), 3, 4, 5, 8, 700, 999]
    flags.append("--fold_percent=1")
    with running("cube_server.main", flags, cwd=tmp_path) as role, ServerClient(role) as client:
        client.state("reload_patch", version="1_2")
        response = client.seek(keys, version="1_2")
        assert [each.value for each in response.values] == [expected.get(k, b"") for k in keys]
        [current] = [t for t in client.status()["versions"] if t["role"] == "current"]
        assert current["value_bytes_max"] == 27_000
        client.state("reload_patch", version="1_3")
        response = client.seek(keys)
        assert [each.value for each in response.values] == [last.get(k, b"") for k in keys]
        statuses = [each.status for each in response.values]
        assert statuses == [0 if last.get(k) else MISSING for k in keys]
        data_dir = tmp_path / "data"
        wait_until(lambda: list(data_dir.glob("*/*.folded")), 20, "a patch is folded into the base")
        response = client.seek(keys, version="1_3")
        assert [each.value for each in response.values] == [last.get(k, b"") for k in keys]
