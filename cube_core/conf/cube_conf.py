"""`cube.conf`: which servers hold which shard of which dict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cube_core.conf.naming import Server, check_address, servers_of
from cube_core.endpoint import Endpoint
from cube_core.errors import ConfError
from cube_core.tls import ClientTls, TlsFiles


class Node(BaseModel):
    """Where one shard is served: `ip` and `port`, or `ipport_list`."""

    model_config = ConfigDict(extra="ignore")

    ip: str | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    ipport_list: str | None = None


class TlsConf(BaseModel):
    """How connections to the servers of a dict are secured; paths may be relative to the directory
    of `cube.conf`. `ca_file`: who may sign the servers' certificates, "" for whom the system
    trusts; `cert_file` and `key_file`: what servers that ask for one get; `server_name`: what their
    certificates must hold, "" for the host that is connected to.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    server_name: str = ""

    def client(self) -> ClientTls:
        """Raises ConfError that names the file that cannot be used."""
        return ClientTls(TlsFiles(self.cert_file, self.key_file, self.ca_file), self.server_name)

    def relative_to(self, directory: Path) -> TlsConf:
        """The same with paths that do not depend on the working directory."""
        files = {
            name: str(directory / path)
            for name in ("ca_file", "cert_file", "key_file")
            if (path := getattr(self, name))
        }
        return self.model_copy(update=files)


class DictConf(BaseModel):
    """One dict of `cube.conf`.

    `timeout_ms` is for a whole seek, retries within it. `backup_request_ms` < 0 means none; of all
    requests at most `backup_request_share_max` are sent a second time.
    """

    model_config = ConfigDict(extra="ignore", populate_by_name=True)

    dict_name: str = Field(min_length=1)
    shard: int = Field(ge=1, le=65535)
    dup: int = Field(default=1, ge=1)
    timeout_ms: int = Field(default=200, alias="timeout", ge=1)
    retry: int = Field(default=3, ge=0)
    backup_request_ms: int = Field(default=-1, alias="backup_request")
    backup_request_share_max: float = Field(default=0.1, ge=0, le=1)
    type: Literal["ipport", "ipport_list", "ipport_parallel"] = "ipport"
    load_balancer: Literal["", "rr", "random", "wr", "la", "c_murmurhash"] = "rr"
    nodes: list[Node]
    tls: TlsConf | None = None

    @model_validator(mode="after")
    def _one_node_a_shard(self) -> DictConf:
        expected = 1 if self.type == "ipport_parallel" else self.shard
        if len(self.nodes) != expected:
            raise ValueError(
                f"nodes: {len(self.nodes)} entries for {self.shard} shards of type {self.type};"
                f" {expected} are needed"
            )
        for index, node in enumerate(self.nodes):
            if self.type == "ipport_list":
                if not node.ipport_list:
                    raise ValueError(f"nodes.{index}.ipport_list: missing")
            elif not node.ip or node.port is None:
                raise ValueError(f"nodes.{index}: needs ip and port")
        return self

    def replicas(self) -> list[list[Endpoint]]:
        """Endpoints of the replicas of every shard, by shard number.

        Raises:
            ValueError, OSError: as `servers`.
        """
        return [[server.endpoint for server in servers] for servers in self.servers()]

    def servers(self) -> list[list[Server]]:
        """The replicas of every shard, by shard number; reads `file://` and resolves `http://`.

        Raises:
            ValueError: an `ipport_list` that is malformed, or an endpoint that stands for two
                shards.
            OSError: a file that cannot be read, or a name that cannot be resolved.
        """
        if self.type == "ipport_parallel":
            return self._resolved([0]) * self.shard
        shards = self._resolved(list(range(self.shard)))
        owners: dict[Endpoint, int] = {}
        for shard, servers in enumerate(shards):
            for endpoint, _ in servers:
                other = owners.setdefault(endpoint, shard)
                if other != shard:
                    raise ValueError(f"nodes: {endpoint} stands for shard {other} and {shard}")
        return shards

    def addresses(self) -> list[str]:
        """The `ipport_list` of every node that has one."""
        return [node.ipport_list for node in self.nodes if node.ipport_list]

    def check_addresses(self) -> None:
        """Checks what can be checked without reading other files or resolving names.

        Raises:
            ValueError: names the node.
        """
        for index, node in enumerate(self.nodes):
            if self.type == "ipport_list":
                check_address(node.ipport_list or "", f"nodes.{index}.ipport_list")
        if all("://" not in each or each.startswith("list:") for each in self.addresses()):
            self.servers()

    def _resolved(self, indexes: list[int]) -> list[list[Server]]:
        if self.type != "ipport_list":
            nodes = [self.nodes[index] for index in indexes]
            return [[Server(Endpoint(node.ip or "", node.port or 0))] for node in nodes]
        return [
            servers_of(self.nodes[index].ipport_list or "", f"nodes.{index}.ipport_list")
            for index in indexes
        ]


def read_cube_conf(path: Path | str) -> dict[str, DictConf]:
    """Reads `cube.conf`: its dicts by name.

    Raises:
        ConfError: names the file and the field.
    """
    text = _read(path)
    try:
        entries: Any = json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfError(f"{path}:{error.lineno}", "", f"is not JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or brackets nested as deep.
        raise ConfError(str(path), "", f"is not JSON that can be read: {error}") from error
    if not isinstance(entries, list) or not entries:
        raise ConfError(str(path), "", "must be a JSON array with an object for each dict")
    dicts: dict[str, DictConf] = {}
    for index, entry in enumerate(entries):
        conf = _validated(str(path), index, entry)
        if conf.dict_name in dicts:
            raise ConfError(str(path), f"{index}.dict_name", f"{conf.dict_name!r} stands twice")
        if conf.tls is not None:
            conf = conf.model_copy(update={"tls": conf.tls.relative_to(Path(path).parent)})
        dicts[conf.dict_name] = conf
    return dicts


def _validated(file: str, index: int, entry: object) -> DictConf:
    try:
        conf = DictConf.model_validate(entry)
        conf.check_addresses()
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in (index, *first["loc"]))
        raise ConfError(file, field, first["msg"].removeprefix("Value error, ")) from error
    except ValueError as error:
        raise ConfError(file, str(index), str(error)) from error
    return conf


def _read(path: Path | str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(str(path), "", f"cannot be read: {error}") from error
