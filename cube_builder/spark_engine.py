"""Builds the shard tables of a pass on a Spark cluster.

A task reads an input file with the readers of the local engine and cuts its pairs over the shards;
after the shuffle a task has one shard, and writes its table with the same kernel. Pairs move in
batches, never one by one, and each batch knows its place in the pass: the last of several equal
keys is the same as in the local engine, and so is every byte of the tables.
"""

from __future__ import annotations

import contextlib
import re
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cube_builder.base import check_like_base, width_without_values
from cube_builder.batches import ONE_WIDTH, ByteValues, Values
from cube_builder.changes import with_mark, without_mark
from cube_builder.filesystem import Place
from cube_builder.input_names import INDEX_NAME, is_visible
from cube_builder.job import REPORT_NAME, BuildJob, BuildReport, ShardReport
from cube_builder.manifest import compare_with_manifest
from cube_builder.pass_rows import MARK_BYTES, pass_rows
from cube_builder.quantize import Quantizer, mean_error
from cube_builder.shard_table import write_shard_table
from cube_builder.sources import in_natural_order, no_records, open_source
from cube_core.errors import BuildError
from cube_core.pass_files import MANIFEST_NAME

# Of one file for one shard: number of the file, of the batch in it, name of the file, width of its
# values (0: it has no records, or the width is variable), keys, values, and their widths when
# those are variable. What a shard gets from a file begins with batch -1.
Chunk = tuple[int, int, str, int, bytes, bytes, bytes]
ShardResult = tuple[ShardReport, int, int, Quantizer]
"""With the number of records, the width of values, and what became of them."""

_FIRST_BATCH = -1
_TASK_ERROR = re.compile(r"cube_core\.errors\.\w+: (.*)")


def build_on_spark(
    job: BuildJob, input_address: str, output_address: str, session: Any
) -> BuildReport:
    """Builds what `local_engine.build` builds, to any filesystem.

    The paths of `job` have no meaning here, nor has its `memory_mb`: a task holds one shard.

    Args:
        input_address: path or URI of the input files.
        output_address: the tables go to `<output_address>/<version>/`.
        session: a SparkSession.

    Raises:
        BuildError: input that makes no pass, what the job refuses, or an output directory that
            holds something else; the tables that stood there stay.
    """
    files = _input_files(Place.at(input_address))
    output = Place.at(output_address)
    target = output / str(job.version)
    _check_replaceable(target, job)
    base = None if job.base_version is None else _standing(output / str(job.base_version))
    with _staged(target) as staging:
        results = _run(session, job, files, staging, width_without_values(job, base))
        report = _report_of(job, results)
        if not report.record_count and not job.delta:
            raise no_records([Path(file.path) for file in files])
        check_like_base(job, report.value_bytes, base)
        (staging / REPORT_NAME).write(report.to_json().encode())
    return report


def _input_files(source: Place) -> list[Place]:
    """In the order of the local engine, which names are compared in as they stand in the pass."""
    everything = source.files()
    files = {
        file.path: file
        for file in everything
        if file.path == source.path
        or all(map(is_visible, file.path[len(source.path) :].strip("/").split("/")))
    }
    if not files:
        raise BuildError(
            f"{source.path}: holds no input file (names that begin with '_' or '.' are skipped)"
        )
    if any(file.name == INDEX_NAME for file in files.values()):
        raise BuildError(
            f"{source.path}: shards of the original are built with --engine=local alone"
        )
    for manifest in everything:
        if manifest.path == f"{source.path}/{MANIFEST_NAME}":
            sizes = {path[len(source.path) + 1 :]: file.size() for path, file in files.items()}
            compare_with_manifest(manifest.read(), sizes, source.path)
    return [files[str(path)] for path in in_natural_order(list(map(Path, files)))]


