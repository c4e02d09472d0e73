from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube_core._native import crc32c, crc32c_file, replace_file


def slow_crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def test_reference_vectors() -> None:
    # RFC 3720, B.4
    assert crc32c(b"\0" * 32) == 0x8A9136AA
    assert crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E
    assert crc32c(b"123456789") == 0xE3069283


@given(st.binary(max_size=1200), st.integers(0, 1200))
def test_agrees_with_the_definition_in_pieces(data: bytes, cut: int) -> None:
    assert crc32c(data) == slow_crc32c(data)
    assert crc32c(memoryview(data)[cut:], crc32c(data[:cut])) == crc32c(data)


def test_whole_file(tmp_path: Path) -> None:
    data = bytes(range(256)) * 9000  # over two blocks
    (tmp_path / "f").write_bytes(data)
    assert crc32c_file(str(tmp_path / "f")) == crc32c(data)
    (tmp_path / "empty").touch()
    assert crc32c_file(str(tmp_path / "empty")) == 0
    with pytest.raises(FileNotFoundError):
        crc32c_file(str(tmp_path / "none"))
    with pytest.raises(IsADirectoryError):
        crc32c_file(str(tmp_path))


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path, temporary = tmp_path / "VERSION", tmp_path / ".VERSION.tmp"
    temporary.write_text("left by a process that was killed")
    for text in ("1_1\n", "2_2\n", ""):
        replace_file(str(path), str(temporary), text.encode())
        assert path.read_text() == text
        assert not temporary.exists()
    nowhere = tmp_path / "none" / "VERSION"
    with pytest.raises(FileNotFoundError) as caught:
        replace_file(str(nowhere), str(nowhere.with_name(".tmp")), b"3_3")
    assert caught.value.filename == str(nowhere.with_name(".tmp"))
    path.unlink()
    path.mkdir()
    with pytest.raises(IsADirectoryError, match="VERSION"):
        replace_file(str(path), str(temporary), b"4_4")
