"""The number of rows from which oneDNN runs a model: by CPU time, once for each program."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from ctr_serving.trial import OnednnSwitch

NEVER = 256


class Model:
    """Runs that take CPU time by a clock of their own: a row costs 10 with Paddle's own kernels,
    and with oneDNN 1 on top of what each run costs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, onednn_run_ns: int) -> None:
        self.now_ns = 0
        self.runs: list[tuple[bool, int]] = []
        self._onednn_run_ns = onednn_run_ns
        monkeypatch.setattr(time, "thread_time_ns", lambda: self.now_ns)

    def run(self, with_onednn: bool, rows: int) -> None:
        self.runs.append((with_onednn, rows))
        self.now_ns += self._onednn_run_ns + rows if with_onednn else 10 * rows


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "model.json"
    path.write_text("{}")
    return path


@pytest.mark.parametrize(("onednn_run_ns", "rows_min"), [(0, 1), (20, 4), (100, 16), (9999, NEVER)])
def test_it_is_where_onednn_takes_less(
    monkeypatch: pytest.MonkeyPatch, program: Path, onednn_run_ns: int, rows_min: int
) -> None:
    model = Model(monkeypatch, onednn_run_ns=onednn_run_ns)
    assert OnednnSwitch(never=NEVER).rows_min(program, model.run) == rows_min


def test_the_next_model_of_a_program_is_not_run_for_it(
    monkeypatch: pytest.MonkeyPatch, program: Path, tmp_path: Path
) -> None:
    switch = OnednnSwitch(never=NEVER)
    switch.rows_min(program, Model(monkeypatch, onednn_run_ns=20).run)
    next_pass = tmp_path / "next.json"
    next_pass.write_bytes(program.read_bytes())
    model = Model(monkeypatch, onednn_run_ns=100)
    assert switch.rows_min(next_pass, model.run) == 4
    assert not model.runs
    next_pass.write_text('{"another": "program"}')
    assert switch.rows_min(next_pass, model.run) == 16
    assert model.runs
