"""Directories that appear under their name whole, or not at all."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cube_core.replace_file import sync_directory

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_SUFFIX = ".staging"


@contextlib.contextmanager
def staged_directory(target: Path, may_replace: Callable[[Path], None]) -> Iterator[Path]:
    """Yields an empty directory beside `target` that takes its place when the block ends well.

    What stood under `target` is replaced in one step and then removed. When the block fails, the
    staged directory and the parents made for it are removed. What a killed process left is removed
    by the next one that stages the same target.

    Args:
        may_replace: called with an existing, non-empty `target`; raises when it must stay.
    """
    _check_target(target, may_replace)
    parents_made = _make_parents(target.parent)
    try:
        with _locked_directory(target) as staging:
            yield staging
            _sync_tree(staging)
            _publish(staging, target)
    except BaseException:
        for parent in parents_made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        raise


def _check_target(target: Path, may_replace: Callable[[Path], None]) -> None:
    if target.is_dir() and not any(target.iterdir()):
        return
    if target.exists():
        may_replace(target)


def _make_parents(parent: Path) -> list[Path]:
    """Makes `parent`; returns what did not exist before, the deepest first."""
    missing: list[Path] = []
    while not parent.exists():
        missing.append(parent)
        parent = parent.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
    return missing


@contextlib.contextmanager
def _locked_directory(target: Path) -> Iterator[Path]:
    """A fresh directory beside `target`, locked while in use: one without a lock is left over."""
    prefix = f".{target.name}."
    with _lock(target.parent, fcntl.LOCK_EX):
        for leftover in target.parent.glob(f"{prefix}*{_SUFFIX}"):
            with (
                contextlib.suppress(BlockingIOError),
                _lock(leftover, fcntl.LOCK_EX | fcntl.LOCK_NB),
            ):
                shutil.rmtree(leftover)
        staging = Path(tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=target.parent))
        lock = contextlib.ExitStack()
        lock.enter_context(_lock(staging, fcntl.LOCK_EX))
    with lock:
        try:
            yield staging
        finally:
            # After a publication this is what stood under the target before.
            shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _lock(directory: Path, operation: int) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, operation)
        yield
    finally:
        os.close(descriptor)


def _sync_tree(directory: Path) -> None:
    for path in (*directory.iterdir(), directory):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(staging: Path, target: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    staging.chmod(0o777 & ~mask)
    if target.exists():
        _exchange(staging, target)
    else:
        staging.rename(target)
    sync_directory(target.parent)


def _exchange(staging: Path, target: Path) -> None:
    """Swaps two names in one step; where the filesystem cannot, in two."""
    libc = ctypes.CDLL(None, use_errno=True)
    source_name, target_name = os.fsencode(staging), os.fsencode(target)
    if not libc.renameat2(_AT_FDCWD, source_name, _AT_FDCWD, target_name, _RENAME_EXCHANGE):
        return
    code = ctypes.get_errno()
    if code not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
        raise OSError(code, os.strerror(code), str(target))
    replaced = target.with_name(f"{staging.name}.replaced{_SUFFIX}")
    target.rename(replaced)
    staging.rename(target)
    shutil.rmtree(replaced, ignore_errors=True)
