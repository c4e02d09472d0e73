"""What goes wrong while passes are deployed: the old pass is served, and the reason is told."""

from __future__ import annotations

import contextlib
import resource
import shutil
from pathlib import Path
from typing import Any

from tests.transfer.passes import (
    KEY_COUNT,
    base_content,
    rows_in,
    write_dense,
    write_manifest,
)
from tests.transfer.site import Site
from tests.transfer.small_disk import fill, small_disk
from tests.waiting import wait_until


def test_a_pass_waits_for_a_server_that_is_down(site: Site) -> None:
    trainer = site.trainer
    with site.transfer():
        trainer.announce(trainer.write("1"))
        site.await_stage("1", "done")
        down = site.servers.pop("cube1_0")
        down.stop()

        trainer.announce(trainer.write("2"))
        wait_until(lambda: site.status()["replicas"]["cube1_0"]["attempts"] > 1)
        replica = site.status()["replicas"]["cube1_0"]
        assert "cube1_0 (127.0.0.1:" in replica["error"]
        site.await_step("2", "ship")
        site.require_served("1")

        site.start_server("cube1_0")
        site.await_stage("2", "done")
        site.require_served("2")
        assert site.status()["replicas"]["cube1_0"]["error"] == ""


def test_a_pass_that_does_not_get_on_gives_way_to_a_newer_one(site: Site) -> None:
    trainer, proxy = site.trainer, site.proxies["cube0_0"]
    with site.transfer():
        # What arrives is not what the builder wrote, so the server must refuse it.
        proxy.change = lambda command: {
            **command,
            **({"crc32c": 1} if command["cmd"] == "download" else {}),
        }
        trainer.announce(trainer.write("1"))
        wait_until(lambda: "crc32c" in site.status()["replicas"]["cube0_0"]["error"])
        assert site.versions() == {""}
        trainer.announce(trainer.write("2"))
        site.await_stage("1", "superseded")
        proxy.change = lambda command: command
        site.await_stage("2", "done")
        site.require_served("2")
        site.require_tidy()


def test_servers_that_fell_behind_are_brought_back(site: Site) -> None:
    trainer = site.trainer
    with site.transfer():
        for pass_id in ("1", "2"):
            trainer.announce(trainer.write(pass_id))
            site.await_stage(pass_id, "done")
        site.servers["cube1_0"].stop()
        shutil.rmtree(site.root / "data" / "cube1_0")
        assert site.command("cube0_0", "rollback")["cur_version"] == "1_1"
        site.start_server("cube1_0")
        assert site.command("cube1_0", "status")["cur_version"] == ""
        wait_until(lambda: site.versions() == {"2_2"})
        site.require_served("2")
        assert site.published() == "2_2"

        # What cannot be brought back is told, and disturbs nobody.
        shutil.rmtree(site.output / "2_2")
        wait_until(lambda: "2_2/build.json" in site.status()["error"])
        site.require_served("2")


def test_a_switch_and_a_publication_that_fail_are_repeated(site: Site) -> None:
    trainer, proxy = site.trainer, site.proxies["cube0_0"]
    with site.transfer():
        trainer.announce(trainer.write("1"))
        site.await_stage("1", "done")
        proxy.failing.add("bg_switch")
        trainer.announce(trainer.write("2"))
        wait_until(lambda: "made to fail" in site.status()["replicas"]["cube0_0"]["error"])
        assert site.command("cube0_0", "status")["cur_version"] == "1_1"
        # The dense model follows when every shard has switched, not before.
        assert site.published() == "1_1"
        proxy.failing.clear()
        site.await_stage("2", "done")
        site.require_served("2")
        assert site.published() == "2_2"

        obstacle = site.model / "current"
        obstacle.unlink()
        (obstacle / "in the way").mkdir(parents=True)
        trainer.announce(trainer.write("3"))
        wait_until(lambda: str(obstacle) in site.status()["deploying"]["error"])
        site.require_served("3")
        shutil.rmtree(obstacle)
        site.await_stage("3", "done")
        assert site.published() == "3_3"
        site.require_tidy()


