"""Whole tables of the daemon are for those who may read, and for servers by the address that they
are told."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cube_transfer.table_links import TableLinks
from tests.transfer.site import Site
from tests.waiting import wait_until

READ = "token-to-read"
VERSION, FILE = "7_7", "ctr_embedding_part0.table"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path, 1, 1)
    try:
        site.start()
        yield site
    finally:
        site.close()


def links_of(site: Site) -> TableLinks:
    return TableLinks.kept_in(site.tmp / "state", site.url())


def test_with_a_read_token_tables_are_not_for_everybody(site: Site, tmp_path: Path) -> None:
    (tmp_path / "read").write_text(READ)
    (tmp_path / "operate").write_text("token-to-operate")
    flags = (f"--read_token_file={tmp_path / 'read'}",)
    operate = f"--operate_token_file={tmp_path / 'operate'}"
    site.http.headers["authorization"] = f"Bearer {READ}"
    # The servers of the site take commands from this machine, and know no token.
    with site.transfer(*flags, operate):
        site.trainer.announce(site.trainer.write("7"))
        site.await_stage("7", "done")
        table = (site.output / VERSION / FILE).read_bytes()
        address = f"{site.url()}/files/{VERSION}/{FILE}"
        signed = links_of(site).url(VERSION, FILE)
        good = signed.partition("=")[2]

        def code(url: str, **headers: str) -> int:
            return httpx.get(url, headers=headers, trust_env=False).status_code

        assert httpx.get(signed, trust_env=False).content == table
        assert code(address, authorization=f"Bearer {READ}") == 200
        assert code(address) == 401
        assert code(f"{address}?signature=") == 401
        assert code(f"{address}?signature={good[:-1]}") == 401
        assert code(f"{address}?signature={good[::-1]}") == 401
        assert code(f"{address}?signature=%ff%c3%28") == 401
        assert code(address, authorization="Bearer guess-of-a-token") == 401
        # A signature is of one table, and tells nobody which others there are.
        other = site.output / "8_8"
        other.mkdir()
        (other / FILE).write_bytes(b"of another version")
        for path in (f"8_8/{FILE}", f"9_9/{FILE}", f"{VERSION}/ctr_embedding_part1.table"):
            assert code(f"{site.url()}/files/{path}?signature={good}") == 401
        # What the original's tools are told is an address that is good.
        told = site.http.get(f"{site.url()}/dict/scaler?shard=0").json()["data"]
        assert signed in told
    with site.transfer(*flags, operate) as daemon:
        again = links_of(site).url(VERSION, FILE)
        assert again.partition("?")[2] == signed.partition("?")[2]
        assert httpx.get(again, trust_env=False).content == table
        assert good not in daemon.log()


def test_without_a_read_token_tables_are_open_as_pages_are(site: Site) -> None:
    with site.transfer():
        site.trainer.announce(site.trainer.write("7"))
        site.await_stage("7", "done")
        url = f"{site.url()}/files/{VERSION}/{FILE}"
        assert site.http.get(url).content == (site.output / VERSION / FILE).read_bytes()


def test_a_download_that_fails_shows_no_signature(site: Site) -> None:
    """An address that is good for a whole table is in no page and no log."""
    with site.transfer() as daemon:
        site.trainer.announce(site.trainer.write("6"))
        site.await_stage("6", "done")
        site.servers["cube0_0"].stop()
        data = site.root / site.data_dir("cube0_0")
        for each in (*data.rglob("*.table"), *data.rglob("VERSION")):
            each.unlink()
        # The same size and other bytes: the daemon sends them, and the server refuses them.
        table = site.output / "6_6" / "ctr_embedding_part0.table"
        table.write_bytes(bytes(table.stat().st_size))
        server = site.start_server("cube0_0")

        def refused() -> str:
            return str(site.status()["replicas"]["cube0_0"]["error"])

        wait_until(lambda: "crc32c" in refused(), 30, "a refused table")
        assert "signature=***" in refused()
        texts = (daemon.log(), server.log(), site.http.get(f"{site.url()}/status").text)
        assert not any(re.search("signature=[0-9a-f]", text) for text in texts)


def test_the_key_is_kept_and_nobody_elses(tmp_path: Path) -> None:
    first = TableLinks.kept_in(tmp_path, "http://h:1")
    (path,) = tmp_path.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert TableLinks.kept_in(tmp_path, "http://h:1") == first
    assert first.key.hex() not in repr(first)
    path.write_bytes(b"half")
    second = TableLinks.kept_in(tmp_path, "http://h:1")
    assert second.key != first.key
    assert len(second.key) == 32
