"""A pass on another machine: what the tests of every kind of source share."""

from __future__ import annotations

from pathlib import Path

from cube_transfer.source import PulledPass
from tests.transfer.passes import write_dense, write_embedding

KEY_COUNT = 3000


def write_pass(train: Path) -> Path:
    """Writes pass 1 into a trainer's directory, as three files and a dense model."""
    write_embedding(train / "1" / "embedding", "1", part_count=3, key_count=KEY_COUNT)
    write_dense(train / "1" / "dense", "1_1")
    return train


def nest(embedding: Path) -> None:
    """Moves two of the three files into subdirectories, and adds what is no input."""
    (embedding / "day=1" / "hour=2").mkdir(parents=True)
    (embedding / "part-00001").rename(embedding / "day=1" / "part-00001")
    (embedding / "part-00002").rename(embedding / "day=1" / "hour=2" / "part-00002")
    for hidden in ("_temporary", "day=1/.staging"):
        (embedding / hidden).mkdir()
        (embedding / hidden / "part-00009").write_text("not written to its end")
    (embedding / "day=1" / "_SUCCESS").touch()


def require_same_tree(pulled: Path, embedding: Path) -> None:
    """The visible files of the pass, in the places that they have there."""
    names = {str(path.relative_to(embedding)) for path in embedding.rglob("part-0000[0-2]")}
    found = {str(path.relative_to(pulled)) for path in pulled.rglob("*") if path.is_file()}
    assert found == names
    for name in names:
        assert (pulled / name).read_bytes() == (embedding / name).read_bytes()


def leave_part(pulled: PulledPass, name: str, data: bytes) -> None:
    """What a download that was cut short leaves."""
    pulled.input.mkdir(parents=True, exist_ok=True)
    (pulled.input / f".{name}.part").write_bytes(data)


def require_pulled(pulled: PulledPass, train: Path) -> None:
    """Exactly the files of the pass, and of its dense model if that was pulled."""
    for part in (train / "1" / "embedding").glob("part-*"):
        assert (pulled.input / part.name).read_bytes() == part.read_bytes()
    assert len(list(pulled.input.iterdir())) == 3
    if pulled.dense.is_dir():
        for file in (train / "1" / "dense").iterdir():
            assert (pulled.dense / file.name).read_bytes() == file.read_bytes()
        assert len(list(pulled.dense.iterdir())) == 3
