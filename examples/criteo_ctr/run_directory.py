"""The directory a demo runs in: copies of the sample configuration, on ports that are free."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cube_core.errors import CubeError

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"

_HOST = "127.0.0.1"
_PORT_SHIFT = 1000
_PORT_SHIFTS_MAX = 20


@dataclass(frozen=True)
class Ports:
    """TCP ports of every role; the defaults are those of the sample files in conf/."""

    cube: tuple[int, ...] = (8001, 8002)
    cube_grpc: tuple[int, ...] = (9001, 9002)
    transfer: tuple[int, ...] = (8098,)
    ctr: int = 8010
    ctr_grpc: int = 9010

    def all(self) -> tuple[int, ...]:
        return (*self.cube, *self.cube_grpc, *self.transfer, self.ctr, self.ctr_grpc)

    def shifted(self, by: int) -> Ports:
        """The same ports, all moved by `by`."""
        return Ports(
            tuple(port + by for port in self.cube),
            tuple(port + by for port in self.cube_grpc),
            tuple(port + by for port in self.transfer),
            self.ctr + by,
            self.ctr_grpc + by,
        )


DEFAULT_PORTS = Ports()


def prepare(run_dir: Path, conf_dir: Path = CONF_DIR, default: Ports = DEFAULT_PORTS) -> Ports:
    """Creates `run_dir` with a copy of a directory of configuration files in it, as `conf`, and
    returns the ports that its files name.

    When a default port is taken, all ports move together and the copies name the new ones.

    Args:
        default: the ports that the files in `conf_dir` name.

    Raises:
        CubeError: `run_dir` exists and is not empty, or no free ports are found.
    """
    if run_dir.exists() and any(run_dir.iterdir()):
        raise CubeError(f"{run_dir}: is not empty; name another --run_dir")
    ports = _free_ports(default)
    moved = dict(zip(default.all(), ports.all(), strict=True))
    run_dir.mkdir(parents=True, exist_ok=True)
    shutil.copytree(conf_dir, run_dir / "conf")
    if ports != default:
        for path in (run_dir / "conf").iterdir():
            path.write_text(_with_ports(path.read_text(encoding="utf-8"), moved), encoding="utf-8")
    return ports


def _free_ports(default: Ports) -> Ports:
    for step in range(_PORT_SHIFTS_MAX):
        ports = default.shifted(step * _PORT_SHIFT)
        if not taken_ports(ports.all()):
            return ports
    raise CubeError(
        f"ports {default.all()} are taken, and so are those moved by {_PORT_SHIFT} "
        f"up to {_PORT_SHIFTS_MAX - 1} times; end what listens there"
    )


def taken_ports(ports: Iterable[int]) -> list[int]:
    """Those of `ports` on which something listens on this machine."""
    return [port for port in ports if not _is_free(port)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers bind: connections that linger in TIME_WAIT are no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
    return True


def _with_ports(text: str, moved: Mapping[int, int]) -> str:
    numbers = "|".join(str(port) for port in moved)
    return re.sub(rf"(?<![\w.])(?:{numbers})(?![\w.])", lambda m: str(moved[int(m[0])]), text)
