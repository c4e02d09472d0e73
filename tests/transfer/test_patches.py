"""Patches: from patch.txt to every server, over their base and over one another."""

from __future__ import annotations

import json
import shutil
from typing import Any

from cube_builder.job import BuildReport
from tests.transfer.passes import Patch, base_content
from tests.transfer.site import Site
from tests.waiting import wait_until

FIRST = Patch("10", "11", sets=[0, 1, 2, 7, 400], deletes=[3, 4, 299])
SECOND = Patch("10", "12", sets=[1, 4, 500], deletes=[2, 400])
THIRD = Patch("10", "13", sets=[3, 5], deletes=[500])
AFTER_FIRST = FIRST.over(base_content("10"))
AFTER_SECOND = SECOND.over(AFTER_FIRST)
AFTER_THIRD = THIRD.over(AFTER_SECOND)


def _deploy(site: Site, *patches: Patch, dense: bool = False) -> None:
    for patch in patches:
        site.trainer.announce_patches(site.trainer.write_patch(patch, dense=dense))
        site.await_stage(patch.version, "done")


def _command(site: Site, name: str, **fields: str) -> None:
    answer = site.http.post(f"{site.url()}/control/{name}", json=fields)
    assert answer.status_code == 200, answer.text
    wait_until(lambda: site.stage(answer.json()["id"]) == "done")


def _require_sources(site: Site, *versions: str) -> None:
    """A server that is added is told of all of them in this order, by the original's way to ask."""
    answer = site.http.get(f"{site.url()}/dict/scaler?shard=1").json()["data"]
    sources = json.loads(answer)
    assert [f"{each['depend']}_{each['version']}" for each in sources] == list(versions)
    assert [each["mode"] for each in sources] == ["base"] + ["delta"] * (len(versions) - 1)
    for version, each in zip(versions, sources, strict=True):
        table = site.output / version / "ctr_embedding_part1.table"
        assert site.http.get(each["data_source"]).content == table.read_bytes()


def _model(site: Site) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((site.model / "current" / "manifest.json").read_bytes())
    return manifest


def test_patches_reach_every_server_in_order(replicated_site: Site) -> None:
    site = replicated_site
    trainer = site.trainer
    trainer.announce_patches(trainer.write_patch(FIRST), trainer.write_patch(SECOND))
    with site.transfer(mode="base_delta"):
        wait_until(lambda: site.status()["patch_file"]["bad_lines"] != [])
        trainer.announce(trainer.write("10"))
        site.await_stage("10_12", "done")
        site.require_content("10_12", AFTER_SECOND)
        _require_sources(site, "10_10", "10_11", "10_12")
        status = site.status()
        assert status["serving"] == "10_12"
        assert [(each["id"], each["previous"]) for each in status["passes"]] == [
            ("10_12", "10_11"),
            ("10_11", "10_10"),
            ("10", ""),
        ]
        assert status["patch_file"]["bad_lines"] == status["patch_file"]["waiting"] == []
        # The network of the base goes with its rows as patched, and asks for them.
        assert site.published() == "10_12"
        assert _model(site)["version"] == "10_12"
        weights = (site.model / "current" / "model.pdiparams").read_bytes()
        assert weights == (trainer.output / "10" / "dense" / "model.pdiparams").read_bytes()

        _deploy(site, THIRD, dense=True)
        site.require_content("10_13", AFTER_THIRD)
        weights = (site.model / "current" / "model.pdiparams").read_bytes()
        assert weights == (trainer.output / "10_13" / "dense" / "model.pdiparams").read_bytes()
        site.require_tidy()
        answer = site.http.get(f"{site.url()}/dict/deploy/history").json()["data"]
        assert [(each["version"], each["depend"], each["mode"]) for each in answer][:2] == [
            (13, 10, "delta"),
            (12, 10, "delta"),
        ]
    built = {path.name for path in site.output.iterdir()}
    assert built == {"10_10", "10_11", "10_12", "10_13"}
    # A further start has nothing to do.
    with site.transfer(mode="base_delta"):
        wait_until(lambda: site.status()["replicas"]["cube1_1"]["ready"])
        assert [each["id"] for each in site.status()["passes"]] == ["10_13", "10_12", "10_11", "10"]


def test_rollbacks_over_patches_and_bases(site: Site) -> None:
    trainer = site.trainer
    with site.transfer(mode="base_delta", keep_versions=5):
        trainer.announce(trainer.write("10"))
        _deploy(site, FIRST, SECOND)
        for version, content in (("10_11", AFTER_FIRST), ("10_10", base_content("10"))):
            _command(site, "rollback")
            site.require_content(version, content)
            assert site.published() == version
        _command(site, "rollback", version="10_12")
        site.require_content("10_12", AFTER_SECOND)
        _command(site, "rollback", version="10_11")
        # What follows was trained on what was rolled back from.
        _deploy(site, THIRD)
        site.require_content("10_13", AFTER_THIRD)

        trainer.announce(trainer.write("20"))
        site.await_stage("20", "done")
        site.require_served("20")
        trainer.announce_patches(trainer.write_patch(Patch("10", "14", sets=[1])))
        site.await_stage("10_14", "superseded")
        assert "base 10_10 is not current any more" in site.pass_error("10_14")
        _command(site, "rollback")
        site.await_stage("10_14", "done")
        site.require_content("10_14", {**AFTER_THIRD, 1: "14"})
        site.require_tidy()


