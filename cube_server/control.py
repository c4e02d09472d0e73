"""Control commands: JSON in, JSON out, whatever wire they came by (docs/reference/control.md)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

from google.protobuf.message import DecodeError

from cube_core.access import Asker
from cube_core.errors import ControlError, WireError
from cube_core.versions import Version
from cube_core.wire.service import RpcContext, Service
from cube_proto import control_pb2
from cube_server.download import DownloadOrder, Downloads
from cube_server.versions import DictVersions

READING_COMMANDS = frozenset({"status", "verify"})
"""Those that change nothing."""

Command = dict[str, Any]
Reply = dict[str, Any]


class Control:
    """Runs control commands on the versions of one dict.

    A command that has begun goes on when its caller goes away.
    """

    def __init__(self, versions: DictVersions, downloads: Downloads) -> None:
        self._versions = versions
        self._downloads = downloads
        self._running: set[asyncio.Task[Reply]] = set()
        self._commands: dict[str, Callable[[Command], Awaitable[Reply]]] = {
            "status": self._status,
            "download": self._download,
            "verify": self._verify,
            "bg_load_base": self._bg_load_base,
            "bg_switch": self._bg_switch,
            "bg_unload": self._bg_unload,
            "enable": self._enable,
            "reload_base": self._reload_base,
            "rollback": self._rollback,
            "want": self._want,
            "bg_load_patch": self._bg_load_patch,
            "reload_patch": self._reload_patch,
        }

    async def run(self, command: Command) -> Reply:
        """Runs one command, as `parse_command` gives it.

        Raises:
            ControlError: the command is unknown or was refused; says why.
        """
        name = command["cmd"]
        if name not in self._commands:
            known = ", ".join(sorted(self._commands))
            raise ControlError(f"unknown cmd {name!r}; there are {known}")
        task = asyncio.ensure_future(self._commands[name](command))
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)

    async def _status(self, _command: Command) -> Reply:
        return self.state()

    async def _download(self, command: Command) -> Reply:
        order = DownloadOrder(
            _version(command),
            _text(command, "url"),
            _number(command, "size"),
            _number(command, "crc32c"),
        )
        await self._downloads.run(order)
        return self.state()

    async def _verify(self, command: Command) -> Reply:
        table = await self._versions.verify(_version(command))
        return {
            "status": 0,
            "version": table.version,
            "dict_name": table.dict_name,
            "shard": table.shard,
            "shard_num": table.shard_num,
            "kind": table.kind,
            "base_version": table.base_version,
            "key_count": table.key_count,
            "deletion_count": table.deletion_count,
            "value_kind": table.value_kind,
            "value_bytes": table.value_bytes,
            "value_bytes_max": table.value_bytes_max,
            "file_bytes": table.file_bytes,
        }

    async def _bg_load_base(self, command: Command) -> Reply:
        await self._versions.load_background(_base_version(command))
        return self.state()

    async def _bg_switch(self, command: Command) -> Reply:
        await self._versions.switch(_optional_version(command))
        return self.state()

    async def _bg_unload(self, _command: Command) -> Reply:
        await self._versions.unload_background()
        return self.state()

    async def _enable(self, command: Command) -> Reply:
        await self._versions.enable(_version(command))
        return self.state()

    async def _reload_base(self, command: Command) -> Reply:
        current = self._versions.current
        if current is not None and _optional_version(command) is None:
            await self._versions.enable(current.version, reload=True)
        else:
            await self._versions.enable(_base_version(command), reload=True)
        return self.state()

    async def _rollback(self, command: Command) -> Reply:
        await self._versions.rollback(_optional_version(command))
        return self.state()

    async def _want(self, command: Command) -> Reply:
        await self._versions.wanted.set(_optional_version(command))
        return self.state()

    async def _bg_load_patch(self, command: Command) -> Reply:
        version = _patch_version(command)
        await self._versions.load_patch_background(version, _optional_version(command, "previous"))
        return self.state()

    async def _reload_patch(self, command: Command) -> Reply:
        version = _patch_version(command)
        await self._versions.enable_patch(version, _optional_version(command, "previous"))
        return self.state()

    def state(self) -> Reply:
        """What `status` answers, and every command that changes the versions."""
        versions = self._versions
        current, background = versions.current, versions.background
        background_version = versions.loading or (background and background.version)
        return {
            "cur_version": str(current.version) if current else "",
            "bg_version": str(background_version or ""),
            "status": int(versions.state),
            "want_version": str(versions.wanted.version or ""),
            "ready": not versions.problem,
        }


def control_service(run: Callable[[bytes, Asker], Awaitable[bytes]]) -> Service:
    """ControlService for baidu_std and gRPC.

    Args:
        run: takes and gives JSON.
    """

    async def cmd(payload: memoryview | bytes, context: RpcContext) -> bytes:
        # The original carries JSON in the attachment, gRPC has a field for it: each is answered
        # in kind.
        if context.attachment:
            context.response_attachment = await run(bytes(context.attachment), context.asker)
            return b""
        try:
            request = control_pb2.ControlRequest.FromString(bytes(payload))
        except DecodeError as error:
            raise WireError(f"Fail to parse request message, {error}") from error
        reply = await run(request.json.encode(), context.asker)
        return control_pb2.ControlResponse(json=reply.decode()).SerializeToString()

    descriptor = control_pb2.DESCRIPTOR.services_by_name["ControlService"]
    return Service(descriptor, {"cmd": cmd})


def parse_command(body: bytes) -> Command:
    """JSON to a command.

    Raises:
        WireError: no JSON object, or one without `cmd`.
    """
    try:
        command = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise WireError(f"the command is not JSON: {error}") from error
    if not isinstance(command, dict) or not isinstance(command.get("cmd"), str):
        raise WireError('the command must be a JSON object with a text "cmd"')
    return command


def _optional_version(command: Command, *fields: str) -> Version | None:
    """What the first of `fields` that is there names: "version" or "version_path" by default."""
    named = (command.get(field) for field in fields or ("version", "version_path"))
    value = next((each for each in named if each not in (None, "")), None)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ControlError(f"{command['cmd']}: version {value!r} is no name of a version")
    return Version.parse(str(value))


def _version(command: Command) -> Version:
    version = _optional_version(command)
    if version is None:
        raise ControlError(f'{command["cmd"]}: needs "version" (or "version_path")')
    return version


def _base_version(command: Command) -> Version:
    version = _version(command)
    if not version.is_base:
        raise ControlError(f"{command['cmd']}: {version} is a patch: send bg_load_patch")
    return version


def _patch_version(command: Command) -> Version:
    version = _version(command)
    if version.is_base:
        raise ControlError(f"{command['cmd']}: {version} is a base: send bg_load_base")
    return version


def _text(command: Command, field: str) -> str:
    value = command.get(field)
    if not isinstance(value, str) or not value:
        raise ControlError(f'{command["cmd"]}: needs a text "{field}"')
    return value


def _number(command: Command, field: str) -> int:
    value = command.get(field)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ControlError(f'{command["cmd"]}: needs a number "{field}" from 0 on')
    return value
