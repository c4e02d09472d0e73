"""What the Dockerfile says, as far as it can be judged without an engine."""

from __future__ import annotations

import fnmatch
import re
import shlex
import subprocess
from pathlib import PurePosixPath

import pytest

from cube_cluster.kubernetes import names
from cube_cluster.kubernetes.pods import USER_ID
from release.locks import LOCKS
from tests.cluster.manifests import EXAMPLE, REPOSITORY, Site

Instruction = tuple[str, str]


def instructions() -> list[Instruction]:
    """Instructions with their arguments, lines joined and comments left out."""
    text = (REPOSITORY / "deploy" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines()]


def stages() -> list[list[Instruction]]:
    found: list[list[Instruction]] = []
    for instruction in instructions():
        if instruction[0] == "FROM":
            found.append([])
        if found:
            found[-1].append(instruction)
    return found


def all_of(name: str, stage: list[Instruction]) -> list[str]:
    return [argument for each, argument in stage if each == name]


def test_the_image_runs_unprivileged() -> None:
    _, runtime = stages()
    (user,) = all_of("USER", runtime)
    assert user == f"{USER_ID}:{USER_ID}", "by number, so that Kubernetes can tell it from root"
    created = " ".join(all_of("RUN", runtime))
    assert f"--uid {USER_ID}" in created
    for directory in (names.DATA_DIR, names.MODELS_DIR):
        assert directory in created, "a volume that is mounted there belongs to the user"
    assert runtime.index(("USER", user)) > max(
        index for index, (name, _) in enumerate(runtime) if name in ("RUN", "COPY")
    )


def test_nothing_of_the_build_is_in_the_image() -> None:
    build, runtime = stages()
    assert build[0][1].endswith(" AS build")
    assert all_of("COPY", runtime) == ["--from=build /opt/cube-serving /opt/cube-serving"]
    assert "g++" in " ".join(all_of("RUN", build))
    assert "g++" not in " ".join(all_of("RUN", runtime))
    for run in all_of("RUN", build) + all_of("RUN", runtime):
        if "apt-get install" in run:
            assert "--no-install-recommends" in run
            assert "rm -rf /var/lib/apt/lists/*" in run
        if "pip install" in run or "pip wheel" in run:
            assert "--no-cache-dir" in run


def test_pip_installs_nothing_whose_hash_is_not_known() -> None:
    """But the wheel that was just built. That the locks have hashes is told by `release.locks`."""
    installs = [
        command
        for run in all_of("RUN", stages()[0])
        for command in run.split(" && ")
        if "pip install" in command or "pip wheel" in command
    ]
    locks = [each for each in installs if "--require-hashes" in each]
    assert [each.rpartition("--requirement=")[2].strip() for each in locks] == [
        "requirements/build.txt",
        "requirements/image.txt",
    ]
    assert set(re.findall(r"requirements/\S+", " ".join(locks))) <= set(LOCKS)
    for command in set(installs) - set(locks):
        assert "--no-deps" in command
        assert "pip install" in command or "--no-build-isolation" in command


def test_both_stages_have_one_base() -> None:
    """A compiled module of the one runs with the libraries of the other."""
    assert [stage[0][1].split()[0] for stage in stages()] == ["${PYTHON_IMAGE}"] * 2
    (argument,) = [a for n, a in instructions() if n == "ARG" and a.startswith("PYTHON_IMAGE")]
    version = re.search(r"python:(\d+\.\d+)-slim-", argument)
    assert version is not None
    assert version[1] in ("3.10", "3.11", "3.12", "3.13")


def test_labels_and_environment() -> None:
    _, runtime = stages()
    labels = dict(each.split("=", 1) for each in shlex.split(all_of("LABEL", runtime)[0]))
    project = (REPOSITORY / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.+)"$', project, re.MULTILINE)
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"
    assert f"VERSION={version}" in all_of("ARG", runtime)
    environment = dict(each.split("=", 1) for each in shlex.split(all_of("ENV", runtime)[0]))
    assert environment["PATH"].startswith("/opt/cube-serving/bin:")
    assert environment["HOME"] == "/tmp", "the root is read-only"  # noqa: S108


def test_pods_run_commands_of_the_image_on_ports_that_it_exposes() -> None:
    _, runtime = stages()
    exposed = set(map(int, all_of("EXPOSE", runtime)[0].split()))
    project = (REPOSITORY / "pyproject.toml").read_text()
    section = re.search(r"\[project\.scripts\]\n(.*?)\n\n", project, re.DOTALL)
    assert section is not None
    scripts = re.findall(r"^([\w-]+) =", section[1], re.MULTILINE)
    for template in Site.written_from(EXAMPLE).templates():
        assert template.container["command"][0] in scripts
        assert set(template.ports.values()) <= exposed
    image = Site.written_from(EXAMPLE).template("cube-server").container["image"]
    assert image.endswith(f":{re.findall(r'^version = .(.+).$', project, re.MULTILINE)[0]}")


def is_sent(path: str) -> bool:
    """Whether .dockerignore lets a path go to the engine: the last line that matches it, or a
    directory above it, says."""
    sent = True
    for line in (REPOSITORY / ".dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern = line.removeprefix("!")
        above = [path, *map(str, PurePosixPath(path).parents)]
        if any(_matches(each, pattern) for each in above):
            sent = line.startswith("!")
    return sent


def _matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatch.fnmatch(PurePosixPath(path).name, pattern.removeprefix("**/"))
    return path != "." and path.count("/") == pattern.count("/") and fnmatch.fnmatch(path, pattern)


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("pyproject.toml", True),
        ("native/kernels/table.cpp", True),
        ("cube_cluster/kubernetes/pods.py", True),
        (".git/config", False),
        (".venv/bin/python", False),
        ("tests/cluster/test_dockerfile.py", False),
        ("secrets/token", False),
        ("cube_core/_native.abi3.so", False),
        ("cube_core/__pycache__/x.pyc", False),
    ],
)
def test_what_the_engine_gets(path: str, sent: bool) -> None:
    assert is_sent(path) is sent


def test_the_engine_gets_all_that_the_wheel_is_made_of() -> None:
    """CMake and the backend name files; those of git that they need are sent."""
    project = (REPOSITORY / "pyproject.toml").read_text()
    (packages,) = re.findall(r"^wheel\.packages = \[(.*)\]$", project, re.MULTILINE)
    needed = [f"{each.strip().strip(chr(34))}/__init__.py" for each in packages.split(",")]
    needed += [
        "requirements/build.txt",
        "requirements/image.txt",
        "pyproject.toml",
        "CMakeLists.txt",
        "README.md",
        "LICENSE",
        "proto/dict.proto",
    ]
    ran = subprocess.run(
        ["git", "ls-files", "native", *packages.replace('"', "").split(", ")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    needed += ran.stdout.split() if ran.returncode == 0 else []
    assert [path for path in needed if not is_sent(path)] == []
