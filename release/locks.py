"""`python -m release.locks`: the locked dependencies are those that pyproject.toml asks for.

Needs no network: it does not say whether newer versions exist, only that nobody changed a
requirement without `make lock`.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
BUILD_FILE = "requirements/build.in"
LOCKS: Mapping[str, tuple[str, ...] | None] = {
    "requirements/build.txt": None,
    "requirements/dev.txt": ("paddle", "dev"),
    "requirements/image.txt": ("paddle", "arrow", "hdfs"),
    "requirements/serve.txt": ("paddle",),
}
"""Each lock, and the extras that are in it; None: what builds the package, and nothing else."""

_PINNED = re.compile(r"^(?P<requirement>[A-Za-z0-9].*?)(?P<hashed>(\s*\\\n\s+--hash=\S+)*)$", re.M)
_MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Target:
    """An interpreter that the locks are for."""

    python: str
    machine: str

    def __str__(self) -> str:
        return f"Python {self.python} on {self.machine}"

    def takes(self, requirement: Requirement) -> bool:
        """Whether the requirement is for it."""
        environment = {
            "extra": "",
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }
        return requirement.marker is None or requirement.marker.evaluate(environment)


def targets(python_range: str) -> list[Target]:
    """Every Python 3 of `requires-python`, on the machines that wheels are made for."""
    allowed = SpecifierSet(python_range)
    versions = [f"3.{minor}" for minor in range(40) if allowed.contains(f"3.{minor}")]
    return [Target(version, machine) for version in versions for machine in _MACHINES]


def locked(text: str) -> Iterator[tuple[Requirement, int]]:
    """The requirements of a lock, and how many hashes each has."""
    for match in _PINNED.finditer(text):
        yield Requirement(match["requirement"].rstrip("\\ ")), match["hashed"].count("--hash=")


def problems(pyproject: str, build: str, locks: Mapping[str, str]) -> list[str]:
    """What does not agree.

    Args:
        pyproject, build: texts of pyproject.toml and of requirements/build.in.
        locks: text of each file of `LOCKS`.
    """
    project = tomli.loads(pyproject)
    build_lines = [line for line in build.splitlines() if line and not line.startswith("#")]
    found = [
        f"{BUILD_FILE}: lacks {each!r} of build-system.requires"
        for each in project["build-system"]["requires"]
        if each not in build_lines
    ]
    for path, text in locks.items():
        pins = list(locked(text))
        found += [f"{path}: {pin} has no hash" for pin, hashes in pins if not hashes]
        wanted = [*build_lines, *_wanted(project["project"], LOCKS[path])]
        for target in targets(project["project"]["requires-python"]):
            here = {
                canonicalize_name(pin.name): pin.specifier for pin, _ in pins if target.takes(pin)
            }
            for each in map(Requirement, wanted):
                if target.takes(each) and (problem := _mismatch(each, here)):
                    found.append(f"{path}: {problem}, for {target}")
    return found


def _wanted(project: Mapping[str, Any], extras: tuple[str, ...] | None) -> list[str]:
    if extras is None:
        return []
    of_extras = (each for name in extras for each in project["optional-dependencies"][name])
    return [*project["dependencies"], *of_extras]


def _mismatch(wanted: Requirement, here: Mapping[NormalizedName, SpecifierSet]) -> str:
    pin = here.get(canonicalize_name(wanted.name))
    if pin is None:
        return f"lacks {wanted.name}"
    version = Version(next(iter(pin)).version)
    fits = wanted.specifier.contains(version, prereleases=True)
    return "" if fits else f"{wanted.name} is {version}, pyproject.toml asks for {wanted.specifier}"


def main() -> int:
    """Prints what does not agree; 1 when anything does not."""
    found = problems(
        (ROOT / "pyproject.toml").read_text(),
        (ROOT / BUILD_FILE).read_text(),
        {path: (ROOT / path).read_text() for path in LOCKS},
    )
    for each in found:
        print(each)
    print("run `make lock`" if found else "locks: agree with pyproject.toml")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
