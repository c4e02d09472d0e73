"""A directory that somebody else may write to while its files are taken."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cube_builder.input_names import is_visible
from cube_core.errors import DeployError

DIRECTORY_DEPTH_MAX = 32
"""Subdirectories below each other in a pass."""
_NO_HARD_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOSYS})
_NOT_READABLE = frozenset(
    {
        errno.EACCES,
        errno.EISDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,
        errno.ENOTDIR,
        errno.ENXIO,
    }
)
_DIRECTORY_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Should it have become a pipe since it was looked at, opening it does not wait for a writer.
_FILE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class LocalDirectory:
    """Takes regular files that are inside it.

    Where a link leads is looked up first; what is opened is the place found, component by
    component, with no link followed any more. So nothing that is swapped meanwhile leads out.

    Raises:
        DeployError: there is no such directory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with errors_of(path):
            self.real = Path(os.path.realpath(path, strict=True))
            self._descriptor = _open_beneath("/", self.real.parts[1:])
        # Not before a thread is done with it that nobody waits for any more.
        weakref.finalize(self, os.close, self._descriptor)

    def has_file(self, name: str) -> bool:
        """Whether there is a regular file of that name, or a link to one."""
        return (self.real / name).is_file()

    def top_files(self) -> list[str]:
        """Its visible regular files, without subdirectories."""
        with os.scandir(self.real) as entries:
            return sorted(each.name for each in entries if is_visible(each.name) and each.is_file())

    def visible_names(self) -> list[str]:
        """Its visible files and those of its visible subdirectories, relative to it.

        Raises:
            DeployError: a link to a directory, or subdirectories without end.
        """
        found: list[str] = []
        walk = os.fwalk(".", dir_fd=self._descriptor, onerror=self._raise)
        for place, directories, files, descriptor in walk:
            directory = Path(place)
            directories[:] = sorted(filter(is_visible, directories))
            for name in directories:
                path = self.path / directory / name
                if stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode):
                    raise DeployError(f"{path}: is a link to a directory; only files are taken")
                if len(directory.parts) >= DIRECTORY_DEPTH_MAX:
                    raise DeployError(
                        f"{path}: below DIRECTORY_DEPTH_MAX = {DIRECTORY_DEPTH_MAX} directories"
                    )
            found.extend(str(directory / name) for name in filter(is_visible, files))
        return sorted(found)

    def open(self, name: str) -> BinaryIO:
        """Opens a file.

        Raises:
            DeployError: there is none, it is no regular file, or a link leads out.
        """
        with self._located(name) as (parent, last):
            return os.fdopen(self._open_file(parent, last, name), "rb")

    def link(self, name: str, target: Path) -> bool:
        """Makes `target` a hard link to a file; False where the file system allows none.

        Raises:
            DeployError: as `open`.
            OSError: it was replaced meanwhile, or `target` cannot be made.
        """
        with self._located(name) as (parent, last):
            descriptor = self._open_file(parent, last, name)
            try:
                found = os.fstat(descriptor)
                os.link(last, target, src_dir_fd=parent, follow_symlinks=False)
            except OSError as error:
                if error.errno in _NO_HARD_LINK:
                    return False
                raise
            finally:
                os.close(descriptor)
        if not os.path.samestat(found, target.lstat()):
            target.unlink()
            raise OSError(f"{self.path / name}: was replaced while it was taken")
        return True

    def _open_file(self, parent: int, last: str, name: str) -> int:
        path = self.path / name
        # Looked at before it is opened, which a device may take for more than that.
        _require_regular(os.stat(last, dir_fd=parent, follow_symlinks=False), path)
        descriptor = os.open(last, _FILE_FLAGS, dir_fd=parent)
        try:
            _require_regular(os.fstat(descriptor), path)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    @contextlib.contextmanager
    def _located(self, name: str) -> Iterator[tuple[int, str]]:
        """The directory that a file is in, as descriptor, and its name there."""
        path = self.path / name
        with errors_of(path):
            found = Path(os.path.realpath(self.real / name, strict=True))
            if not found.is_relative_to(self.real):
                raise DeployError(
                    f"{path}: leads out of {self.path}, to {found}; only files in it are taken"
                )
            *directories, last = found.relative_to(self.real).parts or (".",)
            parent = _open_beneath(self._descriptor, directories)
            try:
                yield parent, last
            finally:
                os.close(parent)

    def _raise(self, error: OSError) -> None:
        with errors_of(self.path / str(error.filename or "")):
            raise error


@contextlib.contextmanager
def errors_of(path: Path) -> Iterator[None]:
    """What says that a path is not for us becomes a DeployError; the rest may pass by itself."""
    try:
        yield
    except OSError as error:
        if error.errno in _NOT_READABLE:
            raise DeployError(f"{path}: {error.strerror}") from error
        raise


def _open_beneath(begin: int | str, names: list[str] | tuple[str, ...]) -> int:
    """A descriptor of the directory that the names lead to, none of them a link."""
    begin_flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    descriptor = (
        os.open(".", begin_flags, dir_fd=begin)
        if isinstance(begin, int)
        else os.open(begin, begin_flags)
    )
    for name in names:
        above = descriptor
        try:
            descriptor = os.open(name, _DIRECTORY_FLAGS, dir_fd=above)
        finally:
            os.close(above)
    return descriptor


def _require_regular(found: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise DeployError(f"{path}: is no regular file")
