"""No text reaches a shell: nowhere in the repository is one run."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from release.locks import ROOT

_DIRECTORIES = [path.parent.name for path in ROOT.glob("*/__init__.py")] + ["examples", "deploy"]
_SHELLS = {
    "os.popen",
    "os.system",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell",
    "loop.subprocess_shell",
}


def shells(source: str) -> Iterator[int]:
    """Lines of calls that run a shell."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        names = {called, called.rpartition(".")[2]}
        if names & {each for full in _SHELLS for each in (full, full.rpartition(".")[2])}:
            yield node.lineno
        for keyword in node.keywords:
            is_off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg == "shell" and not is_off:
                yield node.lineno


@pytest.mark.parametrize("directory", sorted(set(_DIRECTORIES)))
def test_no_shell_is_run(directory: str) -> None:
    paths = list((ROOT / directory).rglob("*.py"))
    assert paths
    found = [f"{path}:{line}" for path in paths for line in shells(path.read_text())]
    assert not found


@pytest.mark.parametrize(
    "call",
    [
        "subprocess.run(text, shell=True)",
        "run(text, shell=is_text)",
        "os.system(text)",
        "await asyncio.create_subprocess_shell(text)",
        "getoutput(text)",
    ],
)
def test_those_that_do_are_noticed(call: str) -> None:
    assert list(shells(f"async def f():\n    {call}")) == [2]


def test_a_list_of_arguments_is_none() -> None:
    assert not list(shells("subprocess.run(['a', text], shell=False)"))
