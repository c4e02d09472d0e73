"""Bytes captured from the original Cube, and tables and values made the way it had them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_core._native import Table, write_table

# Asks for keys 1, 2 and 999999999 with correlation id 6.
REQUEST = bytes.fromhex(
    "50525043 0000002d 00000023"
    "0a1d 0a15 7265632e6d637562652e4469637453657276696365 1204 7365656b"
    "1800 2006"
    "0801 0802 08ff93ebdc03"
)
REQUEST_WITH_VERSION = REQUEST.replace(bytes.fromhex("0000002d"), bytes.fromhex("0000002f")) + (
    bytes.fromhex("1001")
)
# Key k holds ten float32 k + j/16; the third key does not exist.
RESPONSE = bytes.fromhex(
    "50525043 0000006e 00000008"
    "1202 0800 1800 2006"
    "0a2c 0800 1228"
    "0000803f0000883f0000903f0000983f0000a03f0000a83f0000b03f0000b83f0000c03f0000c83f"
    "0a2c 0800 1228"
    "00000040000004400000084000000c4000001040000014400000184000001c400000204000002440"
    "0a08 08ffffffff0f 1200"
)
RESPONSE_VERSION = "10_10"
RESPONSE_WITH_VERSION = (
    RESPONSE.replace(bytes.fromhex("0000006e"), bytes.fromhex("00000075"))
    + bytes.fromhex("1205")
    + RESPONSE_VERSION.encode()
)
HEAD_BYTES = 12
META_BYTES = 35
FRAME_BYTES_MAX = 64 << 20


def original_rows(keys: NDArray[np.uint64]) -> NDArray[np.float32]:
    """float32[n, 10]: row of key k is k + j/16."""
    return (keys[:, None].astype(np.float32) + np.arange(10, dtype=np.float32) / 16).astype(
        np.float32
    )


def as_values(rows: NDArray[np.float32]) -> NDArray[np.uint8]:
    """float32[n, dim] as the opaque bytes uint8[n, 4 * dim] of a table."""
    return np.ascontiguousarray(rows).view(np.uint8)


def build_table(
    path: Path,
    keys: NDArray[np.uint64],
    values: NDArray[np.uint8],
    *,
    version: str = RESPONSE_VERSION,
    shard: int = 0,
    shard_num: int = 1,
) -> Table:
    """Writes a table and opens it."""
    write_table(
        str(path),
        keys,
        values,
        dict_name="test_dict",
        version=version,
        shard=shard,
        shard_num=shard_num,
    )
    return Table.open(str(path))


def original_table(path: Path, key_count: int = 1000, version: str = RESPONSE_VERSION) -> Table:
    """A table of keys 0 to key_count - 1 with the rows of the original's capture."""
    keys = np.arange(key_count, dtype=np.uint64)
    return build_table(path, keys, as_values(original_rows(keys)), version=version)
