"""The commands of the package, as they declare themselves."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distribution
from typing import Any

import typer

_RANGES = {(None, None): "", (0, None): "0 or more", (1, None): "1 or more"}


@dataclass(frozen=True)
class Flag:
    """One flag of a command.

    Attributes:
        names: spellings, the long one with its dashes first; of a switch also the one that negates.
        values: what it takes, in words.
        default: as it is written; "" without one.
    """

    names: tuple[str, ...]
    values: str
    default: str
    help: str


@dataclass(frozen=True)
class Command:
    """A command, or one of its subcommands.

    Attributes:
        name: as it is typed, such as `cube up`.
        click: what typer made of it.
    """

    name: str
    click: Any

    @property
    def flags(self) -> list[Flag]:
        return [_flag(each) for each in self.click.params if each.param_type_name == "option"]

    @property
    def arguments(self) -> list[Any]:
        return [each for each in self.click.params if each.param_type_name == "argument"]

    @property
    def help(self) -> str:
        return str(self.click.help or "")


def programs() -> dict[str, str]:
    """The console scripts of the package: by name the module of each."""
    scripts = distribution("cube-serving").entry_points
    return {each.name: each.value.partition(":")[0] for each in scripts}


def program(name: str) -> Any:
    """What typer made of the app of a console script."""
    return typer.main.get_command(importlib.import_module(programs()[name]).app)


def ignored_flags(name: str) -> list[str]:
    """Flags of files of the original that a program takes without effect."""
    module = importlib.import_module(programs()[name])
    return sorted(getattr(module, "IGNORED_FLAGS", getattr(module, "_IGNORED_FLAGS", ())))


def commands() -> Iterator[Command]:
    """Every command and subcommand, in the order of their names."""
    for name in sorted(programs()):
        yield from _with_subcommands(Command(name, program(name)))


def _with_subcommands(command: Command) -> Iterator[Command]:
    yield command
    for name, click in getattr(command.click, "commands", {}).items():
        yield from _with_subcommands(Command(f"{command.name} {name}", click))


def _flag(option: Any) -> Flag:
    names = sorted((*option.opts, *option.secondary_opts), key=lambda each: -len(each))
    long = [each for each in (*option.opts, *option.secondary_opts) if each.startswith("--")]
    names = [*long, *(each for each in names if not each.startswith("--"))]
    return Flag(tuple(names), _values(option), _default(option), str(option.help or ""))


def _values(option: Any) -> str:
    if option.is_flag:
        return ""
    kind = _kind(option)
    bounds = _bounds(option)
    several = ", repeatable" if option.multiple else ""
    return f"{kind}{', ' if bounds else ''}{bounds}{several}"


def _kind(option: Any) -> str:
    """`type` is click's; newer versions of typer have a descriptor of their own."""
    descriptor = getattr(option, "type_descriptor", None)
    name = str(option.type.name) if descriptor is None else _kind_of(descriptor.annotation)
    return {"integer range": "integer", "float range": "float"}.get(name, name)


def _kind_of(annotation: Any) -> str:
    text = getattr(annotation, "__name__", str(annotation))
    choices = getattr(annotation, "__members__", None)
    if choices:
        return " or ".join(str(each.value) for each in choices.values())
    names = {"int": "integer", "str": "text", "Path": "path"}
    for name, word in names.items():
        if name in text or name in str(annotation):
            return word
    return text


def _bounds(option: Any) -> str:
    source = option if hasattr(option, "min") else getattr(option, "type", None)
    low, high = getattr(source, "min", None), getattr(source, "max", None)
    if (low, high) in _RANGES:
        return _RANGES[low, high]
    return f"{low:,} or more" if high is None else f"{low:,} to {high:,}"


def _default(option: Any) -> str:
    default = option.default
    if option.required:
        return "needed"
    if default is None or default == "" or default == ():
        return ""
    if isinstance(default, bool):
        return str(default).lower()
    return str(getattr(default, "value", default))