def _check_replaceable(target: Place, job: BuildJob) -> None:
    standing = _standing(target)
    if standing is None:
        if not target.files():
            return
        raise BuildError(
            f"{target.path}: exists and is no build of cube-builder; remove it or choose another "
            "output_path"
        )
    if standing.dict_name != job.dict_name:
        raise BuildError(f"{target.path}: holds a build of dict {standing.dict_name!r}")


def _standing(directory: Place) -> BuildReport | None:
    """The report of what stands there; None when no build does."""
    for file in directory.files():
        if file.name == REPORT_NAME:
            return BuildReport.parse(file.read(), directory.path)
    return None


def _run(
    session: Any, job: BuildJob, files: list[Place], staging: Place, default_width: int
) -> list[ShardResult]:
    from pyspark.errors import PySparkException

    numbered = list(enumerate(files))
    try:
        chunks = session.sparkContext.parallelize(numbered, len(numbered)).flatMap(
            lambda entry: _read_chunks(job, *entry)
        )
        shards = chunks.partitionBy(job.shard_num, int).mapPartitionsWithIndex(
            lambda shard, entries: _write_shard(job, shard, entries, staging, default_width)
        )
        return list(shards.collect())
    except Exception as error:
        found = _TASK_ERROR.findall(str(error))
        if found:
            raise BuildError(found[-1]) from error
        if isinstance(error, PySparkException) or type(error).__module__.startswith("py4j"):
            raise BuildError(f"Spark: {str(error).splitlines()[0]}; see its log") from error
        raise


def _read_chunks(job: BuildJob, number: int, file: Place) -> Iterator[tuple[int, Chunk]]:
    """All pairs of a file, cut over the shards; every shard hears of every file and its width."""
    with tempfile.TemporaryDirectory(prefix="cube-builder-") as directory:
        local = Path(directory) / file.name
        try:
            file.fetch(local)
            source = open_source(local, deletions=job.delta)
            width = 0 if job.is_variable else source.value_bytes
            # The whole shard is quantized at once.
            as_it_is = Quantizer("none", width, local)
            for shard in range(job.shard_num):
                yield shard, (number, _FIRST_BATCH, file.path, width, b"", b"", b"")
            for batch, ((keys, values), _) in enumerate(
                pass_rows(job, source, as_it_is, file.path)
            ):
                for shard, at in _places(keys, job.shard_num):
                    chunk = (keys[at].tobytes(), *_packed(values, at))
                    yield shard, (number, batch, file.path, width, *chunk)
        except BuildError as error:
            raise BuildError(str(error).replace(str(local), file.path)) from error


def _packed(values: Values, at: NDArray[np.intp]) -> tuple[bytes, bytes]:
    """The bytes of some values, and their widths as uint16 when they have a width each."""
    if isinstance(values, ByteValues):
        taken = values.take(at)
        return taken.values.tobytes(), taken.widths.astype(np.uint16).tobytes()
    return values[at].tobytes(), b""


def _places(keys: NDArray[np.uint64], shard_num: int) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """Shards that have keys, and the indexes of those in their order."""
    shards = (keys % np.uint64(shard_num)).astype(np.uint16)
    order = np.argsort(shards, kind="stable")
    ends = np.cumsum(np.bincount(shards, minlength=shard_num))
    start = 0
    for shard, end in enumerate(ends.tolist()):
        if end > start:
            yield shard, order[start:end]
        start = end


def _write_shard(
    job: BuildJob,
    shard: int,
    entries: Iterable[tuple[int, Chunk]],
    staging: Place,
    default_width: int,
) -> Iterator[ShardResult]:
    chunks = sorted((chunk for _, chunk in entries), key=lambda chunk: chunk[:2])
    width = 0 if job.is_variable else _common_width(chunks, default_width)
    quantizer = Quantizer(job.quant, width, Path(chunks[0][2]))
    keys = np.frombuffer(b"".join(chunk[4] for chunk in chunks), np.uint64)
    rows: Values
    if job.is_variable:
        rows = _byte_values(chunks)
    elif job.delta:
        rows = _marked_rows(chunks, width, quantizer)
    else:
        rows = _rows(chunks, width, quantizer)
    del chunks
    with tempfile.TemporaryDirectory(prefix="cube-builder-") as directory:
        local = Path(directory) / job.table_name(shard)
        report = write_shard_table(job, shard, keys, rows, local)
        (staging / local.name).store(local)
    yield report, len(keys), width, quantizer


