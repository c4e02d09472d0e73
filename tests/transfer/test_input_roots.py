"""Where passes may lie, and how large they may be, whatever a donefile says."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest

from cube_core.errors import DeployError
from cube_transfer.input_roots import InputRoots
from cube_transfer.pass_bytes import ByteLimits
from cube_transfer.source import PulledPass
from tests.transfer.http_directory import http_directory
from tests.transfer.remote_directories import ftp_directory
from tests.transfer.remote_pass import require_pulled, write_pass
from tests.transfer.site import Site

ROOTS = InputRoots(
    ["/passes", "http://Host:80/a%20b/", "s3://bucket/", "s3://own/x?endpoint_override=h:1"]
)

OUTSIDE = r"is outside the input_roots of transfer\.conf"


@pytest.fixture
def train(tmp_path: Path) -> Path:
    return write_pass(tmp_path / "trainer")


async def _pull(pulled: PulledPass, location: str, dense: str = "") -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        if dense:
            await pulled.pull_dense(dense, http)
        await pulled.pull_input(location, http)


@pytest.mark.parametrize(
    ("url", "is_inside"),
    [
        ("http://host/a b/1", True),
        ("http://user:secret@HOST:80/a%20b/1?token=1", True),
        ("http://host/a%20b", True),
        ("http://host/a%20bc/1", False),
        ("http://host:81/a%20b/1", False),
        ("https://host/a%20b/1", False),
        ("http://host/a%20b/../c", False),
        ("http://host/a%20b/%2e%2e/c", False),
        ("http://host/a%20b/..%5Cc", False),
        ("http://host/a%20b/..;x/c", False),
        ("http://host@elsewhere/a%20b/1", False),
        ("s3://bucket/1", True),
        ("s3://bucket2/1", False),
        ("s3://bucket/1?endpoint_override=elsewhere:1", False),
        ("s3://own/x/1?endpoint_override=h:1", True),
        ("s3://own/x/1", False),
        ("s3://own/y/1?endpoint_override=h:1", False),
        ("ftp://bucket/1", False),
    ],
)
def test_addresses(url: str, is_inside: bool) -> None:
    if is_inside:
        ROOTS.require_url(url)
        return
    with pytest.raises(DeployError, match=OUTSIDE) as caught:
        ROOTS.require_url(url)
    assert "secret" not in str(caught.value)


async def test_local_passes(train: Path, tmp_path: Path) -> None:
    pulled = PulledPass(tmp_path / "pulls" / "1", roots=InputRoots([str(train / "1")]))
    (train / "inside").symlink_to(train / "1" / "embedding")
    (train / "1" / "outside").symlink_to(tmp_path)
    (tmp_path / "embedding").mkdir()
    (tmp_path / "embedding" / "part-00000").write_text("of somebody else")
    for outside in (
        tmp_path / "embedding",
        train / "1" / ".." / ".." / "embedding",
        train / "1" / "outside" / "embedding",
        train / "1" / "outside" / "embedding" / "part-00000",
        tmp_path / "nowhere",
        f"{train}/1x",
    ):
        for location in (str(outside), f"file://{outside}"):
            with pytest.raises(DeployError, match=OUTSIDE):
                await _pull(pulled, location)
            with pytest.raises(DeployError, match=OUTSIDE):
                await _pull(pulled, str(train / "1" / "embedding"), location)
    with pytest.raises(DeployError, match=rf"/1: {OUTSIDE}"):
        await _pull(pulled, "ftp://127.0.0.1/1")
    await _pull(pulled, str(train / "inside"), str(train / "1" / "dense"))
    require_pulled(pulled, train)


def test_a_pass_outside_fails_with_the_reason(site: Site) -> None:
    trainer = site.trainer
    one, two = trainer.write("1"), trainer.write("2")
    trainer.announce(one | {"input": "/etc"})
    with site.transfer(input_roots=f"s3://bucket/, {trainer.output}"):
        site.await_stage("1", "failed")
        assert "/etc: is outside the input_roots of transfer.conf" in site.pass_error("1")
        trainer.announce(two)
        site.await_stage("2", "done")
        site.require_served("2")


@pytest.mark.parametrize("replaced", ["part-00001", "embedding"])
async def test_what_is_swapped_while_it_is_taken_leads_nowhere(
    train: Path, tmp_path: Path, replaced: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link takes the place of what was just looked at."""
    embedding = train / "1" / "embedding"
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "part-00001").write_text("of somebody else")
    victim = embedding if replaced == "embedding" else embedding / replaced
    stand_in = secret if replaced == "embedding" else secret / replaced
    realpath = os.path.realpath

    def swapped(path: str | Path, **options: bool) -> str:
        found = realpath(path, **options)
        if options.get("strict") and Path(found) == victim:
            victim.rename(tmp_path / "taken-away")
            victim.symlink_to(stand_in)
        return found

    monkeypatch.setattr("cube_transfer.local_directory.os.path.realpath", swapped)
    pulled = PulledPass(tmp_path / "pulls" / "1")
    with pytest.raises(DeployError, match=f"{replaced}: "):
        await _pull(pulled, str(embedding))
    assert not (pulled.input / "part-00001").exists()


