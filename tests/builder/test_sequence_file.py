"""SequenceFiles: what is read, what is written, what is refused."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_core._native import SequenceFileReader, SequenceFileWriter
from cube_core.errors import SequenceFileError
from tests.builder import sequence_bytes as raw
from tests.builder.sequence_bytes import Pair

PAIRS: list[Pair] = [(1, b"\x01" * 8), (2**64 - 1, bytes(range(8))), (1, b"\x00" * 8)]
FILES: dict[str, Callable[[Iterable[Pair]], bytes]] = {
    "paddle": raw.paddle_file,
    "hadoop": raw.hadoop_file,
    "long": raw.long_file,
}

shared_directory = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def read_all(path: Path, records_max: int = 1000) -> list[Pair]:
    reader = SequenceFileReader(str(path))
    pairs: list[Pair] = []
    while True:
        keys, values = reader.read(records_max)
        assert keys.dtype == np.uint64
        assert values.dtype == np.uint8
        assert len(keys) == len(values) <= records_max
        if not len(keys):
            assert reader.offset == reader.file_bytes == path.stat().st_size
            return pairs
        pairs += zip(keys.tolist(), (value.tobytes() for value in values), strict=True)


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(SequenceFileError) as caught:
        read_all(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.mark.parametrize("kind", FILES)
def test_reads_each_dialect(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(FILES[kind](PAIRS))
    reader = SequenceFileReader(str(path))
    assert reader.dialect == ("paddle" if kind == "paddle" else "hadoop")
    assert reader.value_bytes == 8
    assert reader.value_class == raw.BYTES_WRITABLE
    assert reader.key_class == (raw.LONG_WRITABLE if kind == "long" else raw.BYTES_WRITABLE)
    assert read_all(path) == PAIRS
    assert read_all(path, records_max=1) == PAIRS


def test_reads_metadata_and_sync_markers_anywhere(tmp_path: Path) -> None:
    path = tmp_path / "file"
    records = [raw.hadoop_record(*pair) for pair in PAIRS]
    header = raw.header(metadata={"writer": "x" * 200, "": ""})
    path.write_bytes(header + raw.SYNC_ESCAPE * 2 + raw.SYNC_ESCAPE.join(records) + raw.SYNC_ESCAPE)
    assert read_all(path) == PAIRS


@pytest.mark.parametrize("tail", [b"", raw.SYNC_ESCAPE])
def test_a_file_without_records_is_empty(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(raw.header() + tail)
    reader = SequenceFileReader(str(path))
    assert (reader.dialect, reader.value_bytes) == ("", 0)
    assert read_all(path) == []


@shared_directory
@given(
    keys=st.lists(st.integers(0, 2**64 - 1), max_size=50),
    width=st.integers(1, 100),
    dialect=st.sampled_from(["hadoop", "paddle"]),
    records_max=st.integers(1, 60),
    data=st.data(),
)
def test_what_is_written_is_read(
    tmp_path: Path,
    keys: list[int],
    width: int,
    dialect: str,
    records_max: int,
    data: st.DataObject,
) -> None:
    path = tmp_path / "file"
    values = [data.draw(st.binary(min_size=width, max_size=width)) for _ in keys]
    with SequenceFileWriter(str(path), dialect=dialect) as writer:
        matrix = np.frombuffer(b"".join(values), np.uint8).reshape(len(keys), width)
        writer.append(np.array(keys, np.uint64), matrix)
    assert read_all(path, records_max) == list(zip(keys, values, strict=True))
    if keys:
        assert SequenceFileReader(str(path)).dialect == dialect


@pytest.mark.parametrize("dialect", ["hadoop", "paddle"])
def test_writes_the_bytes_of_the_format(tmp_path: Path, dialect: str) -> None:
    path = tmp_path / "file"
    keys = np.array([key for key, _ in PAIRS], np.uint64)
    values = np.frombuffer(b"".join(value for _, value in PAIRS), np.uint8).reshape(3, 8)
    with SequenceFileWriter(str(path), dialect=dialect) as writer:
        writer.append(keys, values)
    expected = FILES[dialect](PAIRS)
    content = path.read_bytes()
    sync = slice(len(raw.header()) - 16, len(raw.header()))
    assert content[: sync.start] == expected[: sync.start]
    assert content[sync.stop :] == expected[sync.stop :]


def test_writes_a_sync_marker_about_every_100_kib(tmp_path: Path) -> None:
    path = tmp_path / "file"
    keys = np.arange(20_000, dtype=np.uint64)
    with SequenceFileWriter(str(path)) as writer:
        writer.append(keys, np.zeros((len(keys), 40), np.uint8))
    content = path.read_bytes()
    header_bytes = len(raw.header())
    escape = b"\xff" * 4 + content[header_bytes - 16 : header_bytes]
    assert content.count(escape) == (len(content) - header_bytes) // (100 * 1024)
    assert len(read_all(path)) == len(keys)


def test_equal_input_gives_equal_files(tmp_path: Path) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        with SequenceFileWriter(str(tmp_path / directory / "part")) as writer:
            writer.append(np.arange(9, dtype=np.uint64), np.ones((9, 3), np.uint8))
    assert (tmp_path / "a/part").read_bytes() == (tmp_path / "b/part").read_bytes()


def test_a_writer_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail_in_the_block() -> None:
        with SequenceFileWriter(str(tmp_path / "file")) as writer:
            writer.append(np.arange(9, dtype=np.uint64), np.ones((9, 3), np.uint8))
            raise KeyError("in the block")

    with pytest.raises(KeyError):
        fail_in_the_block()
    assert list(tmp_path.iterdir()) == []


def test_a_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    keys = np.arange(2, dtype=np.uint64)
    with pytest.raises(ValueError, match="dialect"):
        SequenceFileWriter(str(tmp_path / "file"), dialect="avro")
    with pytest.raises(FileNotFoundError):
        SequenceFileWriter(str(tmp_path / "none/file"))
    with SequenceFileWriter(str(tmp_path / "file")) as writer:
        with pytest.raises(ValueError, match="2 keys, but 3 values"):
            writer.append(keys, np.ones((3, 4), np.uint8))
        for width in (0, 65_536):
            with pytest.raises(ValueError, match="allowed are 1 to 65535"):
                writer.append(keys, np.ones((2, width), np.uint8))
        writer.append(keys, np.ones((2, 4), np.uint8))
        with pytest.raises(ValueError, match="values of 5 bytes after values of 4"):
            writer.append(keys, np.ones((2, 5), np.uint8))
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append(keys, np.ones((2, 4), np.uint8))
    assert len(read_all(tmp_path / "file")) == 2


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"", 'does not begin with "SEQ"'),
        (b"PAR1" + b"x" * 90, 'does not begin with "SEQ"'),
        (raw.header(version=5), "version 5; only version 6"),
        (
            raw.header(compressed=True, codec="a.b.GzipCodec"),
            "record-compressed with a.b.GzipCodec",
        ),
        (
            raw.header(compressed=True, block_compressed=True, codec="Lz4"),
            "block-compressed with Lz4, and the reader was given no codecs",
        ),
        (raw.header("org.apache.hadoop.io.MD5Hash"), 'key class "org.apache.hadoop.io.MD5Hash"'),
        (raw.header(value_class="a.Text"), 'value class "a.Text" is not supported'),
        (b"SEQ\x06\x80" + b"\x00" * 8, "key class has a length of -1"),
        (b"SEQ\x06\x8c" + b"\x7f" * 4, "key class has a length of 2139062143"),
        (raw.header()[:-20] + b"\xff" * 20, "4294967295 metadata pairs"),
    ],
)
def test_refuses_headers(tmp_path: Path, header: bytes, problem: str) -> None:
    message = refusal(tmp_path / "file", header)
    assert problem in message
    assert "(offset " in message


FIRST = raw.paddle_record(7, b"x" * 8)


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        (raw.record(b"k" * 9, b"v" * 8), "a key of 9 bytes"),
        (raw.record(b"k" * 8, b""), "no value, which deletes it"),
        (raw.record(b"\x00\x00\x00\x08" + b"k" * 8, b"v" * 8), "does not agree"),
        (raw.record(b"\x00\x00\x00\x09" + b"k" * 8, b"\x00\x00\x00\x04vvvv"), "does not agree"),
        (struct.pack(">II", 2**31, 8) + b"k" * 8, "a record of 2147483648 bytes"),
        (struct.pack(">II", 8 + 65_536, 8) + b"k" * 65_544, "a value of 65536 bytes"),
        (struct.pack(">II", 4, 8) + b"k" * 8, "a record of 4 bytes"),
        (
            FIRST + raw.paddle_record(9, b"y" * 9),
            "key 9: a value of 9 bytes; the file's first has 8",
        ),
        (FIRST + raw.record(b"k" * 7, b"v" * 9), "a key of 7 bytes is no raw key of 8 bytes"),
        (FIRST + raw.record(struct.pack("<Q", 5), b""), "key 5: no value"),
        (raw.hadoop_record(1, b"x" * 8) + FIRST, "a key of 8 bytes is no key of"),
        (
            raw.hadoop_record(1, b"x" * 8)
            + raw.record(struct.pack(">I", 8) + b"k" * 8, struct.pack(">I", 7) + b"v" * 8),
            "does not agree",
        ),
        (FIRST + b"\xff" * 4 + b"\x00" * 16 + FIRST, "sync marker is not that of the header"),
        (FIRST + raw.SYNC_ESCAPE[:-1], "ends inside a record or sync marker"),
        (FIRST + FIRST[:-1], "ends inside a record or sync marker"),
        (FIRST[:6], "ends inside a record or sync marker"),
    ],
)
def test_refuses_records(tmp_path: Path, records: bytes, problem: str) -> None:
    message = refusal(tmp_path / "file", raw.header() + records)
    assert problem in message
    assert "(offset " in message


def test_names_the_offset_of_the_record(tmp_path: Path) -> None:
    offset = len(raw.header()) + len(FIRST)
    message = refusal(tmp_path / "file", raw.header() + FIRST + raw.paddle_record(9, b"y" * 9))
    assert message.endswith(f"(offset {offset})")


def test_missing_files_and_directories_are_os_errors(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nothing"):
        SequenceFileReader(str(tmp_path / "nothing"))
    with pytest.raises(IsADirectoryError):
        SequenceFileReader(str(tmp_path))


@pytest.mark.parametrize("kind", FILES)
def test_a_file_cut_off_is_refused_unless_it_ends_between_records(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "file"
    whole = FILES[kind](PAIRS)
    header_bytes = len(FILES[kind]([]))
    record_bytes = (len(whole) - header_bytes) // len(PAIRS)
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        records, rest = divmod(size - header_bytes, record_bytes)
        if records >= 0 and rest == 0:
            assert read_all(path) == PAIRS[:records]
        else:
            with pytest.raises(SequenceFileError):
                read_all(path)


@pytest.mark.parametrize("kind", FILES)
def test_every_flipped_bit_of_a_length_is_detected(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    whole = FILES[kind](PAIRS)
    header_bytes = len(FILES[kind]([]))
    record_bytes = (len(whole) - header_bytes) // len(PAIRS)
    lengths = {
        "paddle": range(8),
        "hadoop": (*range(12), *range(20, 24)),
        "long": (*range(8), *range(16, 20)),
    }[kind]
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            in_record = position >= header_bytes
            if in_record and (position - header_bytes) % record_bytes in lengths:
                with pytest.raises(SequenceFileError):
                    read_all(path)
            elif in_record:
                assert len(read_all(path)) == len(PAIRS)
            else:
                read_or_refuse(path)


@shared_directory
@given(content=st.binary(max_size=300), with_header=st.booleans())
def test_random_bytes_never_crash(tmp_path: Path, content: bytes, with_header: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes((raw.header() if with_header else b"") + content)
    read_or_refuse(path)


def read_or_refuse(path: Path) -> None:
    pairs: list[Pair] = []
    with contextlib.suppress(SequenceFileError):
        pairs = read_all(path)
    assert len(pairs) * 17 <= path.stat().st_size


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("", "1 2", 'the key "" is no decimal number'),
        ("1.5", "1 2", 'the key "1.5" is no decimal number'),
        ("18446744073709551616", "1 2", "is no decimal number of 64 bits"),
        ("-9223372036854775809", "1 2", "is no decimal number of 64 bits"),
        ("7", "1 two", 'key 7: the value\'s "two" is no float32'),
        ("7", "1 2,", 'key 7: the value\'s "2," is no float32'),
        ("7", "1 2 3", "key 7: a value of 12 bytes; the file's first has 8"),
        ("7", "  ", "key 7: no value"),
    ],
)
def test_refuses_text(tmp_path: Path, key: str, value: str, problem: str) -> None:
    name = "org.apache.hadoop.io.Text"
    records = raw.record(raw.text("5"), raw.text("1 2")) + raw.record(
        raw.text(key), raw.text(value)
    )
    assert problem in refusal(tmp_path / "file", raw.header(name, name) + records)


def test_reads_numbers_as_java_writes_them(tmp_path: Path) -> None:
    name = "org.apache.hadoop.io.Text"
    path = tmp_path / "file"
    numbers = "1.0E10 -3.4028235E38\t+7 1.0E-50 1e39 NaN -Infinity 0.1"
    path.write_bytes(raw.header(name, name) + raw.record(raw.text("-1"), raw.text(numbers)))
    [(key, value)] = read_all(path)
    assert key == 2**64 - 1
    expected = np.array([1e10, -3.4028235e38, 7, 0, np.inf, np.nan, -np.inf, 0.1], np.float32)
    np.testing.assert_array_equal(np.frombuffer(value, np.float32), expected)
