"""`python -m release.packages DIRECTORY`: the source distribution, and a wheel made from it alone.

What is in them is checked: all that belongs there, and nothing else.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import tomli

from release.locks import ROOT

SOURCES = ("native", "proto")
FILES = ("CMakeLists.txt", "LICENSE", "README.md", "pyproject.toml")
GENERATED = "cube_proto"

_JUNK = re.compile(
    r"^(build|dist|run)/|(^|/)(__pycache__|\.git|\.venv|\.[a-z]+_cache|\.hypothesis)(/|$)"
    r"|\.(pyc|so|o|a|log|part|egg-info)(/|$)"
)


class PackageError(Exception):
    """A distribution is not what it has to be; says what and which."""


def package_names() -> list[str]:
    """The packages that a wheel holds, but for what is generated."""
    project = tomli.loads((ROOT / "pyproject.toml").read_text())
    names: list[str] = project["tool"]["scikit-build"]["wheel"]["packages"]
    return names


def tracked(directories: Iterable[str]) -> set[str]:
    """Every file in them that is no product of a build."""
    return {
        str(path.relative_to(ROOT))
        for directory in directories
        for path in (ROOT / directory).rglob("*")
        if path.is_file() and not _JUNK.search(str(path.relative_to(ROOT)))
    }


def check_sdist(names: Sequence[str]) -> None:
    """Args:
        names: its files, without the directory that they are in.

    Raises:
        PackageError: something is missing, or does not belong there.
    """
    _require_no("source distribution", [name for name in names if _JUNK.search(name)])
    _require_all("source distribution", {*FILES, *tracked([*package_names(), *SOURCES])}, names)


def check_wheel(names: Sequence[str]) -> None:
    """As `check_sdist`."""
    packages = package_names()
    native = [name for name in names if re.fullmatch(r"cube_core/_native\.[\w.-]+\.so", name)]
    if len(native) != 1:
        raise PackageError(f"wheel: one cube_core/_native….so is needed, not {native}")
    info = r"cube_serving-[^/]+\.dist-info/"
    generated = [f"{GENERATED}/{each.stem}_pb2.py" for each in (ROOT / "proto").glob("*.proto")]
    generated += [f"{name}i" for name in generated]
    expected = {*tracked(packages), *generated, *native, f"{GENERATED}/__init__.py"}
    _require_all("wheel", {*expected, f"{GENERATED}/py.typed"}, names)
    others = {*names} - expected - {f"{GENERATED}/py.typed"}
    _require_no("wheel", [name for name in others if not re.match(info, name)])
    if not any(re.match(info + "licenses/LICENSE", name) for name in names):
        raise PackageError("wheel: lacks LICENSE")


def _require_all(what: str, expected: set[str], names: Sequence[str]) -> None:
    if missing := sorted(expected.difference(names)):
        raise PackageError(f"{what}: lacks {', '.join(missing[:10])}")


def _require_no(what: str, names: Sequence[str]) -> None:
    if names:
        raise PackageError(f"{what}: holds {', '.join(sorted(names)[:10])}, which is none of it")


def _build(kind: str, source: Path, target: Path) -> Path:
    """Builds with what is installed, which is what is locked."""
    target.mkdir(parents=True, exist_ok=True)
    for old in target.glob("cube_serving-*.tar.gz" if kind == "sdist" else "cube_serving-*.whl"):
        old.unlink()
    subprocess.run(
        [sys.executable, "-m", "build", f"--{kind}", "--no-isolation", f"--outdir={target}", "."],
        cwd=source,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [built] = target.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return built


def make(target: Path) -> tuple[Path, Path]:
    """Builds both into `target`, the wheel out of the unpacked source distribution, somewhere else.

    Raises:
        PackageError: one of them is not what it has to be.
    """
    sdist = _build("sdist", ROOT, target.absolute())
    with tempfile.TemporaryDirectory(prefix="cube-sdist-") as scratch:
        with tarfile.open(sdist) as archive:
            names = [member.name.partition("/")[2] for member in archive if member.isfile()]
        check_sdist(names)
        shutil.unpack_archive(sdist, scratch)
        [source] = Path(scratch).iterdir()
        wheel = _build("wheel", source, target.absolute())
    with zipfile.ZipFile(wheel) as wheel_file:
        check_wheel([name for name in wheel_file.namelist() if not name.endswith("/")])
    return sdist, wheel


def main() -> int:
    """Prints what was built; 1 and a line when it is not right."""
    try:
        for path in make(Path(sys.argv[1])):
            print(f"{path}: {path.stat().st_size:,} bytes")
    except PackageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
