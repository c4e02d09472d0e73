"""From donefile line to served version, with real servers and the real builder."""

from __future__ import annotations

import json

from tests.transfer.passes import DICT_NAME
from tests.transfer.site import Site
from tests.waiting import wait_until


def test_two_passes_in_a_row_reach_every_replica(replicated_site: Site) -> None:
    site = replicated_site
    trainer = site.trainer
    with site.transfer():
        trainer.announce({**trainer.write("1"), "auc": "0.79"})
        site.await_stage("1", "done")
        site.require_served("1")
        assert site.published() == "1_1"
        assert site.versions() == {"1_1"}

        trainer.announce(trainer.write("2"))
        site.await_stage("2", "done")
        site.require_served("2")
        assert site.published() == "2_2"
        site.require_tidy()

        status = site.status()
        assert status["serving"] == "2_2"
        assert status["deploying"] is None
        first = status["passes"][1]
        assert first["fields"]["auc"] == "0.79"
        stages = ["pulled", "built", "shipped", "loaded", "switched", "published", "done"]
        assert list(first["reached_at_s"]) == stages


def test_old_versions_are_removed(site: Site) -> None:
    trainer = site.trainer
    with site.transfer(keep_versions=2):
        for pass_id in ("1", "2", "3"):
            trainer.announce(trainer.write(pass_id))
            site.await_stage(pass_id, "done")
        assert sorted(path.name for path in site.output.iterdir()) == ["2_2", "3_3"]
        versions = {path.name for path in site.model.iterdir() if path.is_dir()}
        assert versions == {"2_2", "3_3", "current"}


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

        half = json.dumps(trainer.write("4"))
        trainer.announce(half[:20], end="")
        wait_until(lambda: site.status()["donefile"]["incomplete_line"] == f"{address}:5")
        assert site.stage("4") == ""
        trainer.announce(half[20:])
        site.await_stage("4", "done")
        site.require_served("4")


def test_a_pass_of_files_without_manifest_and_without_dense_model(site: Site) -> None:
    trainer = site.trainer
    trainer.write("1", manifest=False)
    trainer.announce({"id": "1", "key": "1", "input": str(trainer.output / "1" / "embedding")})
    with site.transfer():
        site.await_stage("1", "done")
        site.require_served("1")
        assert not (site.model / "current").exists()


def test_only_tables_are_served(site: Site) -> None:
    trainer = site.trainer
    trainer.announce(trainer.write("1"))
    with site.transfer() as daemon:
        site.await_stage("1", "done")
        base = f"http://127.0.0.1:{daemon.port()}/files"
        table = site.http.get(f"{base}/1_1/{DICT_NAME}_part0.table")
        assert table.content == (site.output / "1_1" / f"{DICT_NAME}_part0.table").read_bytes()
        for path in (
            "1_1/build.json",
            "9_9/ctr_embedding_part0.table",
            "..%2f1_1/ctr_embedding_part0.table",
            "1_1/..%2f..%2ftransfer.conf",
            "1/ctr_embedding_part0.table",
        ):
            assert site.http.get(f"{base}/{path}").status_code == 404
        assert site.http.get(f"http://127.0.0.1:{daemon.port()}/health").text == "OK"
