"""`python -m release.installed WHEEL`: installs the wheel as a user does, and lets it serve.

In a new environment, with the locked dependencies and no others, from an empty directory: what
works here needs neither the source tree nor the tools of its developers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from release.locks import ROOT

_LOCK = ROOT / "requirements" / "serve.txt"
_SMOKE = ROOT / "release" / "smoke.py"
_TIMEOUT_S = 900


def install(wheel: Path, environment: Path, python: str) -> Path:
    """Makes the environment; returns its interpreter."""
    subprocess.run([python, "-m", "venv", str(environment)], check=True)
    interpreter = environment / "bin" / "python"
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([*pip, "--require-hashes", f"--requirement={_LOCK}"], check=True)
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    subprocess.run([str(interpreter), "-m", "pip", "check"], check=True)
    return interpreter


def smoke(interpreter: Path, directory: Path) -> int:
    """Runs smoke.py, copied away from the source, in an empty directory; returns its exit code."""
    script = Path(shutil.copy(_SMOKE, directory))
    empty = directory / "empty"
    empty.mkdir()
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTHON")
    }
    return subprocess.run(
        [str(interpreter), str(script), str(ROOT)],
        cwd=empty,
        env=environment,
        timeout=_TIMEOUT_S,
        check=False,
    ).returncode


def main() -> int:
    """The exit code of smoke.py."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--python", default=sys.executable, help="an interpreter the wheel is for")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cube-installed-") as scratch:
        directory = Path(scratch)
        interpreter = install(arguments.wheel, directory / "venv", arguments.python)
        return smoke(interpreter, directory)


if __name__ == "__main__":
    sys.exit(main())
