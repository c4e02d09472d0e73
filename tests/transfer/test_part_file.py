"""A download that ends at any point: what is on disk is gone on with, or begun anew."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

import pytest

from cube_core.file_list import ListedFile
from cube_transfer import part_file
from cube_transfer.part_file import PartFile, Provenance
from cube_transfer.pass_bytes import ByteLimits, PassBytes
from cube_transfer.remote import FileFacts, RemoteFile

FACTS = FileFacts("v1 900", 900)
BLOCK = bytes(range(100))


@pytest.fixture(autouse=True)
def _checkpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(part_file, "CHECKPOINT_BYTES", 250)


def _part(directory: Path, crc32c: int | None = None) -> PartFile:
    file = RemoteFile("http://host/part-0", ListedFile(name="part-0", crc32c=crc32c))
    return PartFile(directory / "part-0", file, PassBytes(ByteLimits()))


def _begun(directory: Path) -> PartFile:
    """Eight blocks of nine, of which six are known to be on disk."""
    part = _part(directory)
    part.begin(0, FACTS)
    for _ in range(8):
        part.write(BLOCK)
    return part


def test_a_killed_daemon_leaves_what_was_on_disk(tmp_path: Path) -> None:
    with contextlib.closing(_begun(tmp_path / "killed")):
        # What a process finds that comes after it.
        shutil.copytree(tmp_path / "killed", tmp_path / "next")
    with contextlib.closing(_part(tmp_path / "next")) as part:
        assert (part.size, part.identity) == (600, "v1 900")
        part.begin(600, FACTS)
        for _ in range(3):
            part.write(BLOCK)
        part.finish()
    assert (tmp_path / "next" / "part-0").read_bytes() == BLOCK * 9
    known = Provenance.read(tmp_path / "next" / "part-0")
    assert known is not None
    assert known.size == 900


def test_a_part_that_lost_its_end_is_begun_anew(tmp_path: Path) -> None:
    """As after a power cut."""
    _begun(tmp_path).close()
    left = tmp_path / ".part-0.part"
    left.write_bytes(left.read_bytes()[:700] + bytes(100))
    with contextlib.closing(_part(tmp_path)) as part:
        assert part.size == 0
        assert left.stat().st_size == 0


def test_a_part_without_identity_does_not_stay(tmp_path: Path) -> None:
    with contextlib.closing(_part(tmp_path)) as part:
        part.begin(0, FileFacts())
        part.write(BLOCK)
    assert list(tmp_path.iterdir()) == []


def test_a_part_with_a_checksum_needs_no_provenance(tmp_path: Path) -> None:
    with contextlib.closing(_part(tmp_path, crc32c=1)) as part:
        part.begin(0, FACTS)
        part.write(BLOCK)
    assert [path.name for path in tmp_path.iterdir()] == [".part-0.part"]
    with contextlib.closing(_part(tmp_path, crc32c=1)) as part:
        assert part.size == 100
