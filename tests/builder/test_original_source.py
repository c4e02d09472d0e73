"""Directories of shards of the original cube-builder as input, put together byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from cube_builder import build
from cube_builder.manifest import write_manifest
from cube_core.errors import BuildError
from tests.builder.passes import job, tables_of, tree

Pair = tuple[int, bytes]


def write_original(directory: Path, pairs: list[Pair], *, files: int = 2) -> None:
    """Pairs dealt in turn over so many index files and one data file more."""
    directory.mkdir(parents=True)
    data = [b""] * (files + 1)
    index = [b""] * files
    for number, (key, value) in enumerate(pairs):
        in_data = number % len(data)
        address = in_data << 32 | len(data[in_data])
        data[in_data] += struct.pack("<I", 4 + len(value)) + value
        slot = number * files // len(pairs)
        index[slot] += struct.pack("<QQ", key, address)
    for number, content in enumerate(data):
        (directory / f"data.{number}").write_bytes(content)
    for number, content in enumerate(index):
        (directory / f"index.{number}").write_bytes(content)
    (directory / "data.n").write_bytes(struct.pack(f"<I{len(data)}I", len(data), *map(len, data)))
    (directory / "index.n").write_bytes(
        struct.pack("<III", 0, len(pairs), files) + struct.pack(f"<{files}Q", *map(len, index))
    )


def write_pass(directory: Path) -> dict[int, bytes]:
    """What `out/<depend>_<cur>` of the original looks like, with the archives beside the shards."""
    expected: dict[int, bytes] = {}
    for shard in range(3):
        pairs = [(key, struct.pack("<3I", key, shard, 7)) for key in range(shard, 1000, 3)]
        write_original(directory / f"test_dict_part{shard}", pairs, files=1 + shard)
        (directory / f"test_dict_part{shard}.tar").write_bytes(b"tar")
        (directory / f"test_dict_part{shard}.tar.md5").write_text("0")
        expected.update(pairs)
    return expected


def test_builds_what_the_original_wrote(tmp_path: Path) -> None:
    expected = write_pass(tmp_path / "pass")
    made = job(tmp_path, shard_num=4)
    report = build(made)
    assert (report.record_count, report.value_bytes) == (1000, 12)
    pairs = {
        key: row for _, shard in tables_of(made, report).values() for key, row in shard.items()
    }
    assert pairs == expected


def test_one_shard_alone_and_its_later_pairs_win(tmp_path: Path) -> None:
    write_original(tmp_path / "pass", [(1, b"old!"), (2, b"two!"), (1, b"new!")])
    made = job(tmp_path, shard_num=1)
    report = build(made)
    assert tables_of(made, report)[0][1] == {1: b"new!", 2: b"two!"}
    assert report.shards[0].duplicate_count == 1


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("data.n", None, "data.n: no such file"),
        ("index.1", None, "index.1: no such file, but index.n says 16 bytes"),
        ("data.0", b"\x08\x00\x00\x00", "data.0: 4 bytes, but data.n says 8 bytes"),
        ("index.n", b"\x00", "index.n: cut off or malformed"),
        ("index.n", struct.pack("<III", 0, 3, 9), "index.n: lists 0 of 9 files"),
        ("index.n", struct.pack("<IIIQ", 1, 3, 1, 32), "an index of type 1; only hash"),
        ("data.0", struct.pack("<I", 4) * 2, "key 1: a value of 0 bytes"),
        ("data.1", struct.pack("<II", 7, 0), "key 2: a value of 3 bytes; the first has 4"),
        ("index.1", struct.pack("<QQ", 3, 9 << 32), "key 3: its address, 0 in data.9"),
        ("index.1", struct.pack("<QQ", 3, 5), "key 3: its address, 5 in data.0"),
    ],
)
def test_malformed_shards_are_refused(
    tmp_path: Path, name: str, content: bytes | None, problem: str
) -> None:
    write_original(tmp_path / "pass", [(1, b"one!"), (2, b"two!"), (3, b"thr!")])
    if content is None:
        (tmp_path / "pass" / name).unlink()
    else:
        (tmp_path / "pass" / name).write_bytes(content)
    before = tree(tmp_path)
    with pytest.raises(BuildError) as caught:
        build(job(tmp_path))
    assert problem in str(caught.value)
    assert str(caught.value).startswith(f"{tmp_path}/pass")
    assert tree(tmp_path) == before


def test_every_length_of_a_list_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    write_original(tmp_path / "pass", [(1, b"one!"), (2, b"two!")])
    for name in ("index.n", "data.n"):
        whole = (tmp_path / "pass" / name).read_bytes()
        for size in range(len(whole)):
            (tmp_path / "pass" / name).write_bytes(whole[:size])
            with pytest.raises(BuildError, match=rf"{name}: "):
                build(job(tmp_path))
        (tmp_path / "pass" / name).write_bytes(whole)


def test_a_manifest_of_shards_of_the_original(tmp_path: Path) -> None:
    write_original(tmp_path / "pass" / "dict_part0", [(1, b"one!"), (2, b"two!")])
    names = [f"dict_part0/{path.name}" for path in (tmp_path / "pass" / "dict_part0").iterdir()]
    write_manifest(tmp_path / "pass", names)
    assert build(job(tmp_path)).record_count == 2
    (tmp_path / "pass" / "dict_part0" / "data.9").write_bytes(b"more")
    with pytest.raises(BuildError, match=r"dict_part0/data\.9: 4 bytes, but .*no such file"):
        build(job(tmp_path))
