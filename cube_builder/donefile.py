"""Donefiles: a line a pass, which says that the pass is complete and where it lies."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cube_core.errors import BuildError


def append_pass(donefile: Path, pass_id: str, embedding: Path, dense: Path | None = None) -> None:
    """Appends `{"id", "key", "input", "dense"}` with absolute paths, in one write.

    A line that is there already is not written again, so that an export may be repeated.

    Args:
        pass_id: the pass's id and, as it is a base, its key.

    Raises:
        BuildError: the donefile has another line with this id.
        OSError: it cannot be written.
    """
    fields = {"id": pass_id, "key": pass_id, "input": str(embedding.absolute())}
    if dense is not None:
        fields["dense"] = str(dense.absolute())
    donefile.parent.mkdir(parents=True, exist_ok=True)
    standing = donefile.read_bytes() if donefile.exists() else b""
    for number, line in enumerate(standing.splitlines(), start=1):
        earlier = _fields_of(line)
        if earlier == fields:
            return
        if earlier.get("id") == pass_id:
            raise BuildError(
                f"{donefile}:{number}: has id {pass_id!r} already, for {earlier.get('input')!r}; "
                "a new pass needs a new id"
            )
    separator = "\n" if standing and not standing.endswith(b"\n") else ""
    _append_durably(donefile, f"{separator}{json.dumps(fields)}\n".encode())


def _fields_of(line: bytes) -> dict[str, object]:
    """The fields of a line; none for one that another tool broke."""
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _append_durably(path: Path, line: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        written = os.write(descriptor, line)
        if written != len(line):
            raise BuildError(f"{path}: only {written} of {len(line)} bytes were written")
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
