"""`cube-builder` as a child that ends with its parent, also when the parent is killed.

It takes its arguments from its input, so that it can be started before they are known.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys

from cube_builder.main import main as builder_main
from cube_builder.main import prepare

# Else imported when arguments are read and a build begins: too late for a process that waits.
_NEEDED_LATER = ("pydantic", "cube_builder.local_engine")

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs `cube-builder` with the JSON list of arguments that comes in; the one argument of its
    own is the parent's pid."""
    parent_pid = int(sys.argv.pop(1))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        sys.exit("the parent ended before the build began")
    prepare()
    for module in _NEEDED_LATER:
        importlib.import_module(module)
    arguments = sys.stdin.read()
    if arguments:
        sys.argv[1:] = json.loads(arguments)
        builder_main()


if __name__ == "__main__":
    main()
