"""YAML with the line of every key and every entry of a list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cube_core.errors import ConfError

NODES_MAX = 100_000
"""Keys and values of a file, those that aliases repeat counted each time."""

Place = tuple["str | int", ...]
"""Where a value stands: ("dicts", 0, "shards")."""


@dataclass(frozen=True)
class YamlSource:
    """The values of a file, and where they stand in it."""

    path: str
    values: Any
    lines: dict[Place, int]

    def error(self, place: Sequence[str | int], problem: str) -> ConfError:
        """An error that names the file, the line and the field. A field that is not there has
        the line of what it should stand in."""
        known = tuple(place)
        while known not in self.lines:
            known = known[:-1]
        where = f"{self.path}:{self.lines[known]}"
        return ConfError(where, ".".join(str(part) for part in place), problem)


def read_yaml(path: Path | str) -> YamlSource:
    """Reads one YAML document.

    Raises:
        ConfError: the file cannot be read, is no YAML, a key stands twice, or it has over NODES_MAX
            nodes; names the file and the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(str(path), "", f"cannot be read: {error}") from error
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            raise ConfError(str(path), "", "is empty")
        walk = _Walk(str(path), loader)
        return YamlSource(str(path), walk.value(root, ()), walk.lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfError(where, "", f"is not YAML: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        # A character YAML does not have, brackets nested too deep.
        raise ConfError(str(path), "", f"is not YAML: {' '.join(str(error).split())}") from error


class _Walk:
    """Makes Python values of nodes and notes their lines on the way."""

    def __init__(self, path: str, loader: yaml.SafeLoader) -> None:
        self._path = path
        self._loader = loader
        self._node_count = 0
        self.lines: dict[Place, int] = {}

    def value(self, node: yaml.Node, place: Place) -> Any:
        self._node_count += 1
        if self._node_count > NODES_MAX:
            raise self._error(node, f"more than NODES_MAX = {NODES_MAX} keys and values")
        self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*place, index)) for index, each in enumerate(node.value)]
        try:
            return self._loader.construct_object(node)
        except (ValueError, LookupError, AttributeError, TypeError):
            # A tag that does not fit what it is on: PyYAML looks for a month, or a digit.
            kind = node.tag.rpartition(":")[2]
            raise self._error(node, f"{node.value!r} is no {kind}") from None

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, (*place, "")) if _is_scalar(key_node) else None
            if not isinstance(key, str):
                raise self._error(key_node, "a field's name must be a word")
            if key in found:
                raise self._error(key_node, f"{key} stands twice")
            field = (*place, key)
            self.lines[field] = key_node.start_mark.line + 1
            found[key] = self.value(value_node, field)
        return found

    def _error(self, node: yaml.Node, problem: str) -> ConfError:
        return ConfError(f"{self._path}:{node.start_mark.line + 1}", "", problem)


def _is_scalar(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode)
