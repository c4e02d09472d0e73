"""stubtest cannot look into nanobind's functions; this compares their parameters with the stub."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import cube_core
from cube_core import _native

STUB = ast.parse((Path(cube_core.__file__).parent / "_native.pyi").read_text())


def functions(tree: ast.Module) -> dict[str, ast.FunctionDef]:
    found = {}
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= {
                f"{node.name}.{item.name}": item
                for item in node.body
                if isinstance(item, ast.FunctionDef)
            }
    return found


def parameters(function: ast.FunctionDef) -> list[tuple[str, bool, bool]]:
    """Name, whether keyword-only, whether it has a default; without self."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    required = len(positional) - len(arguments.defaults)
    shape = [(item.arg, False, i >= required) for i, item in enumerate(positional)]
    shape += [
        (item.arg, True, default is not None)
        for item, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    ]
    return [item for item in shape if item[0] != "self"]


@pytest.mark.parametrize("name", sorted(functions(STUB)))
def test_parameters_are_those_of_the_stub(name: str) -> None:
    stub = functions(STUB)[name]
    owner, _, attribute = name.rpartition(".")
    runtime = getattr(getattr(_native, owner) if owner else _native, attribute)
    if any(isinstance(item, ast.Name) and item.id == "property" for item in stub.decorator_list):
        assert type(runtime) is property
        return
    ((signature, *_),) = runtime.__nb_signature__
    plain = re.sub(r"ndarray\[[^\]]*\]", "ndarray", signature)
    declared = ast.parse(f"{plain.replace(chr(92), '')}: ...").body[0]
    assert isinstance(declared, ast.FunctionDef)
    assert parameters(declared) == parameters(stub)


def test_every_public_name_is_in_the_stub() -> None:
    declared = {node.name for node in STUB.body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
    declared |= {
        node.target.id
        for node in STUB.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert declared == {name for name in dir(_native) if not name.startswith("_")}
