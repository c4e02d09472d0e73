from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube_core._native import Table, crc32c_file, write_table
from cube_core.errors import TableError
from tests.native.fixtures import as_values, build_table, original_rows

UINT64_MAX = 2**64 - 1


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[int], int, int, int]:
    shard_num = draw(st.integers(1, 5))
    shard = draw(st.integers(0, shard_num - 1))
    key = st.one_of(st.integers(0, 60), st.integers(0, UINT64_MAX)).map(
        lambda k: k - k % shard_num + shard if k - k % shard_num + shard <= UINT64_MAX else shard
    )
    keys = draw(st.lists(key, max_size=150))
    return keys, shard, shard_num, draw(st.sampled_from([1, 3, 4, 40, 129]))


@given(pairs(), st.booleans())
@settings(max_examples=150, deadline=None)
def test_pairs_come_back(case: tuple[list[int], int, int, int], in_memory: bool) -> None:
    keys, shard, shard_num, width = case
    key_array = np.array(keys, dtype=np.uint64)
    values = np.random.default_rng(len(keys)).integers(0, 256, (len(keys), width), dtype=np.uint8)
    expected = dict(zip(keys, values.tolist(), strict=True))  # the last of equal keys wins
    with TemporaryDirectory() as directory:
        path = str(Path(directory) / "t.table")
        report = write_table(
            path,
            key_array,
            values,
            dict_name="d",
            version="1_2",
            shard=shard,
            shard_num=shard_num,
        )
        table = Table.open(path, in_memory=in_memory)
        assert report.key_count == table.key_count == len(expected)
        assert report.duplicate_count == len(keys) - len(expected)
        assert report.file_bytes == table.file_bytes == Path(path).stat().st_size
        assert report.crc32c == crc32c_file(path)

        asked = np.array([*keys, 61, UINT64_MAX - 1], dtype=np.uint64)
        found, status = table.get(asked)
        for key, row, key_status in zip(asked.tolist(), found.tolist(), status, strict=True):
            assert key_status == (0 if key in expected else -1)
            assert row == expected.get(key, [0] * width)

        listed: dict[int, list[int]] = {}
        slot = 0
        while slot < table.slot_count:
            some_keys, some_values, slot = table.pairs(slot, 7)
            assert 0 < len(some_keys) <= 7
            listed.update(zip(some_keys.tolist(), some_values.tolist(), strict=True))
        assert listed == expected