async def test_a_file_that_is_replaced_between_two_looks(
    train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = train / "1" / "embedding" / "part-00001"
    fstat = os.fstat

    def swapped(descriptor: int) -> os.stat_result:
        found = fstat(descriptor)
        if part.exists() and os.path.samestat(found, part.stat()):
            part.rename(tmp_path / "taken-away")
            part.write_text("of another pass")
            monkeypatch.undo()
        return found

    monkeypatch.setattr("cube_transfer.local_directory.os.fstat", swapped)
    pulled = PulledPass(tmp_path / "pulls" / "1")
    with pytest.raises(OSError, match="part-00001: was replaced while it was taken") as caught:
        await _pull(pulled, str(train / "1" / "embedding"))
    assert not isinstance(caught.value, DeployError)


async def test_one_file_that_is_a_link_out(train: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    link = train / "1" / "embedding" / "part-00009"
    link.symlink_to(secret)
    pulled = PulledPass(tmp_path / "pulls" / "1")
    with pytest.raises(DeployError, match=r"part-00009: leads out of .*embedding, to .*secret"):
        await _pull(pulled, str(link))


def _bytes_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir() if path.name[0] != "_")


@pytest.mark.parametrize("listed", [True, False])
async def test_a_pass_has_no_more_bytes_than_it_may(
    train: Path, tmp_path: Path, listed: bool
) -> None:
    embedding = train / "1" / "embedding"
    if not listed:
        names = ", ".join(f'{{"name": "{path.name}"}}' for path in embedding.glob("part-*"))
        (embedding / "_manifest.json").write_text(f'{{"files": [{names}]}}')
    size = _bytes_of(embedding) + _bytes_of(train / "1" / "dense")
    words = f"the pass has more than pass_bytes_max = {size - 1} bytes; raise it in transfer.conf"
    with http_directory(train) as source, ftp_directory(train) as ftp:
        for number, url in enumerate((f"{source.url}/1", ftp("1"), str(train / "1"))):
            fits = PulledPass(tmp_path / "fits" / str(number), ByteLimits(pass_bytes_max=size))
            await _pull(fits, f"{url}/embedding", f"{url}/dense")
            require_pulled(fits, train)
            limits = ByteLimits(pass_bytes_max=size - 1)
            small = PulledPass(tmp_path / "small" / str(number), limits)
            asked = len(source.requests)
            with pytest.raises(DeployError, match=words):
                await _pull(small, f"{url}/embedding", f"{url}/dense")
            begun = [path for path in source.requests[asked:] if "part-" in path]
            assert bool(begun) == (number == 0 and not listed)
