"""Builds the shard tables of a pass on one machine.

The input is read once, batch by batch, and set aside per shard: in memory as far as the job's
bound goes, on the disk of the output beyond that; then one shard after the other is written as a
table. So whatever the size of the pass, memory needs to hold the largest shard and one batch only;
a shard over the bound is refused as soon as its records are counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cube_builder.base import check_like_base, width_without_values
from cube_builder.job import REPORT_NAME, BuildJob, BuildReport, ShardReport
from cube_builder.manifest import check_against_manifest
from cube_builder.memory import MemoryBound
from cube_builder.pass_rows import pass_rows, row_bytes
from cube_builder.quantize import Quantizer
from cube_builder.shard_table import write_shard_table
from cube_builder.sources import common_width, no_records, open_source, source_files
from cube_builder.spill import ShardSpill
from cube_builder.staging import staged_directory
from cube_core.errors import BuildError

_SPILL_NAME = "spill"


@dataclass(frozen=True)
class Progress:
    """How far a build is: bytes of the input read, or shards written."""

    stage: Literal["read", "write"]
    done: int
    total: int
    record_count: int


OnProgress = Callable[[Progress], None]


def build(job: BuildJob, on_progress: OnProgress | None = None) -> BuildReport:
    """Builds `<output_path>/<version>/<dict_name>_part<shard>.table` for every shard, and
    `build.json` beside them.

    The directory appears whole, in the place of an earlier build of the same dict; a build that
    fails leaves nothing. A shard without keys gets an empty table.

    Raises:
        BuildError: input that makes no pass (file named), what the job refuses (key named), a
            shard over the bound on memory, or an output directory that holds something else.
        SequenceFileError: a malformed input file (file and offset named).
        OSError: the disk.
    """
    report_progress = on_progress or (lambda _: None)
    files = source_files(job.input_path)
    check_against_manifest(job.input_path, files)
    base = _standing_base(job)
    value_bytes = 0
    if not job.is_variable:
        sources = (open_source(path, deletions=job.delta) for path in files)
        value_bytes = common_width(sources, default=width_without_values(job, base))
    check_like_base(job, value_bytes, base)
    quantizer = Quantizer(job.quant, value_bytes, files[0])
    spilled_bytes = row_bytes(job, quantizer)
    memory = MemoryBound(job.memory_mb, job.shard_num, spilled_bytes)
    with staged_directory(job.directory, _check_replaceable(job)) as staging:
        spill_directory = staging / _SPILL_NAME
        spill_directory.mkdir()
        spill = ShardSpill(spill_directory, job.shard_num, spilled_bytes, memory)
        record_count = _spill_all(job, files, spill, quantizer, report_progress)
        shards = _write_tables(job, staging, spill, record_count, report_progress)
        shutil.rmtree(spill_directory)
        report = BuildReport(
            dict_name=job.dict_name,
            version=str(job.version),
            shard_num=job.shard_num,
            value_bytes=value_bytes,
            record_count=record_count,
            shards=shards,
            quant=job.quant,
            quant_max_error=quantizer.max_error,
            quant_mean_error=quantizer.mean_error,
            base_version=str(job.base_version or ""),
            value_width=job.value_width,
        )
        (staging / REPORT_NAME).write_text(report.to_json(), encoding="utf-8")
    return report


def _standing_base(job: BuildJob) -> BuildReport | None:
    if job.base_version is None:
        return None
    directory = job.output_path / str(job.base_version)
    return BuildReport.read(directory) if (directory / REPORT_NAME).is_file() else None


def _check_replaceable(job: BuildJob) -> Callable[[Path], None]:
    def check(directory: Path) -> None:
        try:
            standing = BuildReport.read(directory)
        except BuildError as error:
            raise BuildError(
                f"{directory}: exists and is no build of cube-builder; remove it or choose "
                "another output_path"
            ) from error
        if standing.dict_name != job.dict_name:
            raise BuildError(
                f"{directory}: holds a build of dict {standing.dict_name!r}; choose another "
                f"output_path for {job.dict_name!r}"
            )

    return check


def _spill_all(
    job: BuildJob,
    files: list[Path],
    spill: ShardSpill,
    quantizer: Quantizer,
    report_progress: OnProgress,
) -> int:
    bytes_total = sum(open_source(path, deletions=job.delta).input_bytes for path in files)
    bytes_before = 0
    record_count = 0
    for path in files:
        source = open_source(path, deletions=job.delta)
        for (keys, rows), offset in pass_rows(job, source, quantizer):
            spill.add(keys, rows)
            record_count += len(keys)
            report_progress(Progress("read", bytes_before + offset, bytes_total, record_count))
        bytes_before += source.input_bytes
    if not record_count and not job.delta:
        raise no_records(files)
    return record_count


def _write_tables(
    job: BuildJob,
    staging: Path,
    spill: ShardSpill,
    record_count: int,
    report_progress: OnProgress,
) -> tuple[ShardReport, ...]:
    reports: list[ShardReport] = []
    for shard in range(job.shard_num):
        reports.append(_write_shard(job, staging, spill, shard))
        report_progress(Progress("write", shard + 1, job.shard_num, record_count))
    return tuple(reports)


def _write_shard(job: BuildJob, staging: Path, spill: ShardSpill, shard: int) -> ShardReport:
    keys, rows = spill.take(shard)
    return write_shard_table(job, shard, keys, rows, staging / job.table_name(shard))