def test_header_comes_back(tmp_path: Path) -> None:
    keys = np.array([5, 12, UINT64_MAX // 7 * 7 - 2], dtype=np.uint64)
    values = np.zeros((3, 8), dtype=np.uint8)
    table = build_table(tmp_path / "t", keys, values, version="3_4", shard=5, shard_num=7)
    assert (table.dict_name, table.version) == ("test_dict", "3_4")
    assert (table.shard, table.shard_num, table.value_bytes) == (5, 7, 8)
    assert table.path == str(tmp_path / "t")
    assert table.memory_bytes >= table.file_bytes


def test_one_key_and_no_key(tmp_path: Path) -> None:
    one = build_table(
        tmp_path / "one", np.array([UINT64_MAX], dtype=np.uint64), np.array([[7]], dtype=np.uint8)
    )
    assert one.get(np.array([UINT64_MAX, 0], dtype=np.uint64))[1].tolist() == [0, -1]
    none = build_table(
        tmp_path / "none", np.empty(0, dtype=np.uint64), np.empty((0, 4), dtype=np.uint8)
    )
    assert none.key_count == none.slot_count == 0
    assert none.get(np.array([0, 1], dtype=np.uint64))[1].tolist() == [-1, -1]
    assert none.pairs(0, 10)[2] == 0


def test_a_million_keys_cost_under_nine_bytes_each(tmp_path: Path) -> None:
    keys = np.random.default_rng(7).integers(0, 2**63, 1_000_000, dtype=np.uint64) * np.uint64(2)
    keys = np.unique(keys)
    rows = original_rows(keys)
    path = tmp_path / "t"
    report = write_table(
        str(path), keys, as_values(rows), dict_name="d", version="1_1", shard=0, shard_num=2
    )
    assert report.overhead_bytes_per_key < 9
    table = Table.open(str(path))
    assert table.memory_bytes - 40 * len(keys) < 9 * len(keys)
    values, status = table.get(keys)
    assert not status.any()
    assert np.array_equal(values, as_values(rows))
    _, status = table.get(keys + np.uint64(1))
    assert (status == -1).all()


def test_wide_values_cost_no_more_a_key(tmp_path: Path) -> None:
    keys = np.arange(2000, dtype=np.uint64)
    values = np.zeros((2000, 4096), dtype=np.uint8)
    report = write_table(
        str(tmp_path / "t"), keys, values, dict_name="d", version="1_1", shard=0, shard_num=1
    )
    assert report.overhead_bytes_per_key < 9


def test_equal_pairs_give_equal_files_whatever_their_order(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    keys = np.unique(rng.integers(0, 2**64, 50_000, dtype=np.uint64))
    rows = original_rows(keys)
    order = rng.permutation(len(keys))
    build_table(tmp_path / "a", keys, as_values(rows))
    build_table(tmp_path / "b", keys[order], as_values(rows[order]))
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_tables_of_other_values_have_another_checksum(tmp_path: Path) -> None:
    keys = np.arange(100, dtype=np.uint64)
    checksums = set()
    for value in range(20):
        values = np.full((100, 4), value, dtype=np.uint8)
        report = write_table(
            str(tmp_path / "t"), keys, values, dict_name="d", version="1_1", shard=0, shard_num=1
        )
        checksums.add(report.crc32c)
    assert len(checksums) == 20


def test_what_is_not_a_table_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    keys = np.array([0, 2, 4], dtype=np.uint64)
    values = np.zeros((3, 4), dtype=np.uint8)

    def write(keys: object = keys, values: object = values, **changes: object) -> None:
        names = {"dict_name": "d", "version": "1_1", "shard": 0, "shard_num": 2, **changes}
        write_table(str(tmp_path / "t"), keys, values, **names)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match=r"keys\[1\] = 3 is of shard 1, not of shard 0 of 2"):
        write(keys=np.array([0, 3, 4], dtype=np.uint64))
    with pytest.raises(ValueError, match="values has 2 rows for 3 keys"):
        write(values=values[:2])
    with pytest.raises(ValueError, match="value_bytes 0"):
        write(values=values[:, :0].copy())
    with pytest.raises(ValueError, match="value_bytes 65536"):
        write(values=np.zeros((3, 65536), dtype=np.uint8))
    with pytest.raises(ValueError, match="values must have 2 dimension"):
        write(values=values.reshape(-1))
    with pytest.raises(ValueError, match="shard 2 is not below shard_num 2"):
        write(shard=2)
    with pytest.raises(ValueError, match="shard_num 0"):
        write(shard_num=0)
    with pytest.raises(ValueError, match="dict_name"):
        write(dict_name="")
    with pytest.raises(ValueError, match="version"):
        write(version="1" * 161)
    with pytest.raises(TypeError):
        write(keys=keys.astype(np.int64))
    with pytest.raises(TypeError):
        write(values=np.zeros((3, 8), dtype=np.uint8)[:, ::2])
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "t"
    target.mkdir()  # nothing can be renamed over it
    keys = np.arange(10, dtype=np.uint64)
    with pytest.raises(OSError, match=r"directory") as caught:
        build_table(target, keys, np.zeros((10, 4), dtype=np.uint8))
    assert caught.value.filename == str(target)
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(FileNotFoundError):
        build_table(tmp_path / "no" / "t", keys, np.zeros((10, 4), dtype=np.uint8))
    with pytest.raises(FileNotFoundError):
        Table.open(str(tmp_path / "nothing"))
    with pytest.raises(IsADirectoryError):
        Table.open(str(target))


def test_a_replaced_file_does_not_touch_an_open_table(tmp_path: Path) -> None:
    keys = np.arange(100, dtype=np.uint64)
    build_table(tmp_path / "t", keys, as_values(original_rows(keys)))
    mapped = Table.open(str(tmp_path / "t"), in_memory=False)
    build_table(tmp_path / "t", keys, np.zeros((100, 40), dtype=np.uint8))
    values, _ = mapped.get(keys)
    assert np.array_equal(values, as_values(original_rows(keys)))


@pytest.mark.parametrize("options", [{"shared": True}, {"in_memory": False}], ids=str)
def test_another_process_attaches_to_the_same_memory(
    tmp_path: Path, options: dict[str, bool]
) -> None:
    """The descriptor goes over a socket; nothing is copied and nothing can be written."""
    path = tmp_path / "t.table"
    keys = np.arange(200_000, dtype=np.uint64)
    values = keys.astype(np.uint32)[:, None].view(np.uint8)
    write_table(str(path), keys, values, dict_name="d", version="1_1", shard=0, shard_num=1)
    table = Table.open(str(path), **options)
    code = (
        "import socket, sys, numpy as np\n"
        "from cube_core._native import Table\n"
        "channel = socket.socket(fileno=int(sys.argv[1]))\n"
        "path, (descriptor,), _, _ = socket.recv_fds(channel, 4096, 1)\n"
        "table = Table.attach(path.decode(), descriptor)\n"
        "values, status = table.get(np.array([7, 199_999, 200_000], np.uint64))\n"
        "print(table.key_count, values.view(np.uint32).ravel().tolist(), status.tolist())\n"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs:
        socket.send_fds(ours, [str(path).encode()], [table.descriptor])
        done = subprocess.run(
            [sys.executable, "-c", code, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.stdout.strip() == "200000 [7, 199999, 0] [0, 0, -1]", done.stderr
    assert Table.open(str(path)).descriptor == -1


def test_attaches_to_nothing_that_is_no_table(tmp_path: Path) -> None:
    for content in (b"", b"x" * 100, b"x" * 4096):
        path = tmp_path / "no.table"
        path.write_bytes(content)
        with path.open("rb") as file, pytest.raises(TableError, match=r"no\.table"):
            Table.attach(str(path), file.fileno())
    with pytest.raises(OSError, match="descriptor"):
        Table.attach("gone.table", 9999)
    with pytest.raises(ValueError, match="mapped"):
        Table.open(str(path), in_memory=False, shared=True)
