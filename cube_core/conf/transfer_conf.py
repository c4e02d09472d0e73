"""`transfer.conf`: what the transfer daemon watches and where it deploys."""

from __future__ import annotations

import configparser
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar
from urllib.parse import unquote

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from cube_core.endpoint import DnsName, Endpoint
from cube_core.errors import ConfError

_AGENT = re.compile(r"agent\d+_\d+")
_CUBE = re.compile(r"cube(\d+)_(\d+)")
_Path = Annotated[str, Field(min_length=1)]
DOWNLOAD_BYTES_MAX = 1 << 40
PASS_BYTES_MAX = 1 << 42
SCHEMES = ("http", "https", "ftp", "s3", "hdfs")
"""Of addresses where passes lie on other machines."""
_Model = TypeVar("_Model", bound=BaseModel)


def _addresses(text: object) -> object:
    """`host:port,dns://host:port`; "" for none."""
    if not isinstance(text, str):
        return text
    given = [each for each in text.split(",") if each.strip()]
    return tuple(
        DnsName.parse(each) if DnsName.is_meant(each) else Endpoint.parse(each) for each in given
    )


def _roots(text: object) -> object:
    """`path,url`."""
    if not isinstance(text, str):
        return text
    roots = tuple(each.strip() for each in text.split(",") if each.strip())
    if not roots:
        raise ValueError("names no path or address; leave the field out to allow every one")
    for root in roots:
        scheme, separator, rest = root.partition("://")
        if separator and scheme not in ("file", *SCHEMES):
            known = ", ".join(f"{each}://" for each in SCHEMES)
            raise ValueError(f"{scheme}:// is neither a path nor one of {known}")
        if separator and ".." in unquote(rest).split("/"):
            raise ValueError(f"an address of {scheme}:// with '..' in it")
    return roots


class Replica(BaseModel):
    """One shard server: replica `copy_index` of `shard`."""

    model_config = ConfigDict(frozen=True)

    shard: int
    copy_index: int
    endpoint: Endpoint
    deploy_path: str

    @property
    def name(self) -> str:
        """As transfer.conf names it: cube<shard>_<copy>."""
        return f"cube{self.shard}_{self.copy_index}"


class BuildOptions(BaseModel):
    """What `cube-builder` is told besides what it builds, as its flags of these names.

    They stand in `[default]`, or in a section of the dict's name, which counts before it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    quant: Literal["none", "fp16", "int8"] = "none"
    value_width: Literal["fixed", "variable"] = "fixed"
    on_nonfinite: Literal["error", "keep"] = "error"
    on_duplicate: Literal["last", "error"] = "last"
    memory_mb: int | None = Field(default=None, ge=1)


class TransferConf(BaseModel):
    """Section `[default]`, and the servers of section `[cube_agent]` as `replicas`.

    `model_deploy_path` is where the dense model of a pass is published for the CTR servers; when
    it is not set, dense models are left where they are. `cube_conf` is the clients' file that is
    kept equal to the topology; not set: it is kept by hand. `download_bytes_max` bounds each file
    of a pass that is downloaded, `pass_bytes_max` all that is taken of a pass. Where `input_roots`
    is set, passes lie below one of them, or are refused. `ctr_servers` are only looked at, for the
    page of the daemon.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    dict_name: str = Field(min_length=1)
    mode: Literal["base_only", "base_delta"] = "base_only"
    download_mode: str = "http"
    wget_port: int = Field(ge=1, le=65535)
    buildtool_local: str = ""
    donefile_address: _Path
    output_address: _Path
    tmp_address: _Path
    shard_num: int = Field(ge=1, le=65535)
    copy_num: int = Field(default=1, ge=1)
    deploy_path: str = ""
    transfer_address: str = "127.0.0.1"
    model_deploy_path: str = ""
    cube_conf: str = ""
    ctr_servers: Annotated[tuple[Endpoint | DnsName, ...], BeforeValidator(_addresses)] = ()
    keep_versions: int = Field(default=2, ge=1)
    poll_interval_ms: int = Field(default=1000, ge=10)
    download_bytes_max: int = Field(default=DOWNLOAD_BYTES_MAX, ge=1)
    pass_bytes_max: int = Field(default=PASS_BYTES_MAX, ge=1)
    input_roots: Annotated[tuple[str, ...], BeforeValidator(_roots)] = ()
    build: BuildOptions = BuildOptions()
    replicas: tuple[Replica, ...] = ()


