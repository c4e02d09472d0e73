"""The directory in which dense models stand for the CTR servers that look at it.

<deploy_path>/<version>/        the model, complete before its name exists
<deploy_path>/current           symbolic link to the version to serve
<deploy_path>/fluid_time_file   rewritten last; its time tells the servers to reload
"""

from __future__ import annotations

import filecmp
import os
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from cube_core.errors import ControlError
from cube_core.file_list import ListedFile, first_problem
from cube_core.replace_file import replace_file, replace_link, sync_directory
from cube_core.versions import Version

CURRENT_NAME = "current"
TIME_FILE_NAME = "fluid_time_file"
_STAGING_PREFIX = ".publishing-"


class ListedModel(BaseModel):
    """A published model and its files, as one machine tells another."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    version: str
    files: tuple[ListedFile, ...]

    @field_validator("version")
    @classmethod
    def _plain(cls, version: str) -> str:
        if not is_version(version):
            raise ValueError(f"{version!r} is no <base>_<version>")
        return version

    @classmethod
    def parse(cls, data: bytes) -> ListedModel:
        """Reads the JSON.

        Raises:
            ValueError: the field, and what is wrong.
        """
        try:
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from error


def is_version(name: str) -> bool:
    """Whether it can be the name of a model's directory."""
    try:
        return str(Version.parse(name)) == name
    except ControlError:
        return False


def publish(model: Path, deploy_path: Path, version: str) -> None:
    """Publishes the directory `model` as `version`. What is done already is not done again, so
    a publication that was cut short is simply repeated.

    Raises:
        OSError: `deploy_path` cannot be written.
    """
    deploy_path.mkdir(parents=True, exist_ok=True)
    target = deploy_path / version
    if target.is_dir() and _same_files(model, target):
        if is_published(deploy_path, version):
            return
    else:
        staging = deploy_path / f"{_STAGING_PREFIX}{version}"
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(model, staging)
        _place(staging, target)
    _announce(deploy_path, version)


def staging_path(deploy_path: Path, version: str) -> Path:
    """An empty directory in which a model can be put together for `publish_staged`.

    Raises:
        OSError: it cannot be made.
    """
    staging = deploy_path / f"{_STAGING_PREFIX}{version}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    return staging


def publish_staged(staging: Path, version: str) -> None:
    """Publishes what was put into a directory of `staging_path`, which is moved.

    Raises:
        OSError: its parent cannot be written.
    """
    _place(staging, staging.parent / version)
    _announce(staging.parent, version)


def republish(deploy_path: Path, version: str) -> None:
    """Makes a model that was published before the one to serve again.

    Raises:
        OSError: it is not there, or `deploy_path` cannot be written.
    """
    if not (deploy_path / version).is_dir():
        raise FileNotFoundError(f"{deploy_path / version}: no such model")
    if not is_published(deploy_path, version):
        _announce(deploy_path, version)


def published_version(deploy_path: Path) -> str:
    """The version that `current` points at; "" when there is none."""
    try:
        return (deploy_path / CURRENT_NAME).readlink().name
    except OSError:
        return ""


def is_published(deploy_path: Path, version: str) -> bool:
    """Whether `version` is what the CTR servers are told to serve."""
    try:
        announced = (deploy_path / TIME_FILE_NAME).read_text(encoding="utf-8").strip()
    except OSError:
        return False
    return announced == published_version(deploy_path) == version


def remove_unfinished_publications(deploy_path: Path) -> None:
    """Removes what a killed daemon left half-copied."""
    for staging in deploy_path.glob(f"{_STAGING_PREFIX}*"):
        shutil.rmtree(staging, ignore_errors=True)
    for name in (CURRENT_NAME, TIME_FILE_NAME):
        (deploy_path / f".{name}.tmp").unlink(missing_ok=True)


def _announce(deploy_path: Path, version: str) -> None:
    replace_link(deploy_path / CURRENT_NAME, version)
    replace_file(deploy_path / TIME_FILE_NAME, f"{version}\n")


def _place(staging: Path, target: Path) -> None:
    for path in staging.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_directory(staging)
    # Another model under the same version is what an abandoned state left.
    shutil.rmtree(target, ignore_errors=True)
    staging.rename(target)
    sync_directory(target.parent)


def _same_files(one: Path, other: Path) -> bool:
    names = sorted(path.name for path in one.iterdir())
    if names != sorted(path.name for path in other.iterdir()):
        return False
    _, different, unreadable = filecmp.cmpfiles(one, other, names, shallow=False)
    return not different and not unreadable
