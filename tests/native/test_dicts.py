"""Several dicts behind one seeker, and what it counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cube_core._native import LATENCY_BOUNDS_US, Seeker, SeekPlan, Table, parse_frames
from cube_core.errors import VersionNotLoadedError, WireError
from cube_proto import dict_pb2
from tests.native.fixtures import FRAME_BYTES_MAX, REQUEST, build_table

KEYS = np.arange(10, dtype=np.uint64)


def table_of(path: Path, content: int, version: str = "1_1") -> Table:
    return build_table(path, KEYS, np.full((10, 4), content, np.uint8), version=version)


def value(seeker: Seeker, **fields: Any) -> int:
    request = dict_pb2.DictRequest(keys=[3], **fields).SerializeToString()
    return dict_pb2.DictResponse.FromString(seeker.seek(request)).values[0].value[0]


def test_requests_name_their_dict(tmp_path: Path) -> None:
    seeker = Seeker(100, FRAME_BYTES_MAX)
    seeker.set_tables(None, dict_name="a")
    seeker.set_tables(table_of(tmp_path / "b1", 21), dict_name="b")
    with pytest.raises(VersionNotLoadedError, match="no version is loaded"):
        value(seeker)
    seeker.set_tables(table_of(tmp_path / "a1", 11), dict_name="a")
    assert (value(seeker), value(seeker, dict_name="a"), value(seeker, dict_name="b")) == (
        11,
        11,
        21,
    )
    with pytest.raises(VersionNotLoadedError, match="dict 'c' is not served; served: a, b"):
        value(seeker, dict_name="c")
    b2 = table_of(tmp_path / "b2", 22, "2_2")
    seeker.set_tables(b2, [table_of(tmp_path / "b1", 21)], dict_name="b")
    assert value(seeker, dict_name="b") == 22
    assert value(seeker, dict_name="b", version="1_1") == 21
    with pytest.raises(VersionNotLoadedError, match="'2_2' is not loaded; loaded: 1_1"):
        value(seeker, dict_name="a", version="2_2")


def test_one_dict_goes_by_the_name_in_its_table(tmp_path: Path) -> None:
    seeker = Seeker(100, FRAME_BYTES_MAX)
    table = table_of(tmp_path / "a", 11)
    seeker.set_tables(table)
    assert value(seeker, dict_name=table.dict_name) == 11
    with pytest.raises(VersionNotLoadedError, match="'other' is not served"):
        value(seeker, dict_name="other")


def test_a_plan_names_the_dict_when_asked_to() -> None:
    plan = SeekPlan(KEYS, 1)
    request = dict_pb2.DictRequest.FromString(plan.payload(0, dict_name="b", version="1_1"))
    assert (request.dict_name, request.version, len(request.keys)) == ("b", "1_1", 10)
    frames, _, _ = parse_frames(plan.frame(0, 7, dict_name="b"), FRAME_BYTES_MAX)
    assert dict_pb2.DictRequest.FromString(bytes(frames[0].payload)).dict_name == "b"
    assert not dict_pb2.DictRequest.FromString(plan.payload(0)).HasField("dict_name")
    with pytest.raises(ValueError, match="dict_name"):
        plan.payload(0, dict_name="")


def test_requests_bytes_and_latencies_are_counted(tmp_path: Path) -> None:
    seeker = Seeker(100, FRAME_BYTES_MAX)
    seeker.set_tables(table_of(tmp_path / "a", 11))
    reply, _, _, _ = seeker.serve(REQUEST * 5, 1 << 20)
    assert reply
    answer = seeker.seek(dict_pb2.DictRequest(keys=[1, 99]).SerializeToString())
    with pytest.raises(WireError):
        seeker.seek(b"\x08")
    assert list(LATENCY_BOUNDS_US) == sorted(LATENCY_BOUNDS_US)
    assert LATENCY_BOUNDS_US[0] == 10
    assert len(seeker.latency_counts) == len(LATENCY_BOUNDS_US) + 1
    assert sum(seeker.latency_counts) == 6
    assert seeker.latency_sum_ns > 0
    assert seeker.request_bytes == 5 * 10 + 4 + 1
    assert seeker.response_bytes == 5 * (2 * 10 + 10) + len(answer)