def test_a_bad_pass_fails_and_the_next_is_taken(site: Site) -> None:
    trainer = site.trainer
    with site.transfer():
        trainer.announce(trainer.write("1"))
        site.await_stage("1", "done")
        expected = {
            "2": _truncated_sequence_file,
            "3": _file_that_is_not_what_the_manifest_says,
            "4": _missing_input,
            "5": _dense_of_another_version,
            "6": _dense_of_another_width,
            "7": _input_on_an_unknown_file_system,
            "8": _weights_that_are_not_what_the_manifest_says,
        }
        for pass_id, spoil in expected.items():
            line = trainer.write(pass_id)
            words = spoil(trainer.output / pass_id, line)
            trainer.announce(line)
            site.await_stage(pass_id, "failed")
            for word in words:
                assert word in site.pass_error(pass_id)
            assert site.versions() == {"1_1"}
            site.require_tidy()
        site.require_served("1")
        assert site.published() == "1_1"

        line = trainer.write("9")
        trainer.announce({**line, "input": "../nowhere"})
        site.await_stage("9", "failed")
        # A line that is repaired in place makes its pass a new one.
        repaired = trainer.donefile.read_text().replace("../nowhere", line["input"])
        trainer.donefile.write_text(repaired)
        site.await_stage("9", "done")
        site.require_served("9")


def _truncated_sequence_file(directory: Path, line: dict[str, str]) -> list[str]:
    part = directory / "embedding" / "part-00001"
    part.write_bytes(part.read_bytes()[:-5])
    # The trainer vouches for the bytes, so that only the builder can find out.
    write_manifest(directory / "embedding")
    return ["part-00001", "offset"]


def _file_that_is_not_what_the_manifest_says(directory: Path, line: dict[str, str]) -> list[str]:
    part = directory / "embedding" / "part-00000"
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes(data)
    return [str(part).split("/train/")[1].split("/", 1)[1], "crc32c", "corrupt"]


def _missing_input(directory: Path, line: dict[str, str]) -> list[str]:
    shutil.rmtree(directory / "embedding")
    return ["embedding", "no such directory"]


def _dense_of_another_version(directory: Path, line: dict[str, str]) -> list[str]:
    shutil.rmtree(directory / "dense")
    write_dense(directory / "dense", "1_1")
    return ["dense/manifest.json", "version is 1_1, but the pass is 5_5"]


def _dense_of_another_width(directory: Path, line: dict[str, str]) -> list[str]:
    shutil.rmtree(directory / "dense")
    write_dense(directory / "dense", "6_6", dim=5)
    return ["embedding_dim is 5 float32", "16 bytes"]


def _weights_that_are_not_what_the_manifest_says(
    directory: Path, line: dict[str, str]
) -> list[str]:
    shutil.rmtree(directory / "dense")
    write_dense(directory / "dense", "8_8", list_files=True)
    with (directory / "dense" / "model.pdiparams").open("r+b") as file:
        file.write(b"x")
    return ["dense/model.pdiparams", "crc32c", "corrupt"]


def _input_on_an_unknown_file_system(directory: Path, line: dict[str, str]) -> list[str]:
    line["input"] = "afs://cluster/pass"
    return ["afs:// is not supported"]


def test_a_replica_that_is_down_is_left_behind_and_brought_back(replicated_site: Site) -> None:
    site = replicated_site
    trainer = site.trainer
    with site.transfer("--replica_deadline_s=0.5"):
        trainer.announce(trainer.write("1"))
        site.await_stage("1", "done")
        site.servers.pop("cube1_1").stop()

        trainer.announce(trainer.write("2"))
        site.await_stage("2", "done")
        site.require_served("2")
        assert site.published() == "2_2"
        status = site.status()
        assert status["passes"][0]["late_replicas"] == ["cube1_1"]
        late = status["replicas"]["cube1_1"]
        assert not late["ready"]
        assert "cube1_1 (127.0.0.1:" in late["error"]
        assert status["replicas"]["cube1_0"]["ready"]

        # It starts with the version that it served before, and is not ready until it has the new.
        site.start_server("cube1_1")
        wait_until(lambda: site.status()["replicas"]["cube1_1"]["ready"])
        site.require_served("2")


def test_a_shard_without_any_server_holds_the_pass_up(replicated_site: Site) -> None:
    site = replicated_site
    trainer = site.trainer
    with site.transfer("--replica_deadline_s=0"):
        trainer.announce(trainer.write("1"))
        site.await_stage("1", "done")
        for name in ("cube1_0", "cube1_1"):
            site.servers.pop(name).stop()
        trainer.announce(trainer.write("2"))
        words = "no replica of shard 1 gets on: cube1_0 (127.0.0.1:"
        wait_until(lambda: words in (site.status()["deploying"] or {}).get("error", ""))
        site.await_step("2", "ship")
        site.require_served("1")
        assert site.published() == "1_1"

        site.start_server("cube1_0")
        site.await_stage("2", "done")
        site.require_served("2")


