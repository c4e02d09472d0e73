from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cube_core._native import Table
from cube_core.errors import TableError
from tests.native.fixtures import build_table


@pytest.fixture
def intact(tmp_path: Path) -> bytes:
    keys = np.arange(8, dtype=np.uint64)
    build_table(tmp_path / "intact", keys, np.full((8, 4), 5, dtype=np.uint8))
    return (tmp_path / "intact").read_bytes()


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    messages = []
    for in_memory in (True, False):
        with pytest.raises(TableError) as caught:
            Table.open(str(path), in_memory=in_memory)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0].startswith(f"{path}: ")
    return messages[0]


def test_every_flipped_byte_is_refused(tmp_path: Path, intact: bytes) -> None:
    for offset in range(len(intact)):
        damaged = bytearray(intact)
        damaged[offset] ^= 0x10
        refusal(tmp_path / "t", bytes(damaged))


def test_every_truncation_is_refused(tmp_path: Path, intact: bytes) -> None:
    for size in range(len(intact)):
        assert "truncated" in refusal(tmp_path / "t", intact[:size])
    assert "its header says" in refusal(tmp_path / "t", intact + b"\0")


def test_refusals_say_what_and_where(tmp_path: Path, intact: bytes) -> None:
    path = tmp_path / "t"

    def flipped(offset: int) -> bytes:
        return intact[:offset] + bytes([intact[offset] ^ 1]) + intact[offset + 1 :]

    assert "not a table" in refusal(path, b"x" * 1000)
    assert "format_version is 0" in refusal(path, flipped(8))
    assert "header: checksum mismatch" in refusal(path, flipped(200))
    assert "block checksum mismatch (offset 512)" in refusal(path, flipped(600))
    assert "footer: checksum mismatch" in refusal(path, flipped(len(intact) - 20))


def test_a_refused_file_leaves_open_tables_alone(tmp_path: Path, intact: bytes) -> None:
    table = Table.open(str(tmp_path / "intact"))
    refusal(tmp_path / "t", intact[:-1])
    assert table.get(np.arange(8, dtype=np.uint64))[1].tolist() == [0] * 8
