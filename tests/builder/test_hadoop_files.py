"""Files that Hadoop's own library wrote, and ours read by it."""

from __future__ import annotations

import importlib.util
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cube_builder.sources import open_source
from cube_core._native import SequenceFileReader, SequenceFileWriter
from tests.builder.hadoop_cases import CASES, Case

OURS = [(key * 7919 % 2**64, struct.pack("<3f", key, -key, 0.5)) for key in range(400)]
pytestmark = [
    pytest.mark.skipif(shutil.which("java") is None, reason="no Java 17 is installed"),
    pytest.mark.skipif(
        importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed"
    ),
]


@pytest.fixture(scope="session")
def hadoop_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One start of the JVM, which takes seconds, for all files."""
    directory = tmp_path_factory.mktemp("hadoop")
    with SequenceFileWriter(str(directory / "ours")) as writer:
        values = np.frombuffer(b"".join(value for _, value in OURS), np.uint8).reshape(-1, 12)
        writer.append(np.array([key for key, _ in OURS], np.uint64), values)
    subprocess.run(
        [
            *(sys.executable, "-m", "tests.builder.hadoop_peer"),
            *(str(directory / name) for name in (".", "ours", "report.json")),
        ],
        check=True,
        timeout=150,
    )
    yield directory
    shutil.rmtree(directory)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_reads_what_hadoop_writes(hadoop_directory: Path, case: Case) -> None:
    path = hadoop_directory / case.name
    source = open_source(path)
    assert source.value_bytes == case.dim * 4
    pairs: list[tuple[int, bytes]] = []
    for (keys, values), _ in source.batches():
        pairs += zip(keys.tolist(), (value.tobytes() for value in values), strict=True)
    assert pairs == [(key % 2**64, value) for key, value in case.pairs()]


def test_blocks_and_records_are_compressed(hadoop_directory: Path) -> None:
    for case in CASES:
        content = (hadoop_directory / case.name).read_bytes()
        assert (f"hadoop.io.compress.{case.codec}".encode() in content) == bool(case.codec)
    large = [case for case in CASES if case.dim == 3000]
    assert len(large) == 2
    for case in large:
        assert sum(len(value) for _, value in case.pairs()) > 2 * 262_144


def test_hadoop_reads_what_is_written(hadoop_directory: Path) -> None:
    read = json.loads((hadoop_directory / "report.json").read_text())
    assert read == [[struct.pack("<Q", key).hex(), value.hex()] for key, value in OURS]
    assert SequenceFileReader(str(hadoop_directory / "ours")).codec == ""
