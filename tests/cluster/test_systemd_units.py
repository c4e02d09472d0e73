"""The units in deploy/ start commands that exist from files that `cube config` writes."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest

from cube_cluster.cluster_file import read_cluster
from cube_cluster.conf_files import ConfFiles

REPOSITORY = Path(__file__).parents[2]
UNITS = sorted((REPOSITORY / "deploy" / "systemd").glob("*.service"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda path: path.name)
def test_a_unit_starts_a_command_from_files_that_are_written(unit: Path) -> None:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.read_string(unit.read_text())
    program, *arguments = parser["Service"]["ExecStart"].replace("%i", "0").split()
    project = re.search(
        r"\[project\.scripts\]\n(.*?)\n\n", (REPOSITORY / "pyproject.toml").read_text(), re.DOTALL
    )
    assert project is not None
    assert re.search(rf"^{Path(program).name} = ", project[1], re.MULTILINE)
    sample = REPOSITORY / "conf" / "cluster.yml"
    written = ConfFiles(read_cluster(sample), "conf/cluster.yml", "conf").all()
    named = [Path(each.partition("=")[2]) for each in arguments if "file=" in each]
    assert named
    for path in named:
        assert path.parent == Path("conf")
        assert path.name in {*written, "cluster.yml"}
