"""SequenceFiles that Hadoop itself is asked to write: their classes, codecs and pairs."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import product

import numpy as np

KEY_CLASSES = ("BytesWritable", "LongWritable", "IntWritable", "VLongWritable", "Text")
VALUE_CLASSES = ("BytesWritable", "Text", "ArrayWritable")
# Zstandard needs a native library that Hadoop's jars do not carry.
CODECS = ("DefaultCodec", "GzipCodec", "BZip2Codec", "SnappyCodec", "Lz4Codec")
MODES = ("RECORD", "BLOCK")

Pair = tuple[int, bytes]


@dataclass(frozen=True)
class Case:
    """One file; `mode` and `codec` are "" when nothing is compressed."""

    key_class: str
    value_class: str
    mode: str = ""
    codec: str = ""
    dim: int = 3
    count: int = 40

    @property
    def name(self) -> str:
        parts = (self.key_class, self.value_class, self.mode, self.codec, str(self.dim))
        return "-".join(part for part in parts if part)

    def pairs(self) -> list[Pair]:
        """Signed keys and float32 values, of which every codec finds something to compress."""
        keys = [0, 1, -1, 127, 128, -113, 2**31 - 1, -(2**31), *range(1000, 1000 + self.count)]
        if self.key_class != "IntWritable":
            keys[2:2] = [2**63 - 1, -(2**63), 2**40]
        draw = np.random.default_rng(self.dim)
        rows = draw.standard_normal((len(keys), self.dim)).astype("<f4")
        rows[:, 0] = 0.5
        return [(key, row.tobytes()) for key, row in zip(keys, rows, strict=True)]


CASES = (
    *(Case(*classes) for classes in product(KEY_CLASSES, VALUE_CLASSES)),
    *(Case(*each) for each in product(KEY_CLASSES, VALUE_CLASSES, MODES, CODECS)),
    # Blocks over 256 KiB are cut into several chunks by the codecs that frame them.
    *(Case("BytesWritable", "BytesWritable", "BLOCK", codec, 3000) for codec in CODECS[3:]),
)


def floats(value: bytes) -> list[float]:
    return list(struct.unpack(f"<{len(value) // 4}f", value))
