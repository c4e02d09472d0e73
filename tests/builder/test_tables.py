"""`cube-builder verify` and `diff`."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from cube_builder import build
from cube_builder.main import app
from cube_core import command_line
from tests.builder.passes import job, write_part


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as exited:
        command_line.run(app, arguments)
    assert isinstance(exited.value.code, int)
    return exited.value.code


def built(
    directory: Path, version: str, pairs: dict[int, int], shard_num: int = 2, width: int = 8
) -> Path:
    keys = np.array(list(pairs), np.uint64)
    values = np.repeat(np.array(list(pairs.values()), np.uint8)[:, None], width, axis=1)
    write_part(directory / f"pass-{version}", keys, values)
    made = job(directory, shard_num, f"pass-{version}", version)
    build(made)
    return made.directory


OLD = dict.fromkeys(range(100), 1)
NEW = {**dict.fromkeys(range(3, 100), 1), 5: 2, 7: 2, 1000: 9}


@pytest.mark.parametrize("shard_num", [2, 5])
def test_diff_tells_what_two_versions_do_not_share(
    tmp_path: Path, shard_num: int, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = built(tmp_path, "1", OLD), built(tmp_path, "2", NEW, shard_num)
    assert run("diff", str(old), str(new)) == 0
    *keys, summary = capsys.readouterr().out.splitlines()
    assert sorted(keys) == [
        "added 1000",
        *("changed 5", "changed 7"),
        *("removed 0", "removed 1", "removed 2"),
    ]
    assert summary == "1 added, 3 removed, 2 changed, 95 equal"
    assert run("diff", str(old), str(new), "--limit=1") == 0
    kinds = [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert sorted(kinds) == ["added", "changed", "removed"]
    assert run("diff", str(new), str(new), "--limit=0") == 0
    assert capsys.readouterr().out == "0 added, 0 removed, 0 changed, 98 equal\n"


def test_diff_of_other_widths_and_of_single_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = built(tmp_path, "1", OLD), built(tmp_path, "2", OLD, width=4)
    assert run("diff", str(old), str(new), "--limit=0") == 0
    assert capsys.readouterr().out == "0 added, 0 removed, 100 changed, 0 equal\n"
    part = "test_dict_part1.table"
    assert run("diff", str(old / part), str(new / part), "--limit=0") == 0
    assert capsys.readouterr().out == "0 added, 0 removed, 50 changed, 0 equal\n"


def test_diff_of_what_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = built(tmp_path, "1", OLD), built(tmp_path, "2", NEW)
    assert run("diff", str(old), str(new / "test_dict_part1.table")) == 2
    assert "test_dict_part1.table: has no table of shard 0 of 2" in capsys.readouterr().err
    assert run("diff", str(old), str(tmp_path / "none")) == 2
    assert "none: no such file or directory" in capsys.readouterr().err
    assert run("diff", str(tmp_path), str(new)) == 2
    assert "holds no table" in capsys.readouterr().err
    (new / "test_dict_part9.table").write_bytes((old / "test_dict_part0.table").read_bytes())
    assert run("diff", str(old), str(new)) == 2
    assert "not those of one version" in capsys.readouterr().err


def test_verify_names_what_is_damaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = built(tmp_path, "1", OLD), built(tmp_path, "2", NEW)
    assert run("verify", str(old), str(new / "test_dict_part0.table")) == 0
    out = capsys.readouterr().out.splitlines()
    assert len(out) == 3
    assert out[1] == (
        f"ok {old}/test_dict_part1.table: test_dict 1_1, shard 1 of 2, 50 keys of 8 bytes"
    )
    table = new / "test_dict_part1.table"
    whole = table.read_bytes()
    for damaged in (whole[:-1], whole[:600] + b"\xff" + whole[601:], b""):
        table.write_bytes(damaged)
        assert run("verify", str(old), str(new)) == 2
        captured = capsys.readouterr()
        assert len(captured.out.splitlines()) == 3
        assert captured.err.startswith(f"damaged {table}: ")
        assert "1 of the tables are damaged" in captured.err


def test_verify_compares_with_the_report_beside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = built(tmp_path, "1", OLD)
    report = directory / "build.json"
    fields = json.loads(report.read_text())
    fields["shards"][0]["crc32c"] ^= 1
    report.write_text(json.dumps(fields))
    assert run("verify", str(directory)) == 2
    assert "keys, bytes and CRC32C are" in capsys.readouterr().err
    (directory / "test_dict_part0.table").rename(directory / "other.table")
    assert run("verify", str(directory / "other.table")) == 2
    assert "not among the tables of build.json" in capsys.readouterr().err
    report.unlink()
    assert run("verify", str(directory / "other.table")) == 0


def patched(directory: Path, version: str, changes: dict[int, int | None]) -> Path:
    """A delta over version 1; None deletes."""
    lines = [
        f"{key}:{'' if value is None else f'{value} {value}'}" for key, value in changes.items()
    ]
    text, pass_path = directory / "lines", directory / f"pass-{version}"
    text.write_text("\n".join(lines))
    pass_path.mkdir()
    assert run("text", f"--input_path={text}", f"--output_path={pass_path / 'part'}") == 0
    made = dataclasses.replace(job(directory, 2, pass_path.name, f"1_{version}"), delta=True)
    build(made)
    return made.directory


def test_a_delta_is_compared_by_what_it_makes_of_its_base(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = built(tmp_path, "1", OLD)
    patch = patched(tmp_path, "2", {0: None, 1: None, 5: 2, 2000: None, 1001: 1})
    capsys.readouterr()
    assert run("diff", str(base), str(patch)) == 0
    *keys, summary = capsys.readouterr().out.splitlines()
    assert sorted(keys) == ["added 1001", "changed 5", "removed 0", "removed 1"]
    assert summary == "1 added, 2 removed, 1 changed, 97 equal"
    assert run("diff", str(patch), str(base), "--limit=0") == 0
    assert capsys.readouterr().out == "2 added, 1 removed, 1 changed, 97 equal\n"
    part = "test_dict_part1.table"
    assert run("diff", str(base / part), str(patch / part), "--limit=0") == 0
    assert capsys.readouterr().out == "1 added, 1 removed, 1 changed, 48 equal\n"


def test_two_deltas_are_compared_change_by_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built(tmp_path, "1", OLD)
    older = patched(tmp_path, "2", {0: None, 1: None, 5: 2, 6: 2, 7: 2})
    newer = patched(tmp_path, "3", {0: None, 1: 1, 5: None, 6: 2, 8: None})
    capsys.readouterr()
    assert run("diff", str(older), str(newer)) == 0
    *keys, summary = capsys.readouterr().out.splitlines()
    assert sorted(keys) == ["added 8", "changed 1", "changed 5", "removed 7"]
    assert summary == "1 added, 1 removed, 2 changed, 2 equal"


def test_a_delta_over_something_else_cannot_be_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built(tmp_path, "1", OLD)
    patch = patched(tmp_path, "2", {0: None})
    other = built(tmp_path, "3", OLD)
    assert run("diff", str(other), str(patch)) == 2
    assert "base_version is '1_1', that of" in capsys.readouterr().err
    assert run("diff", str(other / "test_dict_part0.table"), str(patch)) == 2
    assert "are deltas, which can be compared with those of the same" in capsys.readouterr().err


def test_a_delta_is_verified_and_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = patched(tmp_path, "2", {0: None, 4: None, 6: 3, 5: 2})
    capsys.readouterr()
    assert run("verify", str(patch)) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == (
        f"ok {patch}/test_dict_part0.table: test_dict 1_2, shard 0 of 2, 3 keys of 8 bytes, "
        "2 of them deleted, over 1_1"
    )
    assert second.endswith("1 keys of 8 bytes, 0 of them deleted, over 1_1")
    for path in (patch, tmp_path / "pass-2"):
        assert run("cat", str(path)) == 0
        lines = capsys.readouterr().out.splitlines()
        assert sorted(lines) == ["0:", "4:", "5:2.0 2.0", "6:3.0 3.0"]
    table = patch / "test_dict_part0.table"
    damaged = bytearray(table.read_bytes())
    damaged[600] ^= 1
    table.write_bytes(damaged)
    assert run("verify", str(patch)) == 2
    assert "block checksum mismatch" in capsys.readouterr().err
