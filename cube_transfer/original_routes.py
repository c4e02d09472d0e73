"""What the original's daemon answers over HTTP, in its shapes, for tools that read them.

Its ids are numbers; those of a pass whose id is none are given as text.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from cube_builder.job import BuildReport
from cube_core.conf.transfer_conf import TransferConf
from cube_core.errors import ControlError, CubeError
from cube_core.redaction import redacted
from cube_core.versions import Version
from cube_transfer.daemon import Daemon
from cube_transfer.replica_link import ReplicaLink
from cube_transfer.settings import Settings
from cube_transfer.state import PassRecord, Stage
from cube_transfer.status import replica_status

_OK, _FAIL = "0", "1"


def original_router(daemon: Daemon) -> APIRouter:
    """`GET /dict/info`, `/instance/status`, `/dict/scaler`, `/dict/meta_info`,
    `/dict/deploy/history`; each answers `{"success", "message", "data"}`, success "0" = good."""
    router = APIRouter()

    @router.get("/dict/info")
    async def dict_info() -> JSONResponse:
        return _good(_dict_info(daemon))

    @router.get("/instance/status")
    async def instance_status() -> JSONResponse:
        return _good(_instances(daemon))

    @router.get("/dict/deploy/history")
    async def deploy_history() -> JSONResponse:
        return _good(_history(daemon))

    @router.get("/dict/scaler")
    async def scaler(shard: str = "0") -> JSONResponse:
        if not shard.isdecimal() or int(shard) >= daemon.settings.conf.shard_num:
            return _bad(f"shard {shard!r} is none of 0 to {daemon.settings.conf.shard_num - 1}")
        # The original puts the list as text into the answer.
        return _good(json.dumps(_scaler(daemon, int(shard))))

    @router.get("/dict/meta_info")
    async def meta_info(request: Request) -> JSONResponse:
        try:
            return _good(await asyncio.to_thread(_meta_info, daemon, dict(request.query_params)))
        except (CubeError, OSError) as error:
            return _bad(str(error))

    return router


def _good(data: Any) -> JSONResponse:
    return JSONResponse({"success": _OK, "message": "query ok", "data": data})


def _bad(message: str) -> JSONResponse:
    return JSONResponse({"success": _FAIL, "message": message, "data": ""})


def _dict_info(daemon: Daemon) -> dict[str, Any]:
    conf, under_way = daemon.settings.conf, daemon.deployer.under_way
    states = [replica_status(link, daemon.state.wanted) for link in daemon.fleet.links]
    return {
        "dict_name": conf.dict_name,
        "dict_mode": conf.mode,
        "shard_num": conf.shard_num,
        "copy_num": conf.copy_num,
        "inst_num": len(states),
        "deploy_path": conf.deploy_path,
        "donefile_addr": redacted(conf.donefile_address),
        "output_addr": conf.output_address,
        "tmp_addr": conf.tmp_address,
        "download_mode": conf.download_mode,
        "wget_port": str(conf.wget_port),
        "enable_insts": sum(state["ready"] for state in states),
        "instances": _instances(daemon),
        "wait_version_info": _version_info(conf, under_way) if under_way else None,
        "current_version_info": _history(daemon),
    }


def _history(daemon: Daemon) -> list[dict[str, Any]]:
    """Passes that are served or were, and those on the way, newest first."""
    conf = daemon.settings.conf
    left_out = (Stage.FAILED, Stage.SUPERSEDED)
    return [_version_info(conf, r) for r in daemon.state.records() if r.stage not in left_out]


def _version_info(conf: TransferConf, record: PassRecord) -> dict[str, Any]:
    version = record.parsed_version
    times = record.reached_at_s
    return {
        "dict_name": conf.dict_name,
        "version": _number(version.version),
        "depend": _number(version.base),
        "id": _number(version.version if record.previous else record.id),
        "key": _number(record.key),
        "mode": "base" if version.is_base else "delta",
        "source": redacted(record.input),
        "output": conf.output_address,
        "status": record.stage.value,
        "kind": record.kind,
        "builded_time": int(times.get(Stage.BUILT.value, 0)),
        "enabled_time": int(times.get(Stage.SWITCHED.value, 0)),
    }


def _instances(daemon: Daemon) -> list[dict[str, Any]]:
    return [_instance(daemon, link) for link in daemon.fleet.links]


def _instance(daemon: Daemon, link: ReplicaLink) -> dict[str, Any]:
    state = replica_status(link, daemon.state.wanted)
    try:
        version = Version.parse(state["cur_version"])
    except ControlError:
        version = Version("", "")
    return {
        "dict_name": daemon.settings.conf.dict_name,
        "mode": "base" if version.is_base else "delta",
        "version": _number(version.version),
        "depend": _number(version.base),
        "shard": link.replica.shard,
        "deploy_path": link.replica.deploy_path,
        "ip": link.replica.endpoint.host,
        "port": link.replica.endpoint.port,
        "status": "enabled" if state["ready"] else ("failed" if state["error"] else "waiting"),
        "error": state["error"],
    }


def _scaler(daemon: Daemon, shard: int) -> list[dict[str, Any]]:
    """What a server that is added to the shard has to fetch: the base, then each patch in order."""
    stack = daemon.state.stack_of(daemon.state.wanted)
    return [_source(daemon.settings, record, shard) for record in stack]


def _source(settings: Settings, record: PassRecord, shard: int) -> dict[str, Any]:
    conf, version = settings.conf, record.parsed_version
    return {
        "name": conf.dict_name,
        "version": version.version,
        "depend": version.base,
        "id": version.version,
        "key": record.key,
        "shard": shard,
        "mode": "base" if version.is_base else "delta",
        "data_source": settings.links.url(record.version, f"{conf.dict_name}_part{shard}.table"),
    }


def _meta_info(daemon: Daemon, query: dict[str, str]) -> dict[str, Any]:
    for name in ("name", "version", "depend", "shard"):
        if not query.get(name):
            raise ControlError(f"need arg: {name}")
    conf = daemon.settings.conf
    if query["name"] != conf.dict_name:
        raise ControlError(f"there is no dict {query['name']}, only {conf.dict_name}")
    version = Version.parse(f"{query['depend']}_{query['version']}")
    report = BuildReport.read(daemon.settings.output_address / str(version))
    found = [shard for shard in report.shards if str(shard.shard) == query["shard"]]
    if not found:
        raise ControlError(f"version {version} has no shard {query['shard']}")
    return {
        "name": conf.dict_name,
        "version": _number(version.version),
        "depend": _number(version.base),
        "shard": found[0].shard,
        "split": _number(query.get("split", "1")),
        "meta": vars(found[0]),
    }


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
