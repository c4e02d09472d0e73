"""The daemon's memory: survives it, belongs to one daemon, stays small."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from cube_core.errors import DeployError
from cube_transfer import state as state_module
from cube_transfer.donefile import parse_donefile
from cube_transfer.state import PassRecord, Stage, State


def _record(pass_id: int, stage: Stage = Stage.NOTICED) -> PassRecord:
    line = f'{{"id":"{pass_id}","key":"{pass_id}","input":"/p","auc":[1,null,"x"]}}\n'
    (entry,) = parse_donefile(line.encode(), "/base.txt").entries
    record = PassRecord.of(entry, pass_id, stage=stage)
    return record.model_copy(update={"reached_at_s": {}, "announced_at_s": 0.0})


def test_records_come_back_as_they_were(tmp_path: Path) -> None:
    state = State(tmp_path)
    assert (state.wanted, state.unfinished(), state.next_order()) == ("", [], 1)
    state.save(_record(1, Stage.SUPERSEDED), _record(2))
    state.save(_record(2, Stage.SWITCHED), wanted="2_2")
    state.close()

    again = State(tmp_path)
    assert again.wanted == "2_2"
    assert [record.id for record in again.records()] == ["2", "1"]
    assert again.records()[1] == _record(1, Stage.SUPERSEDED)
    assert again.unfinished() == [_record(2, Stage.SWITCHED)]
    assert again.next_order() == 3
    assert not again.paused
    again.save(paused=True)
    again.close()
    third = State(tmp_path)
    assert (third.paused, third.wanted) == (True, "2_2")
    third.close()


def test_a_second_daemon_is_refused(tmp_path: Path) -> None:
    state = State(tmp_path)
    with pytest.raises(DeployError, match=r"in use by another cube-transfer \(pid \d+\)"):
        State(tmp_path)
    state.close()
    State(tmp_path).close()


def test_old_records_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(state_module, "RECORDS_KEPT", 3)
    state = State(tmp_path)
    for number in range(1, 7):
        state.save(_record(number, Stage.DONE))
    state.close()
    again = State(tmp_path)
    assert [record.id for record in again.records()] == ["6", "5", "4"]
    again.close()


def test_more_records_than_there_is_room_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """All patches over one base are needed for ever."""
    monkeypatch.setattr(state_module, "MAP_BYTES", 1 << 20)
    caplog.set_level(logging.INFO, "cube_transfer.state")
    records = [
        _record(number, Stage.DONE).model_copy(update={"input": "/p" * 2000})
        for number in range(1, 401)
    ]
    state = State(tmp_path)
    for record in records:
        state.save(record, wanted=record.version)
    state.close()
    assert (tmp_path / "data.mdb").stat().st_size > 1 << 20
    grown = [record.getMessage() for record in caplog.records]
    assert grown == [f"{tmp_path}: more records than before: room for {n} MiB" for n in (2, 4)]

    # A start with the room of before has all of them, and takes more.
    again = State(tmp_path)
    assert again.records() == records[::-1]
    again.save(_record(401), wanted="401_401")
    again.close()


def test_a_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    State(tmp_path).close()
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(DeployError, match="move it away to start afresh") as caught:
        State(tmp_path)
    assert str(tmp_path) in str(caught.value)
    # The refusal gives the directory free again.
    (tmp_path / "data.mdb").unlink()
    State(tmp_path).close()
