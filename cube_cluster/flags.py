"""Flags of the roles' commands in `cluster.yml`, checked against the commands themselves."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

import typer

from cube_cluster.cluster import Cluster, FlagValue
from cube_cluster.yaml_source import Place

# What other fields of cluster.yml say, and what would end the process before it serves.
_RESERVED = frozenset(
    {
        "conf",
        "config",
        "cube_conf",
        "data_dir",
        "dict_name",
        "flagfile",
        "grpc_port",
        "help",
        "host",
        "operate_token_file",
        "port",
        "read_token_file",
        "shard",
        "tls_ca_file",
        "tls_cert_file",
        "tls_key_file",
    }
)
_LIMIT_ENDINGS = ("_max", "_timeout_ms")


class FlagError(ValueError):
    """A flag cannot be given as it is; `place` is where it stands."""

    def __init__(self, place: Place, problem: str) -> None:
        self.place = place
        super().__init__(problem)


def is_limit(name: str) -> bool:
    """Whether a flag stands under `limits`."""
    return name.endswith(_LIMIT_ENDINGS)


def check_flags(cluster: Cluster) -> None:
    """Checks `flags` and `limits`.

    Raises:
        FlagError: there is no such flag, its value is not taken, or it stands in the wrong place.
    """
    for role in ("cube_server", "cube_transfer", "ctr_serving"):
        flags: Mapping[str, FlagValue] = getattr(cluster.flags, role)
        limits: Mapping[str, FlagValue] = getattr(cluster.limits, role, {})
        if not flags and not limits:
            continue
        command = typer.main.get_command(_app(role))
        for section, values in (("flags", flags), ("limits", limits)):
            for name, value in values.items():
                place = (section, role, name)
                _check(command, place, name, value)
                if is_limit(name) != (section == "limits"):
                    other = "limits" if section == "flags" else "flags"
                    raise FlagError(place, f"write it under {other}.{role}")


def taken_flags(role: str, values: Mapping[str, FlagValue]) -> dict[str, FlagValue]:
    """Those of `values` that the command of a role has flags for."""
    if not values:
        return {}
    options = _options(typer.main.get_command(_app(role)))
    return {name: value for name, value in values.items() if name in options}


def _check(command: Any, place: Place, name: str, value: FlagValue) -> None:
    options = _options(command)
    option = options.get(name)
    if option is None:
        known = [each for each in options if each not in _RESERVED]
        close = difflib.get_close_matches(name, known, n=1)
        raise FlagError(place, "no such flag" + (f"; did you mean {close[0]}?" if close else ""))
    if name in _RESERVED:
        raise FlagError(place, f"another field of the file says it, not {place[0]}")
    is_switch = bool(getattr(option, "is_flag", False))
    if is_switch != isinstance(value, bool):
        raise FlagError(place, "must be true or false" if is_switch else "must be a value")
    if isinstance(value, str) and (not value.isprintable() or value != value.strip()):
        raise FlagError(place, "must be one line without blanks around it")
    if is_switch:
        return
    try:
        command.make_context(command.name, [f"--{name}={value}"])
    except Exception as error:
        # What click calls a usage error; typer may carry a click of its own.
        message = getattr(error, "message", None)
        if message is None:
            raise
        raise FlagError(place, f"{message.rstrip('.')}, not {value!r}") from error


def _options(command: Any) -> dict[str, Any]:
    return {
        spelling.removeprefix("--"): option for option in command.params for spelling in option.opts
    }


def _app(role: str) -> typer.Typer:
    if role == "cube_server":
        from cube_server.main import app
    elif role == "cube_transfer":
        from cube_transfer.main import app
    else:
        from ctr_serving.main import app
    return app
