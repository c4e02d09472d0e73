"""What help texts and pages show can be typed as it stands."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cube_cluster.cluster_file import read_cluster
from cube_cluster.main import app as cube_app
from docs_site.commands import Command, commands
from tests.docs.command_lines import check, lines_of
from tests.docs.pages import ROOT, Block, blocks, markdown_files


def all_blocks(*languages: str) -> list[Block]:
    found = [block for path in markdown_files() for block in blocks(path)]
    return [block for block in found if block.language in languages]


@pytest.mark.parametrize("command", list(commands()), ids=lambda command: command.name)
def test_help_has_an_example_that_can_be_typed(command: Command) -> None:
    words = set(command.name.split())
    examples = [line for line in lines_of(command.help) if words <= set(line.split())]
    assert examples
    for line in examples:
        check(line)


def test_commands_of_pages_can_be_typed() -> None:
    # Drawings have names of commands too.
    shell = [block for block in all_blocks("bash", "") if "──" not in block.text]
    lines = [(block.place, line) for block in shell for line in lines_of(block.text)]
    assert len(lines) > 20
    for place, line in lines:
        try:
            check(line)
        except Exception as error:
            pytest.fail(f"{place}: {line}: {error}")


def test_python_of_pages_is_python() -> None:
    python = all_blocks("python")
    assert len(python) > 10
    for block in python:
        # Top-level `await` is for readers, who put it into a function.
        source = "async def shown():\n" + "\n".join(
            f"    {line}" for line in block.text.split("\n")
        )
        try:
            ast.parse(source)
        except SyntaxError as error:
            pytest.fail(f"{block.place}: {error}")


def test_json_of_pages_is_json() -> None:
    shown = [block for block in all_blocks("json") if "…" not in block.text]
    assert shown
    for block in shown:
        try:
            json.loads(block.text)
        except ValueError as error:
            pytest.fail(f"{block.place}: {error}")


def test_clusters_of_pages_are_clusters(tmp_path: Path) -> None:
    shown = [block for block in all_blocks("yaml") if "dicts" in yaml.safe_load(block.text)]
    assert shown
    for block in shown:
        path = tmp_path / "cluster.yml"
        path.write_text(block.text, encoding="utf-8")
        read_cluster(path)


def test_the_plan_that_is_shown_is_the_one_that_is_printed() -> None:
    shown = list(blocks(ROOT / "docs/operating/capacity.md"))
    (line,) = lines_of(shown[0].text)
    printed = CliRunner().invoke(cube_app, line.split()[1:])
    assert printed.output.strip() == shown[1].text.strip()