def test_servers_that_fell_behind_get_base_and_patches(replicated_site: Site) -> None:
    site = replicated_site
    trainer, proxy = site.trainer, site.proxies["cube1_1"]
    with site.transfer("--replica_deadline_s=0", mode="base_delta"):
        trainer.announce(trainer.write("10"))
        _deploy(site, FIRST)
        site.servers.pop("cube1_1").stop()
        _deploy(site, SECOND, THIRD)
        assert site.status()["passes"][0]["late_replicas"] == ["cube1_1"]
        assert not site.status()["replicas"]["cube1_1"]["ready"]
        site.require_content("10_13", AFTER_THIRD)

        # With what it served before, it gets what lies over that.
        proxy.commands.clear()
        site.start_server("cube1_1")
        wait_until(lambda: site.status()["replicas"]["cube1_1"]["ready"])
        site.require_content("10_13", AFTER_THIRD)
        assert "bg_load_base" not in proxy.commands

        # With nothing, all of it, in order.
        site.servers.pop("cube1_1").stop()
        wait_until(lambda: not site.status()["replicas"]["cube1_1"]["ready"])
        shutil.rmtree(site.root / "data" / "cube1_1")
        proxy.commands.clear()
        site.start_server("cube1_1")
        wait_until(lambda: site.status()["replicas"]["cube1_1"]["ready"])
        site.require_content("10_13", AFTER_THIRD)
        loads = [each for each in proxy.commands if each.startswith("bg_load")]
        assert loads[-4:] == ["bg_load_base", *["bg_load_patch"] * 3]
        assert proxy.commands[-1] == "status"

        # What it needs and is not kept any more is told with its name.
        site.servers.pop("cube1_1").stop()
        shutil.rmtree(site.root / "data" / "cube1_1")
        shutil.rmtree(site.output / "10_11")
        site.start_server("cube1_1")
        words = "needs 10_11 to be brought to 10_13, and that is not kept any more"
        wait_until(lambda: words in site.status()["replicas"]["cube1_1"]["error"])
        # The next base needs none of it.
        trainer.announce(trainer.write("20"))
        site.await_stage("20", "done")
        wait_until(lambda: site.status()["replicas"]["cube1_1"]["ready"])
        site.require_served("20")


def test_a_patch_that_fails_holds_up_what_lies_over_it(site: Site) -> None:
    trainer = site.trainer
    with site.transfer(mode="base_delta"):
        trainer.announce(trainer.write("10"))
        line = trainer.write_patch(FIRST)
        trainer.announce_patches({**line, "input": "../nowhere"}, trainer.write_patch(SECOND))
        site.await_stage("10_11", "failed")
        assert "nowhere: no such directory" in site.pass_error("10_11")
        (waiting,) = site.status()["patch_file"]["waiting"]
        assert waiting["version"] == "10_12"
        assert waiting["for"].startswith("10_11, which failed")
        site.require_content("10_10", base_content("10"))
        patch_file = trainer.donefile.with_name("patch.txt")
        patch_file.write_text(patch_file.read_text().replace("../nowhere", line["input"]))
        site.await_stage("10_12", "done")
        site.require_content("10_12", AFTER_SECOND)

        wide = Patch("10", "13", sets=[1, 2])
        line = trainer.write_patch(wide)
        directory = trainer.output / wide.version / "embedding"
        shutil.rmtree(directory)
        trainer.write("13", dim=5)
        trainer.announce_patches({**line, "input": "../13/embedding"})
        site.await_stage("10_13", "failed")
        assert "value_bytes is 20, but that of the base 10_10 is 16" in site.pass_error("10_13")
        site.require_content("10_12", AFTER_SECOND)


def test_patches_of_a_quantised_base_are_quantised(site: Site) -> None:
    with site.transfer(mode="base_delta", quant="fp16"):
        site.trainer.announce(site.trainer.write("10"))
        site.await_stage("10", "done")
    # Another configuration counts from the next base on.
    with site.transfer(mode="base_delta", quant="none"):
        _deploy(site, FIRST)
        assert site.versions() == {"10_11"}
        quants = [BuildReport.read(site.output / each).quant for each in ("10_10", "10_11")]
        assert quants == ["fp16", "fp16"]


def test_another_number_of_shards_takes_patches_along(site: Site) -> None:
    trainer = site.trainer
    site.behind_proxies = False
    with site.transfer(mode="base_delta"):
        trainer.announce(trainer.write("10"))
        _deploy(site, FIRST, SECOND)
    site.reshard(3)
    with site.transfer(mode="base_delta"):
        site.await_stage("reshard:4", "done")
        site.require_content("10_12", AFTER_SECOND)
        assert site.published() == "10_12"
        _deploy(site, THIRD)
        site.require_content("10_13", AFTER_THIRD)
        site.require_tidy()
