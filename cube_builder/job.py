"""What a build is asked for, and what it made."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cube_builder.batches import VALUE_WIDTHS, ValueWidth
from cube_builder.checks import ON_DUPLICATE, ON_NONFINITE, OnDuplicate, OnNonfinite
from cube_builder.quantize import QUANTS, Quant
from cube_core.errors import BuildError
from cube_core.versions import Version

SHARD_NUM_MAX = 65_535
REPORT_NAME = "build.json"

_REPORT_FORMAT = 1
_DICT_NAME = re.compile(r"[0-9A-Za-z_\-][0-9A-Za-z_.\-]{0,127}")


@dataclass(frozen=True)
class BuildJob:
    """One pass to be cut into shard tables: a base, or a patch of one.

    Args:
        dict_name: name of the dict, part of the tables' file names.
        input_path: a SequenceFile, or a directory of them.
        output_path: the tables go to `<output_path>/<version>/`.
        shard_num: shard of a key = key % shard_num.
        version: "<depend>_<cur>".
        delta: a patch over the base "<depend>_<depend>": keys whose value is empty are deleted.
        on_duplicate: of several records with a key, "last" keeps the last, "error" refuses them.
        on_nonfinite: "error" refuses NaN and infinities in values whose width is a multiple of 4,
            "keep" takes them.
        quant: "none", or how rows of float32 are stored: "fp16" or "int8"; needs finite values.
        value_width: "fixed": one for all values, others are refused; "variable": a width each.
        memory_mb: bound on the memory of a build on this machine, in MiB; None: four fifths of
            the machine's.

    Raises:
        BuildError: a field that cannot be used (named).
    """

    dict_name: str
    input_path: Path
    output_path: Path
    shard_num: int
    version: Version
    on_duplicate: OnDuplicate = "last"
    on_nonfinite: OnNonfinite = "error"
    memory_mb: int | None = None
    quant: Quant = "none"
    delta: bool = False
    value_width: ValueWidth = "fixed"

    def __post_init__(self) -> None:
        if not _DICT_NAME.fullmatch(self.dict_name):
            raise BuildError(
                f"dict_name {self.dict_name!r}: write 1 to 128 letters, digits, '_', '-' or '.', "
                "not beginning with '.'"
            )
        if not 1 <= self.shard_num <= SHARD_NUM_MAX:
            raise BuildError(f"shard_num {self.shard_num}: must be 1 to {SHARD_NUM_MAX}")
        if self.on_duplicate not in ON_DUPLICATE:
            raise BuildError(f"on_duplicate {self.on_duplicate!r}: must be last or error")
        if self.on_nonfinite not in ON_NONFINITE:
            raise BuildError(f"on_nonfinite {self.on_nonfinite!r}: must be error or keep")
        if self.quant not in QUANTS:
            raise BuildError(f"quant {self.quant!r}: must be none, fp16 or int8")
        if self.value_width not in VALUE_WIDTHS:
            raise BuildError(f"value_width {self.value_width!r}: must be fixed or variable")
        if self.quant != "none" and self.is_variable:
            raise BuildError(f"quant {self.quant}: rows have one width, value_width must be fixed")
        if self.quant != "none" and self.on_nonfinite != "error":
            raise BuildError(f"quant {self.quant}: needs finite values, on_nonfinite must be error")
        if self.delta and self.version.is_base:
            raise BuildError(
                f"version {self.version}: is a base; a delta has a version of its own over its base"
            )

    @property
    def directory(self) -> Path:
        return self.output_path / str(self.version)

    @property
    def is_variable(self) -> bool:
        """Whether values have a width each."""
        return self.value_width == "variable"

    @property
    def base_version(self) -> Version | None:
        """The base that a delta is over."""
        return Version(self.version.base, self.version.base) if self.delta else None

    def table_name(self, shard: int) -> str:
        return f"{self.dict_name}_part{shard}.table"


@dataclass(frozen=True)
class ShardReport:
    """One shard table; `crc32c` is of the whole file. In a delta `key_count` counts deleted keys
    too."""

    shard: int
    file: str
    key_count: int
    duplicate_count: int
    file_bytes: int
    crc32c: int
    deletion_count: int = 0


@dataclass(frozen=True)
class BuildReport:
    """What a build made; `build.json` beside the tables holds the same.

    `base_version` is "" but for a delta. `value_bytes` is the width of every value, 0 when they
    have a width each (`value_width` is "variable"). `record_count` counts the input's records
    (duplicates included). `quant_max_error` and `quant_mean_error` are
    what `quant` changes an element of the records by, at most and in the mean. Nothing in it
    depends on time or place, so equal input gives an equal file.
    """

    dict_name: str
    version: str
    shard_num: int
    value_bytes: int
    record_count: int
    shards: tuple[ShardReport, ...]
    quant: str = "none"
    quant_max_error: float = 0.0
    quant_mean_error: float = 0.0
    base_version: str = ""
    value_width: str = "fixed"

    @property
    def dim(self) -> int | None:
        """Float32 elements of a value; None when its width is no multiple of 4, or variable."""
        return None if self.value_bytes % 4 else self.value_bytes // 4 or None

    def to_json(self) -> str:
        fields = {
            "format": _REPORT_FORMAT,
            "dict_name": self.dict_name,
            "version": self.version,
            "base_version": self.base_version,
            "shard_num": self.shard_num,
            "value_width": self.value_width,
            "value_bytes": self.value_bytes,
            "dim": self.dim,
            "record_count": self.record_count,
            "quant": self.quant,
            "quant_max_error": self.quant_max_error,
            "quant_mean_error": self.quant_mean_error,
            "shards": [vars(shard) for shard in self.shards],
        }
        return json.dumps(fields, indent=1) + "\n"

    @classmethod
    def read(cls, directory: Path) -> BuildReport:
        """Reads `build.json` of a build's directory.

        Raises:
            BuildError: missing, unreadable or not such a report.
        """
        path = directory / REPORT_NAME
        try:
            content = path.read_bytes()
        except OSError as error:
            raise BuildError(f"{path}: no report of a build: {error!r}") from error
        return cls.parse(content, str(path))

    @classmethod
    def parse(cls, content: bytes, where: str) -> BuildReport:
        """Takes the bytes of a `build.json`; `where` names it in errors.

        Raises:
            BuildError: not such a report.
        """
        try:
            fields = json.loads(content)
            if fields["format"] != _REPORT_FORMAT:
                raise BuildError(f"{where}: format {fields['format']!r}, expected {_REPORT_FORMAT}")
            return cls._from_fields(fields)
        except (ValueError, KeyError, TypeError) as error:
            raise BuildError(f"{where}: no report of a build: {error!r}") from error

    @classmethod
    def _from_fields(cls, fields: dict[str, Any]) -> BuildReport:
        return cls(
            dict_name=str(fields["dict_name"]),
            version=str(fields["version"]),
            shard_num=int(fields["shard_num"]),
            value_bytes=int(fields["value_bytes"]),
            record_count=int(fields["record_count"]),
            shards=tuple(ShardReport(**shard) for shard in fields["shards"]),
            quant=str(fields.get("quant", "none")),
            quant_max_error=float(fields.get("quant_max_error", 0.0)),
            quant_mean_error=float(fields.get("quant_mean_error", 0.0)),
            base_version=str(fields.get("base_version", "")),
            value_width=str(fields.get("value_width", "fixed")),
        )
