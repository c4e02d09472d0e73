"""What the reloader does at each look, step by step: real models, probes as the test says."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ctr_serving.conf import EngineConf, read_engine_confs
from ctr_serving.engine import Engine
from ctr_serving.manifest import Manifest
from ctr_serving.model_slot import ModelSlot
from ctr_serving.reload import Reloader
from cube_core.errors import VersionNotLoadedError
from tests.ctr.models import announce, publish
from tests.ctr.service import write_conf


class Probe:
    """Knows which embedding versions are there."""

    def __init__(self) -> None:
        self.loaded = {"1_1", "2_2"}
        self.asked: list[str] = []
        self.where = ""

    async def __call__(self, manifest: Manifest) -> None:
        self.asked.append(manifest.version)
        if manifest.version not in self.loaded:
            raise VersionNotLoadedError(f"version {manifest.version} is not loaded{self.where}")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_conf(tmp_path, [8001, 8002])
    return tmp_path


def conf_of(root: Path) -> EngineConf:
    return read_engine_confs(root / "model_toolkit.prototxt", root / "cube.conf")[0]


def version_of(slot: ModelSlot) -> str | None:
    return None if slot.engine is None else slot.engine.manifest.version


def make(root: Path, interval_s: float = 0.0) -> tuple[ModelSlot, Probe, Reloader]:
    slot, probe = ModelSlot(), Probe()
    return (
        slot,
        probe,
        Reloader(conf_of(root), slot, probe, load=Engine.load, interval_s=interval_s),
    )


async def test_a_model_is_taken_once_an_announcement(root: Path, models: dict[int, Path]) -> None:
    slot, probe, reloader = make(root)
    publish(root / "model", models[1])
    for _ in range(3):
        await reloader.poll()
    assert (version_of(slot), slot.switch_count, probe.asked) == ("1_1", 1, ["1_1"])


async def test_a_change_counts_when_it_is_announced(root: Path, models: dict[int, Path]) -> None:
    slot, _, reloader = make(root)
    publish(root / "model", models[1])
    await reloader.poll()
    link, meta = root / "model" / "current", root / "model" / "fluid_time_file"
    link.unlink()
    link.symlink_to(models[2])
    await reloader.poll()
    assert version_of(slot) == "1_1"
    # timestamp_ne: any other time counts, an earlier one too.
    earlier_ns = meta.stat().st_mtime_ns - 10**9
    os.utime(meta, ns=(earlier_ns, earlier_ns))
    await reloader.poll()
    assert version_of(slot) == "2_2"


async def test_an_announcement_that_vanishes_is_none(root: Path, models: dict[int, Path]) -> None:
    slot, _, reloader = make(root)
    publish(root / "model", models[1])
    await reloader.poll()
    (root / "model" / "fluid_time_file").unlink()
    await reloader.poll()
    assert (version_of(slot), slot.switch_count, slot.problem) == ("1_1", 1, "")


async def test_reloadable_type_none_loads_once(root: Path, models: dict[int, Path]) -> None:
    toolkit = root / "model_toolkit.prototxt"
    toolkit.write_text(toolkit.read_text().replace("timestamp_ne", "none"))
    slot, _, reloader = make(root)
    await reloader.poll()
    assert "model/current: there is no model directory" in slot.problem
    publish(root / "model", models[1])
    await reloader.poll()
    publish(root / "model", models[2])
    await reloader.poll()
    assert (version_of(slot), slot.problem) == ("1_1", "")


async def test_a_refused_version_is_probed_again_without_loading_again(
    root: Path, models: dict[int, Path]
) -> None:
    slot, probe, reloader = make(root)
    copy = shutil.copytree(models[2], root / "copy")
    publish(root / "model", models[1])
    await reloader.poll()
    probe.loaded.remove("2_2")
    publish(root / "model", copy)
    await reloader.poll()
    assert (version_of(slot), slot.problem) == ("1_1", "version 2_2 is not loaded")
    # What was loaded is kept, so that only the shards are asked again.
    (copy / "model.pdiparams").unlink()
    probe.loaded.add("2_2")
    await reloader.poll()
    assert (version_of(slot), slot.problem) == ("2_2", "")
    assert probe.asked == ["1_1", "2_2", "2_2"]


async def test_what_did_not_load_is_left_alone_for_a_while(
    root: Path, models: dict[int, Path]
) -> None:
    slot, _, reloader = make(root, interval_s=3600.0)
    broken = shutil.copytree(models[2], root / "broken")
    (broken / "manifest.json").unlink()
    publish(root / "model", broken)
    for _ in range(3):
        await reloader.poll()
    assert slot.refusal_count == 1
    shutil.copytree(models[2], broken, dirs_exist_ok=True)
    announce(root / "model")
    await reloader.poll()
    assert version_of(slot) == "2_2"


async def test_what_did_not_load_is_tried_again_unannounced(
    root: Path, models: dict[int, Path]
) -> None:
    slot, _, reloader = make(root)
    broken = shutil.copytree(models[2], root / "broken")
    (broken / "manifest.json").unlink()
    publish(root / "model", broken)
    await reloader.poll()
    assert "manifest.json: cannot be read" in slot.problem
    shutil.copytree(models[2], broken, dirs_exist_ok=True)
    await reloader.poll()
    assert version_of(slot) == "2_2"


async def serving_announced(
    root: Path, models: dict[int, Path], kind: str, meta: tuple[str, int]
) -> tuple[ModelSlot, Probe, Reloader]:
    """As `make`, with model 1 announced in another way and served."""
    toolkit = root / "model_toolkit.prototxt"
    toolkit.write_text(toolkit.read_text().replace("timestamp_ne", kind))
    made = make(root)
    publish(root / "model", models[1])
    write_meta(root, *meta)
    await made[2].poll()
    return made


def write_meta(root: Path, content: str, mtime_s: int) -> None:
    meta = root / "model" / "fluid_time_file"
    meta.write_text(content)
    os.utime(meta, (mtime_s, mtime_s))


@pytest.mark.parametrize(
    ("kind", "first", "same", "other"),
    [
        ("timestamp_ne", ("a", 1000), ("b", 1000), ("a", 999)),
        ("timestamp_gt", ("a", 1000), ("b", 999), ("a", 1001)),
        ("md5sum", ("a", 1000), ("a", 2000), ("b", 1000)),
        ("revision", ("10_10\n", 1000), ("10_9", 2000), ("10_11", 1000)),
        ("revision", ("9", 1000), ("8", 2000), ("10", 1000)),
        ("none", ("a", 1000), ("b", 2000), None),
    ],
)
async def test_each_reloadable_type_sees_its_own_changes(
    root: Path,
    models: dict[int, Path],
    kind: str,
    first: tuple[str, int],
    same: tuple[str, int],
    other: tuple[str, int] | None,
) -> None:
    slot, _, reloader = await serving_announced(root, models, kind, first)
    link = root / "model" / "current"
    link.unlink()
    link.symlink_to(models[2])
    write_meta(root, *same)
    await reloader.poll()
    assert (version_of(slot), slot.problem) == ("1_1", "")
    if other is not None:
        write_meta(root, *other)
        await reloader.poll()
        assert (version_of(slot), slot.problem) == ("2_2", "")


async def test_what_is_no_revision_is_told_and_the_old_model_serves(
    root: Path, models: dict[int, Path]
) -> None:
    slot, _, reloader = await serving_announced(root, models, "revision", ("7", 1000))
    write_meta(root, "seven", 1000)
    await reloader.poll()
    assert version_of(slot) == "1_1"
    assert "fluid_time_file: b'seven' is no revision" in slot.problem


async def test_an_announcement_that_is_taken_back_is_no_problem_any_more(
    root: Path, models: dict[int, Path]
) -> None:
    """Neither of a model that is refused nor of what was no announcement."""
    slot, probe, reloader = await serving_announced(root, models, "revision", ("7", 1000))
    probe.loaded.discard("2_2")
    publish(root / "model", models[2])
    for refused, problem in (("8", "version 2_2 is not loaded"), ("seven", "is no revision")):
        write_meta(root, refused, 1000)
        await reloader.poll()
        assert problem in slot.problem
        write_meta(root, "7", 1000)
        await reloader.poll()
        assert (version_of(slot), slot.problem) == ("1_1", "")
    probe.loaded.add("2_2")
    write_meta(root, "8", 1000)
    await reloader.poll()
    assert (version_of(slot), slot.problem) == ("2_2", "")


async def test_a_reason_that_changes_with_every_look_is_logged_once(
    root: Path, models: dict[int, Path], caplog: pytest.LogCaptureFixture
) -> None:
    slot, probe, reloader = make(root)
    publish(root / "model", models[1])
    probe.loaded = set()

    def told() -> list[str]:
        return [each.message for each in caplog.records if "not taken" in each.message]

    for look in range(5):
        probe.where = f" on shard {look % 2}"
        await reloader.poll()
        assert slot.problem.endswith(probe.where), "the status has the newest"
    assert told() == ["the model is not taken: version 1_1 is not loaded on shard 0"]
    announce(root / "model")
    await reloader.poll()
    assert len(told()) == 1, "the same text"
    probe.where = " on shard 2"
    announce(root / "model")
    await reloader.poll()
    assert len(told()) == 2, "another model"


async def test_an_unforeseen_error_refuses_a_model_as_any_other(
    root: Path, models: dict[int, Path], caplog: pytest.LogCaptureFixture
) -> None:
    loads: list[Path] = []

    def load(directory: Path) -> Engine:
        loads.append(directory)
        if directory == models[2]:
            raise IndexError("list index out of range")
        return Engine.load(directory)

    slot = ModelSlot()
    reloader = Reloader(conf_of(root), slot, Probe(), load=load, interval_s=3600.0)
    publish(root / "model", models[1])
    await reloader.poll()
    publish(root / "model", models[2])
    for _ in range(3):
        await reloader.poll()
    assert version_of(slot) == "1_1"
    assert slot.problem == f"{models[2]}: IndexError: list index out of range"
    assert slot.refusal_count == 1
    assert loads == [models[1], models[2]], "it is left alone for a while"
    (told,) = [each for each in caplog.records if "not taken" in each.message]
    assert told.exc_info is not None
    assert told.exc_info[0] is IndexError
    publish(root / "model", models[1])
    await reloader.poll()
    assert (slot.problem, slot.switch_count) == ("", 2)


async def test_an_unforeseen_error_of_the_probe_refuses_the_model(
    root: Path, models: dict[int, Path]
) -> None:
    async def probe(manifest: Manifest) -> None:
        raise KeyError(manifest.version)

    slot = ModelSlot()
    reloader = Reloader(conf_of(root), slot, probe, load=Engine.load, interval_s=0.0)
    publish(root / "model", models[1])
    await reloader.poll()
    assert (slot.engine, slot.refusal_count) == (None, 1)
    assert slot.problem == "model/current: KeyError: '1_1'"
