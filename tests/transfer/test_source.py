"""Pulling a pass: whole, verified, and out of the trainer's reach."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import httpx
import pytest

from cube_core.errors import CubeError, DeployError, ModelError
from cube_transfer.pass_bytes import ByteLimits
from cube_transfer.source import PulledPass
from tests.transfer.http_directory import http_directory
from tests.transfer.passes import write_dense, write_embedding, write_manifest


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    directory = tmp_path / "train" / "1" / "embedding"
    write_embedding(directory, "1", part_count=3)
    return directory


@pytest.fixture
def pulled(tmp_path: Path) -> PulledPass:
    return PulledPass(tmp_path / "pulls" / "1_1")


async def _pull(pulled: PulledPass, location: str, dense: str = "") -> None:
    async with httpx.AsyncClient(trust_env=False) as http:
        if dense:
            await pulled.pull_dense(dense, http)
        await pulled.pull_input(location, http)


def _require_same(pulled: Path, source: Path, pattern: str = "part-*") -> None:
    names = sorted(path.name for path in source.glob(pattern))
    assert sorted(path.name for path in pulled.iterdir()) == names
    for name in names:
        assert (pulled / name).read_bytes() == (source / name).read_bytes()


async def test_local_files_outlive_the_trainers_directory(
    embedding: Path, pulled: PulledPass, tmp_path: Path
) -> None:
    write_dense(tmp_path / "dense", "1_1")
    await _pull(pulled, str(embedding), str(tmp_path / "dense"))
    _require_same(pulled.input, embedding)
    _require_same(pulled.dense, tmp_path / "dense", "*")
    shutil.rmtree(embedding.parent)
    # Pulled is pulled: neither is looked for again.
    await _pull(pulled, str(embedding), str(tmp_path / "gone"))
    await pulled.require_unchanged()
    assert len(list(pulled.input.iterdir())) == 3


async def test_a_model_with_a_name_that_is_too_long_fails_the_pass(
    embedding: Path, pulled: PulledPass, tmp_path: Path
) -> None:
    """As the files of a pass do: there is no place for what is downloaded of it."""
    write_dense(tmp_path / "train" / "dense", "1_1", list_files=True)
    path = tmp_path / "train" / "dense" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["files"][0]["name"] = "x" * 255
    path.write_text(json.dumps(manifest))
    with http_directory(tmp_path / "train") as source:
        words = r"dense/manifest\.json: .*longer than NAME_BYTES_MAX = 240 bytes"
        with pytest.raises(ModelError, match=words):
            await _pull(pulled, str(embedding), f"{source.url}/dense")


async def test_a_path_that_no_file_system_takes_fails_the_pass(
    embedding: Path, pulled: PulledPass
) -> None:
    """And is not looked for again and again, as one is whose file system is away."""
    with pytest.raises(DeployError, match=r"xxx: File name too long"):
        await _pull(pulled, str(embedding / ("x" * 300)))


async def test_a_directory_above_that_cannot_be_entered_fails_the_pass(
    embedding: Path, pulled: PulledPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(path: Path) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "exists", refused)
    with pytest.raises(DeployError, match=f"{embedding}: Permission denied"):
        await _pull(pulled, str(embedding))


async def test_a_file_that_is_written_to_after_the_pull_is_noticed(
    embedding: Path, pulled: PulledPass
) -> None:
    await _pull(pulled, str(embedding))
    with (embedding / "part-00001").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    with pytest.raises(DeployError, match="changed while it was built"):
        await pulled.require_unchanged()


async def test_files_are_copied_where_no_link_can_be(
    embedding: Path, pulled: PulledPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", no_link)
    await _pull(pulled, f"file://{embedding}")
    _require_same(pulled.input, embedding)
    (embedding / "part-00001").write_bytes(b"another pass")
    await pulled.require_unchanged()


async def test_one_file_is_a_pass_too(embedding: Path, pulled: PulledPass) -> None:
    await _pull(pulled, str(embedding / "part-00002"))
    assert [path.name for path in pulled.input.iterdir()] == ["part-00002"]


async def test_http_files_are_verified(embedding: Path, pulled: PulledPass, tmp_path: Path) -> None:
    write_dense(embedding.parent / "dense", "1_1")
    with http_directory(embedding.parent) as source:
        await _pull(pulled, f"{source.url}/embedding/", f"{source.url}/dense")
    _require_same(pulled.input, embedding)
    _require_same(pulled.dense, embedding.parent / "dense", "*")


async def test_a_dense_model_of_an_older_paddle(pulled: PulledPass, tmp_path: Path) -> None:
    dense = tmp_path / "dense"
    write_dense(dense, "1_1")
    (dense / "model.json").rename(dense / "model.pdmodel")
    async with httpx.AsyncClient(trust_env=False) as http:
        with http_directory(tmp_path) as source:
            await pulled.pull_dense(f"{source.url}/dense", http)
    _require_same(pulled.dense, dense, "*")


async def test_a_dense_model_whose_manifest_lists_its_files(
    pulled: PulledPass, tmp_path: Path
) -> None:
    dense = tmp_path / "dense"
    write_dense(dense, "1_1", list_files=True)
    with http_directory(tmp_path) as source:
        async with httpx.AsyncClient(trust_env=False) as http:
            await pulled.pull_dense(f"{source.url}/dense", http)
            _require_same(pulled.dense, dense, "*")
            (dense / "model.pdiparams").write_bytes(b"x" * 300)
            pulled.remove()
            with pytest.raises(DeployError, match=r"dense/model\.pdiparams: crc32c"):
                await pulled.pull_dense(f"{source.url}/dense", http)


async def test_an_http_pull_that_was_cut_short_goes_on(embedding: Path, pulled: PulledPass) -> None:
    with http_directory(embedding) as source:
        source.statuses["part-00002"] = 503
        with pytest.raises(OSError, match="part-00002: HTTP 503"):
            await _pull(pulled, source.url)
        source.statuses.clear()
        source.requests.clear()
        await _pull(pulled, source.url)
        assert source.requests == ["/_manifest.json", "/part-00002"]
    _require_same(pulled.input, embedding)


async def test_an_http_file_that_is_not_what_the_manifest_says(
    embedding: Path, pulled: PulledPass
) -> None:
    part = embedding / "part-00001"
    good = part.read_bytes()
    with http_directory(embedding) as source:
        for bad, words in (
            (good[:-1], "bytes, but the manifest says"),
            (good + b"x", "bytes, but the manifest says"),
            (good[:-1] + b"x", "is corrupt"),
        ):
            part.write_bytes(bad)
            with pytest.raises(DeployError, match=words) as caught:
                await _pull(pulled, source.url)
            assert f"{source.url}/part-00001" in str(caught.value)


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (b"{", "Invalid JSON"),
        (b"{}", "files: Field required"),
        (b'{"files":[]}', "names no file"),
        (b'{"files":[{"name":"../../etc/passwd","size":1,"crc32c":1}]}', "no plain file name"),
        (b'{"files":[{"name":"..","size":1,"crc32c":1}]}', "no plain file name"),
        (b'{"files":[{"name":"a","size":-1,"crc32c":1}]}', "files.0.size"),
        (b'{"files":[{"name":"a","size":1,"crc32c":"zz"}]}', "files.0.crc32c"),
        (
            b'{"files":[{"name":"a","size":1,"crc32c":1},{"name":"a","size":1,"crc32c":1}]}',
            "listed twice",
        ),
        (b'{"files":[{"name":"not-there","size":1,"crc32c":1}]}', "not-there"),
    ],
)
async def test_manifests_that_cannot_be_used(
    embedding: Path, pulled: PulledPass, manifest: bytes, words: str
) -> None:
    (embedding / "_manifest.json").write_bytes(manifest)
    with http_directory(embedding) as source:
        for location in (str(embedding), source.url):
            with pytest.raises(DeployError, match=words):
                await _pull(pulled, location)


async def test_inputs_that_are_not_there(pulled: PulledPass, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with http_directory(tmp_path) as source:
        for location, words in (
            (str(tmp_path / "nowhere"), "no such directory"),
            (str(tmp_path / "empty"), "holds no file"),
            (f"{source.url}/empty", "_manifest.json: HTTP 404"),
            ("afs://cluster/pass", "afs:// is not supported"),
        ):
            with pytest.raises(DeployError, match=words):
                await _pull(pulled, location)


@pytest.mark.parametrize(
    "manifest", [b"", b"{}", b'{"dict_name":"d","version":"1_1","embedding_dim":4,"model":"../x"}']
)
async def test_dense_manifests_that_cannot_be_used(
    pulled: PulledPass, tmp_path: Path, manifest: bytes
) -> None:
    dense = tmp_path / "dense"
    write_dense(dense, "1_1")
    (dense / "manifest.json").write_bytes(manifest)
    with http_directory(tmp_path) as source, pytest.raises(ModelError, match=r"manifest\.json"):
        await _pull(pulled, "", f"{source.url}/dense")


async def test_a_manifest_written_before_its_files_are_complete(
    embedding: Path, pulled: PulledPass
) -> None:
    part = embedding / "part-00000"
    whole = part.read_bytes()
    part.write_bytes(whole[:100])
    with pytest.raises(CubeError, match=r"part-00000: 100 bytes, but .*still being written"):
        await _pull(pulled, str(embedding))
    part.write_bytes(whole)
    write_manifest(embedding)
    await _pull(pulled, str(embedding))
    _require_same(pulled.input, embedding)


@pytest.mark.parametrize("listed", [False, True])
async def test_a_link_that_leads_out_of_the_pass_is_not_followed(
    embedding: Path, pulled: PulledPass, tmp_path: Path, listed: bool
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("of somebody else")
    (embedding / "part-00009").symlink_to(secret)
    if listed:
        write_manifest(embedding)
    else:
        (embedding / "_manifest.json").unlink(missing_ok=True)
    with pytest.raises(DeployError, match="part-00009: leads out of"):
        await _pull(pulled, str(embedding))
    assert not (pulled.input / "part-00009").exists()


async def test_a_listed_pipe_is_refused(embedding: Path, pulled: PulledPass) -> None:
    (embedding / "part-00000").unlink()
    os.mkfifo(embedding / "part-00000")
    manifest = {"files": [{"name": "part-00000", "size": 1}]}
    (embedding / "_manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DeployError, match="part-00000: is no regular file"):
        await _pull(pulled, str(embedding))


async def test_a_source_that_sends_without_end_is_not_listened_to(
    embedding: Path, tmp_path: Path
) -> None:
    (embedding / "_manifest.json").write_text(json.dumps({"files": [{"name": "part-00000"}]}))
    pulled = PulledPass(tmp_path / "pulls" / "1_1", ByteLimits(100))
    with (
        http_directory(embedding) as source,
        pytest.raises(DeployError, match="more than download_bytes_max = 100 bytes"),
    ):
        await _pull(pulled, source.url)
    assert list(pulled.input.iterdir()) == []


async def test_what_its_manifest_says_is_too_large_is_not_begun(
    embedding: Path, tmp_path: Path
) -> None:
    sizes = [entry.stat().st_size for entry in os.scandir(embedding) if "part-" in entry.name]
    fits = PulledPass(tmp_path / "pulls" / "1_1", ByteLimits(max(sizes)))
    small = PulledPass(tmp_path / "pulls" / "2_2", ByteLimits(min(sizes) - 1))
    with http_directory(embedding) as source:
        await _pull(fits, source.url)
        asked = len(source.requests)
        with pytest.raises(DeployError, match=r"part-0000\d: more than download_bytes_max"):
            await _pull(small, source.url)
        assert not any("part-" in path for path in source.requests[asked:])
    _require_same(fits.input, embedding)
    assert list(small.input.iterdir()) == []