def read_transfer_conf(path: Path | str) -> TransferConf:
    """Reads `transfer.conf`.

    Raises:
        ConfError: names the file and the field.
    """
    sections = _sections(str(path))
    if "default" not in sections:
        raise ConfError(str(path), "[default]", "the section is missing")
    default = dict(sections["default"])
    conf = _validated(TransferConf, default, str(path), "default")
    changes = {
        "build": _build_options(str(path), conf.dict_name, sections),
        "replicas": _replicas(str(path), conf, sections.get("cube_agent", {})),
    }
    return conf.model_copy(update=changes)


def _build_options(
    path: str, dict_name: str, sections: Mapping[str, Mapping[str, str]]
) -> BuildOptions:
    """Those of the dict's own section, else of `[default]`."""
    names = BuildOptions.model_fields
    default = {name: text for name, text in sections["default"].items() if name in names}
    _validated(BuildOptions, default, path, "default")
    own = dict(sections[dict_name]) if dict_name in sections else {}
    return _validated(BuildOptions, {**default, **own}, path, dict_name)


def _validated(model: type[_Model], fields: Mapping[str, str], path: str, section: str) -> _Model:
    try:
        return model.model_validate(dict(fields))
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise ConfError(path, f"[{section}] {field}", first["msg"]) from error


def _sections(path: str) -> Mapping[str, Mapping[str, str]]:
    parser = configparser.ConfigParser(
        delimiters=(":",),
        comment_prefixes=("#", "//"),
        inline_comment_prefixes=("#", "//"),
        interpolation=None,
        # The name is configparser's own default section, which [default] must not become.
        default_section="",
    )
    try:
        parser.read_string(Path(path).read_text(encoding="utf-8"), source=path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(path, "", f"cannot be read: {error}") from error
    except configparser.Error as error:
        raise ConfError(path, "", " ".join(str(error).split())) from error
    return {name: dict(parser[name]) for name in parser.sections()}


def _replicas(path: str, conf: TransferConf, entries: Mapping[str, str]) -> tuple[Replica, ...]:
    found: dict[tuple[int, int], Replica] = {}
    for name, value in entries.items():
        match = _CUBE.fullmatch(name)
        if match is None:
            if not _AGENT.fullmatch(name):
                raise ConfError(path, f"[cube_agent] {name}", "is neither agentS_C nor cubeS_C")
            continue
        replica = _replica(path, name, value, int(match[1]), int(match[2]))
        if replica.shard >= conf.shard_num or replica.copy_index >= conf.copy_num:
            raise ConfError(
                path,
                f"[cube_agent] {name}",
                f"is outside shard_num {conf.shard_num} and copy_num {conf.copy_num}",
            )
        if (replica.shard, replica.copy_index) in found:
            raise ConfError(path, f"[cube_agent] {name}", f"{replica.name} stands twice")
        found[replica.shard, replica.copy_index] = replica
    for shard in range(conf.shard_num):
        for copy_index in range(conf.copy_num):
            if (shard, copy_index) not in found:
                raise ConfError(path, f"[cube_agent] cube{shard}_{copy_index}", "is missing")
    _no_server_twice(path, found.values())
    return tuple(found[key] for key in sorted(found))


def _replica(path: str, name: str, value: str, shard: int, copy_index: int) -> Replica:
    host, _, rest = value.partition(":")
    port, _, deploy_path = rest.partition(":")
    try:
        endpoint = Endpoint.parse(f"{host}:{port}")
    except ValueError as error:
        raise ConfError(path, f"[cube_agent] {name}", f"{error}; write ip:port:path") from error
    return Replica(shard=shard, copy_index=copy_index, endpoint=endpoint, deploy_path=deploy_path)


def _no_server_twice(path: str, replicas: Iterable[Replica]) -> None:
    owners: dict[Endpoint, str] = {}
    for replica in replicas:
        other = owners.setdefault(replica.endpoint, replica.name)
        if other != replica.name:
            raise ConfError(
                path, f"[cube_agent] {replica.name}", f"{replica.endpoint} is also {other}"
            )