def _rows(chunks: list[Chunk], width: int, quantizer: Quantizer) -> NDArray[np.uint8]:
    values = np.frombuffer(b"".join(chunk[5] for chunk in chunks), np.uint8)
    return quantizer(values.reshape(-1, width))


def _byte_values(chunks: list[Chunk]) -> ByteValues:
    values = np.frombuffer(b"".join(chunk[5] for chunk in chunks), np.uint8)
    widths = np.frombuffer(b"".join(chunk[6] for chunk in chunks), np.uint16)
    return ByteValues.of_widths(widths.astype(np.int64), values)


def _marked_rows(chunks: list[Chunk], width: int, quantizer: Quantizer) -> NDArray[np.uint8]:
    """Rows of a delta; a file that only deletes had no width of its own."""
    values, deleted = [np.empty((0, width), np.uint8)], [np.empty(0, bool)]
    for _, _, _, found, keys, marked, _ in chunks:
        rows = np.frombuffer(marked, np.uint8).reshape(len(keys) // 8, found + MARK_BYTES)
        stays, gone = without_mark(rows)
        values.append(stays.reshape(-1, width))
        deleted.append(gone)
    return with_mark(quantizer(np.concatenate(values)), np.concatenate(deleted))


def _common_width(chunks: list[Chunk], default: int) -> int:
    width, width_file = 0, ""
    for _, _, file, found, *_ in chunks:
        if width and found and found != width:
            raise BuildError(
                f"{file}: values of {found} bytes, but those of {width_file} have {width}; "
                f"{ONE_WIDTH}"
            )
        if found and not width:
            width, width_file = found, file
    if not width and not default:
        raise BuildError(f"{chunks[0][2]}: no records in it or in any other input file")
    return width or default


def _report_of(job: BuildJob, results: list[ShardResult]) -> BuildReport:
    results = sorted(results, key=lambda result: result[0].shard)
    quantizers = [quantizer for *_, quantizer in results]
    return BuildReport(
        dict_name=job.dict_name,
        version=str(job.version),
        shard_num=job.shard_num,
        value_bytes=results[0][2],
        record_count=sum(count for _, count, _, _ in results),
        shards=tuple(report for report, *_ in results),
        quant=job.quant,
        quant_max_error=max(each.max_error for each in quantizers),
        quant_mean_error=mean_error(quantizers),
        base_version=str(job.base_version or ""),
        value_width=job.value_width,
    )


@contextlib.contextmanager
def _staged(target: Place) -> Iterator[Place]:
    """A directory whose files are those of `target` when the block ends well; when it fails, it is
    gone, and what stood under `target` is there still.

    In an object store, where to move is to copy, a target that holds nothing is written to as it
    is.
    """
    if target.is_in_object_store and not target.files():
        staging = target
    else:
        parent, _, name = target.path.rpartition("/")
        hidden = f".{name}.{uuid.uuid4().hex}.staging"
        staging = Place(target.filesystem, f"{parent}/{hidden}")
    staging.make_directory()
    try:
        yield staging
        if staging != target:
            _publish(staging, target)
    except BaseException:
        staging.remove_directory()
        raise
    if staging != target:
        staging.remove_directory()


def _publish(staging: Place, target: Place) -> None:
    """Moves file by file, since object stores have no directories; who looks for `build.json`
    finds it when everything else is there."""
    tables = [file.name for file in staging.files() if file.name != REPORT_NAME]
    target.remove_directory()
    target.make_directory()
    for name in (*tables, REPORT_NAME):
        (staging / name).move(target / name)
