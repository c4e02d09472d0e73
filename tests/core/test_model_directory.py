"""Publishing a dense model, also when an earlier attempt was cut short at any point."""

from __future__ import annotations

from pathlib import Path

import pytest

from cube_core.model_directory import publish, remove_unfinished_publications
from tests.transfer.passes import write_dense


@pytest.fixture
def deployed(tmp_path: Path) -> Path:
    """A deployment directory that serves 1_1."""
    write_dense(tmp_path / "dense1", "1_1")
    write_dense(tmp_path / "dense2", "2_2")
    publish(tmp_path / "dense1", tmp_path / "model", "1_1")
    return tmp_path / "model"


def _require(deployed: Path, version: str) -> None:
    assert (deployed / "current").readlink() == Path(version)
    assert (deployed / "fluid_time_file").read_text() == f"{version}\n"
    assert version in (deployed / "current" / "manifest.json").read_text()
    assert [path.name for path in deployed.rglob(".*")] == []


def test_a_publication_may_be_repeated(tmp_path: Path, deployed: Path) -> None:
    _require(deployed, "1_1")
    announced_at = (deployed / "fluid_time_file").stat().st_mtime_ns
    publish(tmp_path / "dense1", deployed, "1_1")
    # The predictors must not be told to reload what they serve.
    assert (deployed / "fluid_time_file").stat().st_mtime_ns == announced_at
    publish(tmp_path / "dense2", deployed, "2_2")
    _require(deployed, "2_2")
    assert (deployed / "fluid_time_file").stat().st_mtime_ns > announced_at


def test_a_publication_that_was_cut_short_is_finished(tmp_path: Path, deployed: Path) -> None:
    half = deployed / ".publishing-2_2"
    half.mkdir()
    (half / "model.json").write_text("{")
    (deployed / ".current.tmp").symlink_to("2_2")
    (deployed / ".fluid_time_file.tmp").write_text("2")
    publish(tmp_path / "dense2", deployed, "2_2")
    _require(deployed, "2_2")

    (deployed / "current").unlink()
    (deployed / "current").symlink_to("1_1")
    publish(tmp_path / "dense2", deployed, "2_2")
    _require(deployed, "2_2")

    (deployed / "fluid_time_file").write_text("1_1\n")
    publish(tmp_path / "dense2", deployed, "2_2")
    _require(deployed, "2_2")


def test_another_model_of_the_same_version_takes_its_place(tmp_path: Path, deployed: Path) -> None:
    (tmp_path / "dense1" / "model.pdiparams").write_bytes(b"retrained")
    publish(tmp_path / "dense1", deployed, "1_1")
    _require(deployed, "1_1")
    assert (deployed / "current" / "model.pdiparams").read_bytes() == b"retrained"


def test_leftovers_are_removed(tmp_path: Path, deployed: Path) -> None:
    (deployed / ".publishing-2_2").mkdir()
    (deployed / ".current.tmp").symlink_to("2_2")
    (deployed / ".fluid_time_file.tmp").write_text("2")
    remove_unfinished_publications(deployed)
    _require(deployed, "1_1")
