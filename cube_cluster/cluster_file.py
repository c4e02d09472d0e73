"""Reads `cluster.yml`, and says of what is wrong in it where it stands."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cube_cluster.cluster import Cluster
from cube_cluster.flags import FlagError, check_flags
from cube_cluster.layout import PlacementError, all_shard_servers, ctr_servers, transfers
from cube_cluster.yaml_source import Place, YamlSource, read_yaml

# Of transfer.conf, which may have another one by the name of its dict.
_SECTIONS = ("default", "cube_agent")


def read_cluster(path: Path | str, *, check: Callable[[Cluster], object] | None = None) -> Cluster:
    """Reads a cluster and checks that its parts fit each other.

    Args:
        check: what else must hold; raises PlacementError.

    Raises:
        ConfError: names the file, the line and the field.
    """
    source = read_yaml(path)
    if not isinstance(source.values, dict):
        raise source.error((), "must be a mapping that has dicts; see docs/reference/cluster.md")
    try:
        cluster = Cluster.model_validate(source.values)
    except ValidationError as error:
        raise _validation_error(source, error) from error
    try:
        _check_names(cluster)
        _check_numbers(cluster)
        _check_ports(cluster)
        _check_directories(cluster)
        _check_tls(cluster)
        check_flags(cluster)
        if check is not None:
            check(cluster)
    except (PlacementError, FlagError) as error:
        raise source.error(error.place, str(error)) from error
    return cluster


def _validation_error(source: YamlSource, error: ValidationError) -> Exception:
    """Of the first problem in the file. An unknown field goes before one that is missing: it is
    often the same one, misspelt."""
    problems = error.errors()
    first = min(problems, key=lambda problem: problem["type"] == "missing")
    place = _place(source.values, first["loc"])
    return source.error(place, _problem(first, place))


def _place(values: Any, loc: Iterable[str | int]) -> Place:
    """The part of pydantic's location that is in the file: it also names types of a union."""
    place: list[str | int] = []
    for part in loc:
        if isinstance(values, dict):
            if part not in values:
                # A field that is missing, or the type of a union.
                return (*place, part) if not place or values else tuple(place)
            values = values[part]
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            values = values[part]
        else:
            return tuple(place)
        place.append(part)
    return tuple(place)


def _problem(details: ErrorDetails, place: Place) -> str:
    if details["type"] == "missing":
        return "is missing"
    if details["type"] == "extra_forbidden":
        known = _fields_beside(place)
        close = difflib.get_close_matches(str(place[-1]), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
        return f"no such field; {hint}"
    if details["type"] == "string_pattern_mismatch":
        return f"{details['input']!r} has characters that cannot stand here"
    given = details["input"]
    text = details["msg"].removeprefix("Value error, ")
    return f"{text}, not {given!r}" if isinstance(given, str | int | float) else text


def _fields_beside(place: Place) -> list[str]:
    """Names of the fields of the model that the last part of `place` stands in."""
    model: type[BaseModel] = Cluster
    for part in place[:-1]:
        if isinstance(part, str):
            found = next(_models_of(model.model_fields[part].annotation), None)
            model = found or model
    return list(model.model_fields)


def _models_of(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in getattr(annotation, "__args__", ()):
        yield from _models_of(argument)


def _check_names(cluster: Cluster) -> None:
    seen: set[str] = set()
    for index, each in enumerate(cluster.dicts):
        if each.name in _SECTIONS:
            problem = f"{each.name!r} is a section of transfer.conf; name it otherwise"
            raise PlacementError(("dicts", index, "name"), problem)
        if each.name in seen:
            raise PlacementError(("dicts", index, "name"), f"{each.name!r} stands twice")
        seen.add(each.name)
    engines: set[str] = set()
    for index, engine in enumerate(cluster.ctr.engines if cluster.ctr else ()):
        place: Place = ("ctr", "engines", index)
        if engine.dict_name not in seen:
            known = ", ".join(sorted(seen))
            raise PlacementError(
                (*place, "dict_name"), f"{engine.dict_name!r} is none of the dicts: {known}"
            )
        if engine.batch_wait_us and not engine.enable_batch_align:
            raise PlacementError((*place, "batch_wait_us"), "needs enable_batch_align: true")
        if engine.name in engines:
            raise PlacementError((*place, "name"), f"{engine.name!r} stands twice")
        engines.add(engine.name)


def _check_numbers(cluster: Cluster) -> None:
    """No two shard servers may have one number."""
    owners: dict[str, Place] = {}
    for server in all_shard_servers(cluster):
        if server.name in owners:
            other = ".".join(str(part) for part in owners[server.name])
            place = (*server.topology, "first_server")
            raise PlacementError(place, f"{server.name} is also one of {other}")
        owners[server.name] = server.topology


def _check_ports(cluster: Cluster) -> None:
    """No two roles may listen on one port of a host."""
    owners: dict[tuple[str, int], str] = {}
    roles: list[tuple[str, str, Place, tuple[int, ...]]] = [
        *((s.name, s.host, s.place, (s.port, s.grpc_port)) for s in all_shard_servers(cluster)),
        *((t.name, t.host, t.place, (t.port,)) for t in transfers(cluster)),
        *((c.name, c.host, c.place, (c.port, c.grpc_port)) for c in ctr_servers(cluster)),
    ]
    for name, host, place, ports in roles:
        for port in ports:
            if port < 0:
                continue
            other = owners.setdefault((host, port), name)
            if other != name or ports.count(port) > 1:
                raise PlacementError(place, f"{host}:{port} of {name} is also that of {other}")


def _check_directories(cluster: Cluster) -> None:
    """No two shard servers of a host may keep their versions in one directory."""
    owners: dict[tuple[str, str], str] = {}
    for server in all_shard_servers(cluster):
        directory = os.path.normpath(server.data_dir)
        other = owners.setdefault((server.host, directory), server.name)
        if other != server.name:
            place = (*server.place[:-1], "data_dir")
            problem = f"{server.data_dir} of {server.name} is also that of {other}"
            raise PlacementError(place, problem)


def _check_tls(cluster: Cluster) -> None:
    security = cluster.security
    for name in ("tls_key_file", "tls_ca_file", "tls_server_name"):
        if getattr(security, name) is not None and security.tls_cert_file is None:
            raise PlacementError(("security", name), "needs tls_cert_file")
