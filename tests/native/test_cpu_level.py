"""The kernels use what the CPU has, and answer the same with less."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cube_core._native import cpu_level, cpu_levels

_ROOT = Path(__file__).parents[2]


def _run(directory: Path, level: str) -> subprocess.CompletedProcess[str]:
    directory.mkdir()
    return subprocess.run(
        [sys.executable, "-m", "tests.native.cpu_answers", str(directory)],
        cwd=_ROOT,
        env={**os.environ, "CUBE_CPU": level},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_level_answers_the_same_bytes(tmp_path: Path) -> None:
    answers = {level: _run(tmp_path / level, level) for level in cpu_levels()}
    assert [answer.stderr for answer in answers.values()] == [""] * len(answers)
    found = dict(answer.stdout.split() for answer in answers.values())
    assert list(found) == cpu_levels()
    assert len(set(found.values())) == 1


def test_the_best_level_is_used_unless_another_is_named(tmp_path: Path) -> None:
    assert cpu_levels()[0] == "baseline"
    assert cpu_level() == os.environ.get("CUBE_CPU", cpu_levels()[-1])
    assert _run(tmp_path / "none", "").stdout.split()[0] == cpu_levels()[-1]


def test_a_level_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    answer = _run(tmp_path / "none", "mmx")
    assert answer.returncode != 0
    assert f"CUBE_CPU is 'mmx'; this CPU has: {', '.join(cpu_levels())}" in answer.stderr
