"""The directory a demo runs in: a copy of the cluster's files, on ports that are free."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cube_cluster.deployment import Deployment
from cube_cluster.ports import is_taken
from cube_core.errors import CubeError
from cube_core.replace_file import replace_file

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"
CLUSTER_FILE = Path("conf", "cluster.yml")

_PORT_SHIFT = 1000
_PORT_SHIFTS_MAX = 20


def prepare(run_dir: Path, conf_dir: Path = CONF_DIR) -> int:
    """Creates `run_dir` with a copy of a directory of configuration files in it, as `conf`, and
    returns by how much the ports of its cluster were moved: all together, when one is taken.

    Raises:
        CubeError: `run_dir` exists and is not empty, or no free ports are found.
    """
    if run_dir.exists() and any(run_dir.iterdir()):
        raise CubeError(f"{run_dir}: is not empty; name another --run_dir")
    ports = ports_of(conf_dir / CLUSTER_FILE.name)
    shift = _free_shift(ports)
    run_dir.mkdir(parents=True, exist_ok=True)
    shutil.copytree(conf_dir, run_dir / "conf")
    path = run_dir / CLUSTER_FILE
    text = _with_ports(path.read_text(encoding="utf-8"), {port: port + shift for port in ports})
    replace_file(path, f"{text}\n# Logs and processes.json stand beside all else.\nrun_dir: .\n")
    return shift


def ports_of(cluster_file: Path) -> list[int]:
    """Those that the roles of a cluster listen on."""
    return [port for role in Deployment.read(cluster_file).roles() for port in role.ports.values()]


def _free_shift(ports: list[int]) -> int:
    for step in range(_PORT_SHIFTS_MAX):
        if not taken_ports(port + step * _PORT_SHIFT for port in ports):
            return step * _PORT_SHIFT
    raise CubeError(
        f"ports {ports} are taken, and so are those moved by {_PORT_SHIFT} "
        f"up to {_PORT_SHIFTS_MAX - 1} times; end what listens there"
    )


def taken_ports(ports: Iterable[int]) -> list[int]:
    """Those of `ports` on which something listens on this machine."""
    return [port for port in ports if is_taken("127.0.0.1", port)]


def _with_ports(text: str, moved: Mapping[int, int]) -> str:
    numbers = "|".join(str(port) for port in moved)
    return re.sub(rf"(?<![\w.])(?:{numbers})(?![\w.])", lambda m: str(moved[int(m[0])]), text)
