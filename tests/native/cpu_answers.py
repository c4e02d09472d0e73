"""Prints what the kernels use of the CPU, and a digest of the bytes that they write and answer.

python -m tests.native.cpu_answers DIRECTORY
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cube_core._native import Seeker, Table, cpu_level, crc32c, write_table
from cube_proto import dict_pb2

_KEYS = np.arange(2000, dtype=np.uint64)
_DIMS = (1, 7, 8, 10, 16, 33, 64)


def _rows(kind: str, dim: int) -> NDArray[np.uint8]:
    """Rows of any bits, as a table of that kind stores them."""
    random = np.random.default_rng(dim)
    if kind == "int8":
        ends = np.sort(random.normal(0, 3, (len(_KEYS), 2)).astype(np.float32), axis=1)
        return np.hstack([ends.view(np.uint8), random.integers(0, 256, (len(_KEYS), dim), "u1")])
    width = {"bytes": 4, "fp16": 2}[kind] * dim
    return random.integers(0, 256, (len(_KEYS), width), "u1")


def main() -> None:
    digest = hashlib.sha256()
    request = dict_pb2.DictRequest(keys=[*_KEYS.tolist(), 1 << 40]).SerializeToString()
    for kind in ("bytes", "fp16", "int8"):
        for dim in _DIMS:
            path = Path(sys.argv[1]) / f"{kind}_{dim}.table"
            rows = np.ascontiguousarray(_rows(kind, dim))
            names = {"dict_name": "d", "version": "1_1", "value_kind": kind}
            write_table(str(path), _KEYS, rows, shard=0, shard_num=1, **names)  # type: ignore[arg-type]
            table = Table.open(str(path))
            seeker = Seeker(len(_KEYS) + 1, 64 << 20)
            seeker.set_tables(table)
            digest.update(path.read_bytes())
            digest.update(seeker.seek(request))
            digest.update(table.get(_KEYS)[0].tobytes())
            digest.update(crc32c(rows.tobytes()).to_bytes(4, "little"))
    print(cpu_level(), digest.hexdigest())


if __name__ == "__main__":
    main()
