"""`cube-builder verify` and `diff`."""

from __future__ import annotations

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
