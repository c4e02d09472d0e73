"""Passes with subdirectories: taken whole, as the builder would read them, or refused by name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from cube_core.errors import DeployError
from cube_transfer.source import PulledPass
from tests.builder.test_original_source import write_original
from tests.transfer.http_directory import http_directory
from tests.transfer.passes import (
    base_content,
    rows_of,
    write_dense,
    write_embedding,
    write_manifest,
)
from tests.transfer.remote_directories import ftp_directory
from tests.transfer.remote_pass import nest, require_same_tree, write_pass
from tests.transfer.site import Site


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    directory = write_pass(tmp_path / "trainer") / "1" / "embedding"
    (directory / "_manifest.json").unlink()
    nest(directory)
    return directory


@pytest.fixture
def pulled(tmp_path: Path) -> PulledPass:
    return PulledPass(tmp_path / "pulls" / "1_1")


async def _pull(pulled: PulledPass, location: str) -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        await pulled.pull_input(location, http)


def test_part_files_in_subdirectories_are_served(site: Site) -> None:
    trainer = site.trainer
    line = trainer.write("1", part_count=3, manifest=False)
    nest(trainer.output / "1" / "embedding")
    trainer.announce(line)
    with site.transfer():
        site.await_stage("1", "done")
        site.require_served("1")
        site.require_tidy()


def test_what_the_original_wrote_is_served(site: Site) -> None:
    """`out/<depend>_<cur>`: a directory a shard, and the same once more as archive."""
    keys = np.arange(300, dtype=np.uint64)
    rows = rows_of("7", keys)
    output = site.root / "out" / "7_7"
    for shard in range(3):
        directory = output / f"ctr_embedding_part{shard}"
        of_shard = np.flatnonzero(keys % 3 == shard)
        write_original(directory, [(int(keys[at]), rows[at].tobytes()) for at in of_shard])
        (output / f"{directory.name}.tar").write_bytes(b"tar" * 1000)
        (output / f"{directory.name}.tar.md5").write_text("0")
    site.trainer.announce({"id": "7", "key": "7", "input": str(output)})
    with site.transfer():
        site.await_stage("7", "done")
        site.require_content("7_7", base_content("7", 300))
        site.require_tidy()


async def test_a_local_directory(embedding: Path, pulled: PulledPass) -> None:
    await _pull(pulled, str(embedding))
    require_same_tree(pulled.input, embedding)
    await pulled.require_unchanged()
    with (embedding / "day=1" / "hour=2" / "part-00002").open("ab") as file:
        file.write(b"x")
    with pytest.raises(DeployError, match="changed while it was built"):
        await pulled.require_unchanged()


async def test_what_a_manifest_lists(embedding: Path, pulled: PulledPass) -> None:
    (embedding / "_temporary" / "part-00009").unlink()
    (embedding / "day=1" / ".staging" / "part-00009").unlink()
    write_manifest(embedding)
    with http_directory(embedding) as source:
        for location in (str(embedding), source.url):
            await _pull(pulled, location)
            require_same_tree(pulled.input, embedding)
            pulled.remove()


async def test_another_attempt_leaves_nothing_of_the_first(
    embedding: Path, pulled: PulledPass
) -> None:
    """The builder takes what it finds."""
    with ftp_directory(embedding) as ftp:
        for location in (str(embedding), ftp("")):
            for old in ("part-00000/part-00001", "part-7", "day=2/part-8", ".part-9.part"):
                (pulled.input / old).parent.mkdir(parents=True, exist_ok=True)
                (pulled.input / old).write_text("of another listing")
            await _pull(pulled, location)
            require_same_tree(pulled.input, embedding)
            pulled.remove()


def _link_to_a_directory(embedding: Path) -> None:
    (embedding / "day=2").symlink_to(embedding / "day=1")


def _link_to_nothing(embedding: Path) -> None:
    (embedding / "day=1" / "part-00003").symlink_to(embedding / "part-00099")


def _pipe(embedding: Path) -> None:
    os.mkfifo(embedding / "day=1" / "part-00003")


def _link_out(embedding: Path) -> None:
    (embedding / "day=1" / "part-00003").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_link_to_a_directory, "day=2: is a link to a directory"),
        (_link_to_nothing, "day=1/part-00003: No such file"),
        (_pipe, "day=1/part-00003: is no regular file"),
        (_link_out, "day=1/part-00003: leads out of"),
    ],
)
async def test_what_cannot_be_taken_is_named(
    embedding: Path, pulled: PulledPass, spoil: Callable[[Path], None], words: str
) -> None:
    spoil(embedding)
    with pytest.raises(DeployError, match=words):
        await _pull(pulled, str(embedding))


async def test_a_link_inside_the_pass(embedding: Path, pulled: PulledPass) -> None:
    part = embedding / "day=1" / "part-00001"
    (embedding / "part-00003").symlink_to(part)
    await _pull(pulled, str(embedding))
    assert (pulled.input / "part-00003").read_bytes() == part.read_bytes()
    assert not (pulled.input / "part-00003").is_symlink()


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["day=1/../../x"], "files.0.name: is no plain file name"),
        (["/etc/passwd"], "files.0.name: is no plain file name"),
        (["day=1//part-0"], "files.0.name: is no plain file name"),
        (["day=1/"], "files.0.name: is no plain file name"),
        (["day=1\\\\part-0"], "files.0.name: is no plain file name"),
        (["x" * 241], "files.0.name: is longer than NAME_BYTES_MAX = 240 bytes"),
        (["day=1", "day=1/part-0"], "day=1 is listed as a file, and as a directory of day=1/part"),
        (["day=1/part-0", "day=1/part-0"], "day=1/part-0 is listed twice"),
    ],
)
async def test_names_that_lead_elsewhere(
    embedding: Path, pulled: PulledPass, names: list[str], words: str
) -> None:
    files = ", ".join(f'{{"name": "{name}"}}' for name in names)
    (embedding / "_manifest.json").write_text(f'{{"files": [{files}]}}')
    with http_directory(embedding) as source:
        for location in (str(embedding), source.url):
            with pytest.raises(DeployError, match=words):
                await _pull(pulled, location)


async def test_names_of_a_local_directory_are_taken_as_they_are(
    embedding: Path, pulled: PulledPass
) -> None:
    names = ["back\\slash", "x" * 255, "day=1/new\nline"]
    for name in names:
        (embedding / name).write_text(name)
    await _pull(pulled, str(embedding))
    for name in names:
        assert (pulled.input / name).read_text() == name


async def test_a_model_whose_manifest_names_subdirectories(
    pulled: PulledPass, tmp_path: Path
) -> None:
    write_dense(tmp_path / "dense", "1_1")
    (tmp_path / "dense" / "_manifest.json").write_text('{"files": [{"name": "a/manifest.json"}]}')
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(DeployError, match=r"dense/a/manifest\.json: a model has no subdirect"):
            await pulled.pull_dense(str(tmp_path / "dense"), http)


async def test_subdirectories_are_no_part_of_a_dense_model(
    pulled: PulledPass, tmp_path: Path
) -> None:
    write_dense(tmp_path / "dense", "1_1")
    write_embedding(tmp_path / "dense" / "checkpoints", "1")
    async with httpx.AsyncClient(trust_env=False) as http:
        await pulled.pull_dense(str(tmp_path / "dense"), http)
    assert len(list(pulled.dense.iterdir())) == 3
