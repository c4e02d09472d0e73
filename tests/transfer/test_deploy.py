"""From donefile line to served version, with real servers and the real builder."""

from __future__ import annotations

import json

import httpx

from cube_core._native import crc32c
from tests.transfer.site import Site
from tests.waiting import wait_until


def test_passes_in_a_row_reach_every_replica(replicated_site: Site) -> None:
    site = replicated_site
    trainer = site.trainer
    with site.transfer("--keep_versions=2", keep_versions=9):
        trainer.announce({**trainer.write("1"), "auc": "0.79"})
        site.await_stage("1", "done")
        site.require_served("1")
        assert site.published() == "1_1"
        assert site.versions() == {"1_1"}
        shown = httpx.get(f"{site.url()}/models/current").json()
        assert shown["version"] == "1_1"
        for file in shown["files"]:
            content = httpx.get(f"{site.url()}/models/1_1/{file['name']}").content
            assert content == (site.model / "1_1" / file["name"]).read_bytes()
            assert (len(content), crc32c(content)) == (file["size"], file["crc32c"])

        for pass_id in ("2", "3"):
            trainer.announce(trainer.write(pass_id))
            site.await_stage(pass_id, "done")
            site.require_served(pass_id)
            assert site.published() == f"{pass_id}_{pass_id}"
            site.require_tidy()

        status = site.status()
        assert status["serving"] == "3_3"
        assert status["deploying"] is None
        first = status["passes"][2]
        assert first["fields"]["auc"] == "0.79"
        stages = [
            "noticed",
            "pulled",
            "built",
            "shipped",
            "loaded",
            "switched",
            "published",
            "done",
        ]
        assert list(first["reached_at_s"]) == stages
        assert sorted(first["reached_at_s"].values()) == list(first["reached_at_s"].values())
        assert list(first["shards_took_s"]) == ["ship", "load", "switch"]
        assert all(list(each) == ["0", "1"] for each in first["shards_took_s"].values())
    # Of what was deployed the newest two are kept.
    assert sorted(path.name for path in site.output.iterdir()) == ["2_2", "3_3"]
    models = {path.name for path in site.model.iterdir() if path.is_dir()}
    assert models == {"2_2", "3_3", "current"}


def test_of_several_new_passes_the_newest_is_deployed(site: Site) -> None:
    trainer = site.trainer
    trainer.announce(*(trainer.write(pass_id) for pass_id in ("1", "2", "3")))
    with site.transfer():
        site.await_stage("3", "done")
        assert (site.stage("1"), site.stage("2")) == ("superseded", "superseded")
        site.require_served("3")
    with site.transfer():
        wait_until(lambda: site.status()["replicas"]["cube1_0"]["cur_version"] == "3_3")
        assert site.status()["deploying"] is None
        assert site.stage("1") == "superseded"
    assert site.proxies["cube0_0"].commands.count("bg_switch") == 1


def test_bad_and_unfinished_lines_do_not_stop_the_others(site: Site) -> None:
    trainer = site.trainer
    trainer.announce(trainer.write("1"), '{"id": "2", "inp', "[]", trainer.write("3"))
    with site.transfer() as daemon:
        site.await_stage("3", "done")
        donefile = site.status()["donefile"]
        address = str(trainer.donefile)
        assert [line.split(": ")[0] for line in donefile["bad_lines"]] == [
            f"{address}:2",
            f"{address}:3",
        ]
        assert daemon.log().count(f"{address}:2: ") == 1

        # An id that goes back.
        trainer.announce(trainer.write("2"))
        words = f"{address}:5: out of order: id 2 is below id 3 of line 4"
        wait_until(lambda: site.status()["donefile"]["bad_lines"][2:] == [words])
        assert daemon.log().count(words) == 1

        half = json.dumps(trainer.write("4"))
        trainer.announce(half[:20], end="")
        wait_until(lambda: site.status()["donefile"]["incomplete_line"] == f"{address}:6")
        assert site.stage("4") == ""
        trainer.announce(half[20:])
        site.await_stage("4", "done")
        site.require_served("4")

        # A file that takes the place of this one, and goes back.
        trainer.donefile.write_text(f"{json.dumps(trainer.line('2'))}\n")
        words = f"{address}:1: out of order: id 2 is below id 4, which was served before"
        wait_until(lambda: site.status()["donefile"]["bad_lines"] == [words])
        metrics = site.http.get(f"{site.url()}/metrics").text
        assert 'cube_transfer_donefile_bad_lines{file="base"} 1.0' in metrics
        trainer.announce(trainer.write("5"))
        site.await_stage("5", "done")
        assert site.stage("2") == ""
        assert daemon.log().count(words) == 1


def test_a_pass_of_files_without_manifest_and_without_dense_model(site: Site) -> None:
    trainer = site.trainer
    trainer.write("1", manifest=False)
    trainer.announce({"id": "1", "key": "1", "input": str(trainer.output / "1" / "embedding")})
    with site.transfer():
        site.await_stage("1", "done")
        site.require_served("1")
        assert not (site.model / "current").exists()
