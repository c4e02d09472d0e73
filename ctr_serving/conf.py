"""What the predictor is to serve, from model_toolkit.prototxt and cube.conf together."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ctr_serving.announcement import RELOADABLE_TYPES
from ctr_serving.batch_wait import WAIT_US_MAX
from ctr_serving.defaults import Defaults, read_defaults
from cube_core.conf.cube_conf import read_cube_conf
from cube_core.conf.prototxt import read_model_toolkit
from cube_core.errors import ConfError
from cube_core.model_directory import CURRENT_NAME, TIME_FILE_NAME

if TYPE_CHECKING:
    from cube_proto.model_toolkit_pb2 import EngineDesc

BATCH_ROWS = 256
"""Rows up to which requests are joined unless `batch_infer_size` says otherwise."""

_THREADS_MAX = 256
_BATCH_ROWS_MAX = 65536
_CACHE_MB_MAX = 1 << 20


@dataclass(frozen=True)
class EngineConf:
    """The engine of a predictor.

    Attributes:
        name: as it shows in logs and in /status.
        model_path: directory of the model, or a symbolic link to it.
        reload_meta_path: file that announces a new model; None when the model is loaded once.
        reload_type: how it does, one of RELOADABLE_TYPES.
        model_url: where models are fetched from to the directory of `model_path`; "": they are not.
        batch_rows_max: rows up to which waiting requests are joined; 0: each is run alone.
        batch_wait_us: how long a batch that is not full waits for more requests.
        runtime_thread_num: joined batches that may be under way at once, where it is over 2.
        sparse_service: where vectors come from: REMOTE, LOCAL or NONE.
        dict_name: the dict that holds the embedding; "" for NONE.
        cube_conf_path: for REMOTE, where the shard servers stand; the client watches it.
        tables_dir: for LOCAL, where versions of the embedding stand; else None.
        defaults: the vectors that stand for missing keys.
        cache_bytes: of the cache of hot keys, for REMOTE; 0 for none.
        degrades: whether they also stand for the keys of a shard that fails, instead of an error.
    """

    name: str
    model_path: Path
    reload_meta_path: Path | None
    reload_type: str
    model_url: str
    batch_rows_max: int
    batch_wait_us: int
    runtime_thread_num: int
    sparse_service: str
    dict_name: str
    cube_conf_path: Path
    tables_dir: Path | None
    defaults: Defaults
    cache_bytes: int
    degrades: bool


def read_engine_confs(toolkit_path: Path | str, cube_conf_path: Path | str) -> list[EngineConf]:
    """Reads both files and checks that they fit each other; cube.conf only where it is needed.

    Raises:
        ConfError: names the file and the field.
    """
    file = str(toolkit_path)
    engines = read_model_toolkit(toolkit_path).engines
    names = [engine.name for engine in engines]
    for index, engine in enumerate(engines):
        field = f"engines[{index}]"
        _check(file, field, engine)
        if engine.sparse_param_service_type == engine.REMOTE:
            _check_dict(file, field, engine.sparse_param_service_table_name, cube_conf_path)
        if engine.name in names[:index]:
            raise ConfError(file, f"{field}.name", f"{engine.name!r} stands twice")
    return [
        _engine_conf(file, f"engines[{index}]", engine, Path(cube_conf_path))
        for index, engine in enumerate(engines)
    ]


def _engine_conf(file: str, field: str, engine: EngineDesc, cube_conf_path: Path) -> EngineConf:
    is_local = engine.sparse_param_service_type == engine.LOCAL
    return EngineConf(
        name=engine.name,
        model_path=Path(engine.model_data_path or engine.model_dir),
        reload_meta_path=(
            None if engine.reloadable_type == "none" else Path(engine.reloadable_meta)
        ),
        reload_type=engine.reloadable_type,
        model_url=engine.model_url,
        batch_rows_max=_batch_rows_max(engine),
        batch_wait_us=engine.batch_wait_us,
        runtime_thread_num=engine.runtime_thread_num,
        sparse_service=engine.SparseParamServiceType.Name(engine.sparse_param_service_type),
        dict_name=_dict_name(engine),
        cube_conf_path=cube_conf_path,
        tables_dir=Path(engine.sparse_param_service_table_name).parent if is_local else None,
        defaults=read_defaults(file, field, engine),
        cache_bytes=engine.cube_cache_mb << 20,
        degrades=engine.failed_shards == engine.DEGRADE,
    )


def _check_dict(file: str, field: str, dict_name: str, cube_conf_path: Path | str) -> None:
    dicts = read_cube_conf(cube_conf_path)
    if dict_name not in dicts:
        raise ConfError(
            file,
            f"{field}.sparse_param_service_table_name",
            f"{dict_name!r} is no dict of {cube_conf_path}, which has {', '.join(sorted(dicts))}",
        )


def _dict_name(engine: EngineDesc) -> str:
    """LOCAL has it at the end of a path."""
    name = engine.sparse_param_service_table_name
    if engine.sparse_param_service_type == engine.NONE:
        return ""
    return Path(name).name if engine.sparse_param_service_type == engine.LOCAL else name


def _batch_rows_max(engine: EngineDesc) -> int:
    return engine.batch_infer_size or BATCH_ROWS if engine.enable_batch_align else 0


def _check(file: str, field: str, engine: EngineDesc) -> None:
    if engine.reloadable_type not in RELOADABLE_TYPES:
        raise ConfError(
            file,
            f"{field}.reloadable_type",
            f"{engine.reloadable_type!r} is not supported; write one of"
            f" {', '.join(RELOADABLE_TYPES)}",
        )
    if engine.sparse_param_service_type != engine.NONE and not _dict_name(engine):
        raise ConfError(file, f"{field}.sparse_param_service_table_name", "is missing")
    if not 0 <= engine.runtime_thread_num <= _THREADS_MAX:
        raise ConfError(file, f"{field}.runtime_thread_num", f"must be from 0 to {_THREADS_MAX}")
    if not 0 <= engine.cube_cache_mb <= _CACHE_MB_MAX:
        raise ConfError(file, f"{field}.cube_cache_mb", f"must be from 0 to {_CACHE_MB_MAX}")
    if not 0 <= engine.batch_infer_size <= _BATCH_ROWS_MAX:
        raise ConfError(file, f"{field}.batch_infer_size", f"must be from 0 to {_BATCH_ROWS_MAX}")
    if not 0 <= engine.batch_wait_us <= WAIT_US_MAX:
        raise ConfError(file, f"{field}.batch_wait_us", f"must be from 0 to {WAIT_US_MAX}")
    if engine.model_url:
        _check_model_url(file, field, engine)
    if engine.batch_wait_us and not engine.enable_batch_align:
        raise ConfError(file, f"{field}.batch_wait_us", "needs enable_batch_align: 1")


def _check_model_url(file: str, field: str, engine: EngineDesc) -> None:
    if not engine.model_url.startswith(("http://", "https://")):
        raise ConfError(file, f"{field}.model_url", "must begin with http:// or https://")
    model = Path(engine.model_data_path or engine.model_dir)
    if model.name != CURRENT_NAME:
        raise ConfError(
            file,
            f"{field}.model_data_path",
            f"{model} must end in /{CURRENT_NAME}: model_url has models fetched to its directory",
        )
    announced = model.with_name(TIME_FILE_NAME)
    if engine.reloadable_type != "none" and Path(engine.reloadable_meta) != announced:
        raise ConfError(
            file,
            f"{field}.reloadable_meta",
            f"must be {announced}: what model_url fetches is announced there",
        )
