"""The texts that the troubleshooting page tells are those that the programs print."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cube_api import CubeClient, SeekTimeoutError, ShardError, VersionNotLoadedError
from cube_api.testing import FakeCluster
from cube_builder import BuildJob, build
from cube_cluster.cluster_file import read_cluster
from cube_core._native import SequenceFileWriter, Table
from cube_core.access import Access, Asker, Right
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.errors import CubeError
from cube_core.versions import Version
from cube_transfer.donefile import parse_donefile
from cube_transfer.listing import bases_that_go_back
from cube_transfer.state import PassRecord, Stage, State
from tests.docs.pages import page

PAGE = " ".join(page("operating/troubleshooting.md").replace("`", "").split())
KEYS = np.arange(100, dtype=np.uint64)
ROWS = np.ones((100, 4), np.float32)


def text_of(provoke: Callable[[], Any], error: type[Exception] = CubeError) -> str:
    with pytest.raises(error) as caught:
        provoke()
    return str(caught.value)


def is_told(words: str) -> bool:
    return " ".join(words.replace("`", "").split()) in PAGE


def write_pass(directory: Path, rows: np.ndarray[Any, Any]) -> Path:
    directory.mkdir()
    writer = SequenceFileWriter(str(directory / "part-00000"))
    writer.append(KEYS, rows.view(np.uint8))
    writer.close()
    return directory


def built(tmp_path: Path, name: str, rows: np.ndarray[Any, Any]) -> Path:
    source = write_pass(tmp_path / name, rows)
    job = BuildJob("ctr_embedding", source, tmp_path / "tables", 1, Version(name, name))
    build(job)
    return job.directory / "ctr_embedding_part0.table"


def test_lines_of_a_donefile() -> None:
    lines = [
        '{"id":"10","key":"10","input":"../10"}',
        '{"id":"11","key":"11"}',
        '{"id":"9","key":"9","input":"../9"}',
    ]
    errors = parse_donefile(("\n".join(lines) + "\n").encode(), "base.txt").errors
    assert [str(error) for error in errors] == [
        "base.txt:2: input: Field required",
        "base.txt:3: out of order: id 9 is below id 10 of line 1",
    ]
    assert is_told("input: Field required")
    assert is_told("out of order: id 9 is below id 10 of line 1")


def test_lines_that_are_older_than_what_was_served(tmp_path: Path) -> None:
    state = State(tmp_path)
    first, old = (
        parse_donefile(f'{{"id":"{n}","input":"../{n}"}}\n'.encode(), "base.txt").entries
        for n in (10, 9)
    )
    state.save(PassRecord.of(first[0], 1, stage=Stage.DONE))
    (error,) = bases_that_go_back(old, state)
    state.close()
    assert is_told(str(error))


def test_passes_that_cannot_be_built(tmp_path: Path) -> None:
    rows = ROWS.copy()
    rows[2, 1] = np.nan
    words = text_of(lambda: built(tmp_path, "1", rows))
    assert is_told(words[words.index("key 2") :])

    source = write_pass(tmp_path / "2", ROWS)
    part = source / "part-00000"
    part.write_bytes(part.read_bytes()[:-5])
    job = BuildJob("ctr_embedding", source, tmp_path / "tables", 1, Version("2", "2"))
    words = text_of(lambda: build(job))
    assert is_told(re.sub(r"^.*part-00000: |\d+\)$", "", words))


def test_a_damaged_table(tmp_path: Path) -> None:
    path = built(tmp_path, "3", ROWS)
    damaged = bytearray(path.read_bytes())
    damaged[700] ^= 1
    path.write_bytes(damaged)
    words = text_of(lambda: Table.open(str(path)))
    assert is_told(words[words.index("block checksum") :])


def test_a_cube_conf_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "cube.conf"
    entry = {"dict_name": "ctr_embedding", "shard": 2, "type": "ipport"}
    node = {"ip": "127.0.0.1", "port": 8001}
    path.write_text(json.dumps([{**entry, "nodes": [node, node]}]))
    words = text_of(lambda: read_cube_conf(path))
    assert is_told(words[words.index("cube.conf: 0") :])
    path.write_text(json.dumps([{**entry, "nodes": [node]}]))
    words = text_of(lambda: read_cube_conf(path))
    assert is_told(words[words.index("cube.conf: 0") :].split(" of type")[0])


def test_seeks_that_fail() -> None:
    with FakeCluster(KEYS, ROWS, shard_num=2) as cluster:
        with CubeClient(cluster.conf(retry=3, timeout=30_000)) as cube:
            words = text_of(lambda: cube.seek("fake", KEYS, version="9_9"), VersionNotLoadedError)
            assert "version '9_9' is not loaded; loaded: " in words
            cluster.kill(1, 0)
            words = text_of(lambda: cube.seek("fake", KEYS), ShardError)
            assert "4 attempts failed, the last: 127.0.0.1:" in words
            assert words.endswith("no connection: Connection refused")
        cluster.hang(0, 0)
        with CubeClient(cluster.conf(timeout=3000)) as cube:
            even = KEYS[::2].copy()
            words = text_of(lambda: cube.seek("fake", even), SeekTimeoutError)
            assert words.startswith("dict 'fake': no answer within 3000 ms from shard 0 (")
    assert is_told("version '10_10' is not loaded; loaded: 21_21, 22_22")
    assert is_told("4 attempts failed, the last: 127.0.0.1:8003: no connection: Connection refused")
    assert is_told("dict 'ctr_embedding': no answer within 200 ms from shard 1 (")


def test_a_field_of_cluster_yml(tmp_path: Path) -> None:
    path = tmp_path / "cluster.yml"
    path.write_text(
        "dicts:\n  - name: d\n    donefile_address: x\n    shards: 1\n    port: 8001\n"
        "    replcas: 2\n"
    )
    words = text_of(lambda: read_cluster(path))
    assert is_told(words[words.index("cluster.yml:6") :])


def test_commands_without_the_right_token() -> None:
    access = Access("token-to-read", "token-to-operate")
    local, remote = "127.0.0.1:1", "10.0.0.7:41234"

    def refused(given: Access, asker: Asker) -> str:
        return text_of(lambda: given.require(asker, Right.OPERATE, "rollback"))

    assert is_told(refused(access, Asker(local)))
    assert is_told(refused(access, Asker(local, "token-to-read")))
    words = refused(Access(), Asker(remote))
    assert is_told(words.partition(" (")[0])
