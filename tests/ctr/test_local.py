"""The embedding in the process: shard tables or LMDB, pass after pass, without shard servers."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ctr_serving.local_tables import LocalTables
from cube_api import STATUS_FOUND, STATUS_MISSING, STATUS_WRONG_WIDTH
from cube_core._native import Table, merge_tables, write_table
from cube_core.errors import ModelError, VersionNotLoadedError
from tests.ctr.local import write_lmdb, write_shard_tables
from tests.ctr.models import (
    DENSE_DIM,
    DICT_NAME,
    ROW_COUNT,
    SLOTS,
    direct_probabilities,
    embedding,
    make_model,
    publish,
    requests_of,
    write_manifest,
)
from tests.ctr.service import ctr_running, write_conf
from tests.waiting import wait_until

Write = Callable[..., None]
FORMATS = pytest.mark.parametrize("write", [write_shard_tables, write_lmdb])
KEYS = np.array([0, 1, 5, 2**63, 2**64 - 1], np.uint64)
ROWS = np.arange(20, dtype=np.float32).reshape(5, 4)


@FORMATS
async def test_keys_are_found_in_both_formats(tmp_path: Path, write: Write) -> None:
    write(tmp_path, "1_1", KEYS, ROWS, dict_name="d")
    tables = LocalTables(tmp_path)
    held = await tables.prepare("d", "1_1", 4)
    asked = np.array([-1, 1, 2, 5, 1, 0], np.int64)
    found = await tables.seek("d", asked, version="1_1", dim=4)
    assert found.status.tolist() == [STATUS_FOUND] * 2 + [STATUS_MISSING] + [STATUS_FOUND] * 3
    np.testing.assert_array_equal(
        found.rows, [ROWS[4], ROWS[1], [0] * 4, ROWS[2], ROWS[1], ROWS[0]]
    )
    assert found.version == "1_1"
    del held


@given(
    keys=arrays(np.uint64, st.integers(1, 40), unique=True),
    asked=arrays(np.uint64, st.integers(0, 40)),
    shard_num=st.integers(1, 4),
)
@settings(max_examples=25, deadline=None)
async def test_shards_together_answer_as_one_table(
    tmp_path_factory: pytest.TempPathFactory, keys: Any, asked: Any, shard_num: int
) -> None:
    root = tmp_path_factory.mktemp("tables")
    rows = np.random.default_rng(0).normal(size=(len(keys), 3)).astype(np.float32)
    write_shard_tables(root, "7_7", keys, rows, dict_name="d", shard_num=shard_num)
    tables = LocalTables(root)
    held = await tables.prepare("d", "7_7", 3)
    asked = np.concatenate([asked, keys[::2]])
    found = await tables.seek("d", asked, version="7_7", dim=3)
    wanted = dict(zip(keys.tolist(), rows.tolist(), strict=True))
    assert found.rows.tolist() == [wanted.get(key, [0.0] * 3) for key in asked.tolist()]
    assert (found.status == STATUS_FOUND).tolist() == [key in wanted for key in asked.tolist()]
    del held


@FORMATS
async def test_many_keys_are_answered_off_the_loop(tmp_path: Path, write: Write) -> None:
    keys = np.arange(100, dtype=np.uint64)
    write(
        tmp_path, "1_1", keys, np.repeat(keys, 2).reshape(-1, 2).astype(np.float32), dict_name="d"
    )
    tables = LocalTables(tmp_path)
    held = await tables.prepare("d", "1_1", 2)
    asked = np.random.default_rng(0).integers(0, 100, 10_000)
    found = await tables.seek("d", asked, version="1_1", dim=2)
    np.testing.assert_array_equal(found.rows[:, 1], asked)
    del held


async def test_a_version_is_open_as_long_as_it_is_held(tmp_path: Path) -> None:
    write_shard_tables(tmp_path, "1_1", KEYS, ROWS, dict_name="d")
    tables = LocalTables(tmp_path)
    with pytest.raises(VersionNotLoadedError, match="version 1_1 is not open"):
        await tables.seek("d", KEYS, version="1_1", dim=4)
    held = await tables.prepare("d", "1_1", 4)
    shutil.rmtree(tmp_path / "1_1")
    again = await tables.prepare("d", "1_1", 4)
    is_shared = again is held
    assert is_shared
    found = await tables.seek("d", KEYS, version="1_1", dim=4)
    np.testing.assert_array_equal(found.rows, ROWS)
    del held, again
    with pytest.raises(VersionNotLoadedError):
        await tables.seek("d", KEYS, version="1_1", dim=4)


def remove_all(folder: Path) -> None:
    shutil.rmtree(folder)


def remove_shard(folder: Path) -> None:
    (folder / "d_part1.table").unlink()


def damage_shard(folder: Path) -> None:
    path = folder / "d_part1.table"
    path.write_bytes(path.read_bytes()[:100])


def swap_shards(folder: Path) -> None:
    (folder / "d_part0.table").rename(folder / "x")
    (folder / "d_part1.table").rename(folder / "d_part0.table")
    (folder / "x").rename(folder / "d_part1.table")


def of_another_version(folder: Path) -> None:
    shutil.rmtree(folder)
    write_shard_tables(folder.parent, "2_2", KEYS, ROWS, dict_name="d")
    (folder.parent / "2_2").rename(folder)


def no_floats(folder: Path) -> None:
    shutil.rmtree(folder)
    bytes_rows: Any = np.zeros((5, 7), np.uint8)
    write_shard_tables(folder.parent, "1_1", KEYS, bytes_rows, dict_name="d")


def both_formats(folder: Path) -> None:
    write_lmdb(folder.parent, "1_1", KEYS, ROWS, dict_name="d")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_all, "has neither d_part0.table nor d.lmdb"),
        (remove_shard, "d_part1.table: is missing, of 2 shards"),
        (damage_shard, "d_part1.table: "),
        (swap_shards, "d_part0.table: is shard 1 of 2, not 0 of 2"),
        (of_another_version, "is of dict d, version 2_2, not of d, 1_1"),
        (no_floats, "values of 7 bytes are no floats"),
        (both_formats, "holds d as shard tables and as LMDB: remove one"),
    ],
)
async def test_tables_that_cannot_be_used_are_named(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    write_shard_tables(tmp_path, "1_1", KEYS, ROWS, dict_name="d")
    damage(tmp_path / "1_1")
    with pytest.raises(ModelError, match=re.escape(message)):
        await LocalTables(tmp_path).prepare("d", "1_1", 4)


@FORMATS
async def test_another_width_is_refused(tmp_path: Path, write: Write) -> None:
    write(tmp_path, "1_1", KEYS, ROWS, dict_name="d")
    with pytest.raises(ModelError, match="are 4 floats wide, the model takes 9"):
        await LocalTables(tmp_path).prepare("d", "1_1", 9)


async def test_tables_of_any_width_are_judged_value_by_value(tmp_path: Path) -> None:
    (tmp_path / "1_1").mkdir()
    write_table(
        str(tmp_path / "1_1" / "d_part0.table"),
        np.array([1, 2, 3], np.uint64),
        np.arange(5, dtype=np.float32).view(np.uint8),
        value_kind="variable",
        offsets=np.array([0, 8, 12, 20], np.int64),
        dict_name="d",
        version="1_1",
        shard=0,
        shard_num=1,
    )
    tables = LocalTables(tmp_path)
    held = await tables.prepare("d", "1_1", 2)
    asked = np.array([3, 2, 1, 4], np.uint64)
    found = await tables.seek("d", asked, version="1_1", dim=2)
    assert found.rows.tolist() == [[3, 4], [0, 0], [0, 1], [0, 0]]
    assert found.status.tolist() == [0, STATUS_WRONG_WIDTH, 0, STATUS_MISSING]
    del held


def write_delta(path: Path, values: float, *, deletions: Sequence[int] = ()) -> None:
    path.parent.mkdir(exist_ok=True)
    write_table(
        str(path),
        np.array([1], np.uint64),
        np.full((1, 4), values, np.float32).view(np.uint8),
        dict_name="d",
        version=path.parent.name,
        shard=0,
        shard_num=1,
        base_version="1_1",
        deletions=np.array(deletions, np.uint64),
    )


async def test_a_patch_is_taken_as_a_server_laid_it_over_its_base(tmp_path: Path) -> None:
    write_shard_tables(tmp_path, "1_1", KEYS, ROWS, dict_name="d", shard_num=1)
    shipped = tmp_path / "1_2" / "d_part0.table"
    write_delta(shipped, 7, deletions=[5])
    tables = LocalTables(tmp_path)
    with pytest.raises(ModelError, match=r"d_part0\.table: is a patch by itself"):
        await tables.prepare("d", "1_2", 4)
    write_delta(shipped.with_suffix(".over_1_1"), 7, deletions=[5])
    held = await tables.prepare("d", "1_2", 4)
    found = await tables.seek("d", np.array([0, 1, 5], np.uint64), version="1_2", dim=4)
    assert found.rows.tolist() == [ROWS[0].tolist(), [7.0] * 4, [0.0] * 4]
    assert found.status.tolist() == [STATUS_FOUND, STATUS_FOUND, STATUS_MISSING]
    del held
    whole = Table.open(str(tmp_path / "1_1" / "d_part0.table"))
    delta = Table.open(str(shipped.with_suffix(".over_1_1")))
    merge_tables(str(shipped.with_suffix(".folded")), [whole, delta], version="1_2")
    shutil.rmtree(tmp_path / "1_1")
    held = await tables.prepare("d", "1_2", 4)
    again = await tables.seek("d", np.array([0, 1, 5], np.uint64), version="1_2", dim=4)
    np.testing.assert_array_equal(again.rows, found.rows)
    del held


async def test_lmdb_is_judged_value_by_value(tmp_path: Path) -> None:
    write_lmdb(tmp_path, "1_1", KEYS, ROWS, dict_name="d")
    with (
        lmdb.open(str(tmp_path / "1_1" / "d.lmdb"), map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put((5).to_bytes(8, "little"), b"short")
    tables = LocalTables(tmp_path)
    held = await tables.prepare("d", "1_1", 4)
    found = await tables.seek("d", np.array([1, 5], np.uint64), version="1_1", dim=4)
    assert found.status.tolist() == [STATUS_FOUND, STATUS_WRONG_WIDTH]
    del held


async def test_no_lmdb_is_refused(tmp_path: Path) -> None:
    (tmp_path / "1_1").mkdir()
    (tmp_path / "1_1" / "d.lmdb").write_bytes(b"no lmdb" * 1000)
    with pytest.raises(ModelError, match=r"d\.lmdb: cannot be opened as LMDB"):
        await LocalTables(tmp_path).prepare("d", "1_1", 4)
    write_short_keys(tmp_path)
    with pytest.raises(ModelError, match="has a key of 3 bytes, not 8"):
        await LocalTables(tmp_path).prepare("d", "3_3", 4)


def write_short_keys(root: Path) -> None:
    (root / "3_3").mkdir()
    with (
        lmdb.open(str(root / "3_3" / "d.lmdb"), map_size=1 << 24) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.put(b"abc", b"\0" * 16)


def set_source(root: Path, kind: str, table_name: str) -> None:
    path = root / "model_toolkit.prototxt"
    text = path.read_text().replace("REMOTE", kind)
    path.write_text(text.replace(f'"{DICT_NAME}"', f'"{table_name}"'))
    (root / "cube.conf").unlink()


def write_pass(write: Write, root: Path, seed: int) -> None:
    keys = np.arange(ROW_COUNT, dtype=np.uint64)
    rows = embedding(keys.view(np.int64), seed)
    write(root, f"{seed}_{seed}", keys, rows, dict_name=DICT_NAME)


@FORMATS
def test_a_predictor_follows_passes_without_shard_servers(
    models: dict[int, Path], tmp_path: Path, write: Write
) -> None:
    write_conf(tmp_path, [8001, 8002])
    set_source(tmp_path, "LOCAL", f"./tables/{DICT_NAME}")
    write_pass(write, tmp_path / "tables", 1)
    publish(tmp_path / "model", models[1])
    ids, dense = requests_of(50, missing=True)
    with ctr_running(tmp_path) as ctr, ctr.client() as client:
        wait_until(lambda: ctr.model_version() == "1_1", what="model 1 served")
        assert ctr.status()["sparse_param_service_type"] == "LOCAL"

        def check(seed: int) -> None:
            wanted = direct_probabilities(models[seed], embedding(ids, seed), dense)
            np.testing.assert_allclose(client.predict(ids, dense), wanted, atol=1e-6, rtol=0)

        check(1)
        assert ctr.status()["missing_keys"] == (ids < 0).sum()
        publish(tmp_path / "model", models[2])
        wait_until(lambda: "tables/2_2: has neither" in ctr.status()["problem"], what="the reason")
        check(1)
        write_pass(write, tmp_path / "new", 2)
        (tmp_path / "new" / "2_2").rename(tmp_path / "tables" / "2_2")
        wait_until(lambda: ctr.model_version() == "2_2", what="model 2 served")
        check(2)


def test_a_dense_model_needs_no_embedding(models: dict[int, Path], tmp_path: Path) -> None:
    write_conf(tmp_path, [8001, 8002])
    set_source(tmp_path, "NONE", "")
    model = tmp_path / "dense_only"
    make_model(model, seed=3, slots=0)
    write_manifest(model, "1_1", embedding_dim=0, sparse_inputs=[], dict_name=None)
    publish(tmp_path / "model", model)
    ids, dense = requests_of(5)
    with ctr_running(tmp_path) as ctr, ctr.client() as client:
        wait_until(ctr.model_version, what="the model served")
        found = client.predict(ids, dense)
        wanted = direct_probabilities(model, np.empty((5, 0, 1), np.float32), dense)
        np.testing.assert_allclose(found, wanted, atol=1e-6, rtol=0)
        assert ctr.status()["missing_keys"] == 0
        write_manifest(model, "1_1", slots=0, embedding_dim=0, sparse_inputs=[])
        publish(tmp_path / "model", model)
        wait_until(lambda: ctr.status()["switches"] == 2, what="the model without ids")
        no_ids = np.empty((5, 0), np.int64)
        np.testing.assert_array_equal(client.predict(no_ids, dense), found)
        publish(tmp_path / "model", models[1])
        wait_until(
            lambda: "sparse_param_service_type is NONE" in ctr.status()["problem"], what="refused"
        )
        assert dense.shape == (5, DENSE_DIM)
        assert ids.shape == (5, SLOTS)
