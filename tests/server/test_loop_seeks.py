"""What is answered on the event loop holds it for a short while only."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from cube_core._native import Seeker, Table, encode_request_frame, write_table
from cube_proto import dict_pb2
from cube_server.loop_seeks import LoopSeeks

FRAME_BYTES_MAX = 64 << 20
# The aim is 1 ms; a shared machine is given room, best of five.
LOOP_S_MAX = 0.004


@pytest.mark.parametrize("value_bytes", [4, 40, 4096])
def test_the_largest_seek_on_the_loop_is_short(tmp_path: Path, value_bytes: int) -> None:
    keys = np.arange(128, dtype=np.uint64)
    values = np.zeros((128, value_bytes), dtype=np.uint8)
    path = str(tmp_path / "wide.table")
    write_table(path, keys, values, dict_name="d", version="1_1", shard=0, shard_num=1)
    seeker = Seeker(1_000_000, FRAME_BYTES_MAX)
    seeker.set_tables(Table.open(path))
    loop_seeks = LoopSeeks(seeker)
    loop_seeks.fit(value_bytes)
    # Two bytes a key, the most keys that a payload can hold.
    key_count = loop_seeks.payload_bytes_max // 2
    payload = dict_pb2.DictRequest(keys=[5] * key_count).SerializeToString()
    frame = encode_request_frame("DictService", "seek", 1, payload)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        reply, left_over, _, _ = loop_seeks.serve(frame, FRAME_BYTES_MAX)
        seconds.append(time.perf_counter() - started)
        assert (len(reply) > key_count * value_bytes, left_over) == (True, [])
    assert min(seconds) < LOOP_S_MAX

    longer = encode_request_frame("DictService", "seek", 1, payload + b"\x08\x05")
    reply, left_over, _, _ = loop_seeks.serve(longer, FRAME_BYTES_MAX)
    assert (reply, len(left_over)) == (b"", 1)