def test_what_one_replica_cannot_take_is_told_with_its_name(replicated_site: Site) -> None:
    site = replicated_site
    trainer, proxy = site.trainer, site.proxies["cube0_1"]

    def replica() -> dict[str, Any]:
        found: dict[str, Any] = site.status()["replicas"]["cube0_1"]
        return found

    with site.transfer("--replica_deadline_s=0"):
        trainer.announce(trainer.write("1"))
        site.await_stage("1", "done")

        # No file may grow, as on a full disk.
        pid = site.servers["cube0_1"].process.pid
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        trainer.announce(trainer.write("2"))
        site.await_stage("2", "done")
        wait_until(lambda: "File too large" in replica()["error"])
        assert "cube0_1 (127.0.0.1:" in replica()["error"]
        assert site.command("cube0_1", "status")["cur_version"] == "1_1"
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        wait_until(lambda: replica()["ready"])
        site.require_served("2")

        proxy.change = lambda command: {
            **command,
            **({"crc32c": 1} if command["cmd"] == "download" else {}),
        }
        trainer.announce(trainer.write("3"))
        site.await_stage("3", "done")
        wait_until(lambda: "crc32c" in replica()["error"])
        assert site.command("cube0_1", "status")["cur_version"] == "2_2"
        proxy.change = lambda command: command
        wait_until(lambda: replica()["ready"])
        site.require_served("3")

        # Where the version's directory should be the server may not write.
        obstacle = site.root / "data" / "cube0_1" / "4_4"
        obstacle.touch()
        trainer.announce(trainer.write("4"))
        site.await_stage("4", "done")
        wait_until(lambda: str(obstacle.relative_to(site.root)) in replica()["error"])
        assert site.status()["passes"][0]["late_replicas"] == ["cube0_1"]
        obstacle.unlink()
        wait_until(lambda: replica()["ready"])
        site.require_served("4")

    def kept() -> list[list[str]]:
        directories = [(site.root / "data" / name).iterdir() for name in site.servers]
        return [sorted(path.name for path in each if path.is_dir()) for each in directories]

    # Of what was served the newest two are kept, on servers too, and others for a while.
    wait_until(lambda: kept() == [["3_3", "4_4"]] * len(site.servers))


def test_a_full_disk_and_a_closed_directory_on_one_replica(replicated_site: Site) -> None:
    site = replicated_site
    trainer = site.trainer
    directory = site.root / "data" / "cube0_1"

    def await_error(words: str) -> None:
        wait_until(lambda: words in site.status()["replicas"]["cube0_1"]["error"], what=words)
        assert "cube0_1 (127.0.0.1:" in site.status()["replicas"]["cube0_1"]["error"]

    def require_alone(pass_id: str) -> None:
        keys = range(0, KEY_COUNT, 2)
        answer = (f"{pass_id}_{pass_id}", rows_in(base_content(pass_id), keys))
        assert site.seek("cube0_1", keys) == answer

    with site.transfer("--replica_deadline_s=0"), contextlib.ExitStack() as stack:
        trainer.announce(trainer.write("1"))
        site.await_stage("1", "done")
        site.servers.pop("cube0_1").stop()
        stack.enter_context(small_disk(directory))
        site.start_server("cube0_1")
        wait_until(lambda: site.command("cube0_1", "status")["cur_version"] == "1_1")
        filler = fill(directory)
        trainer.announce(trainer.write("2"))
        site.await_stage("2", "done")
        await_error("No space left on device")
        require_alone("1")
        filler.unlink()
        wait_until(lambda: site.status()["replicas"]["cube0_1"]["ready"])
        site.require_served("2")

        directory.chmod(0o500)
        trainer.announce(trainer.write("3"))
        site.await_stage("3", "done")
        await_error("Permission denied")
        require_alone("2")
        directory.chmod(0o700)
        wait_until(lambda: site.status()["replicas"]["cube0_1"]["ready"])
        site.require_served("3")
        site.servers["cube0_1"].stop()


def test_a_full_disk_of_the_daemon_is_waited_for(site: Site) -> None:
    trainer = site.trainer
    with contextlib.ExitStack() as stack:
        stack.enter_context(small_disk(site.output))
        with site.transfer():
            trainer.announce(trainer.write("1"))
            site.await_stage("1", "done")
            filler = fill(site.output)
            trainer.announce(trainer.write("2"))
            words = "No space left on device"
            wait_until(lambda: words in (site.status()["deploying"] or {}).get("error", ""))
            site.await_step("2", "build")
            site.require_served("1")
            assert site.published() == "1_1"
            filler.unlink()
            site.await_stage("2", "done")
            site.require_served("2")
            site.require_tidy()
