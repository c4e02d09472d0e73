"""`cube-builder` as a child that ends with its parent, also when the parent is killed."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from cube_builder.main import main as builder_main

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs `cube-builder` with the arguments after the first, which is the parent's pid."""
    parent_pid = int(sys.argv.pop(1))
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        sys.exit("the parent ended before the build began")
    builder_main()


if __name__ == "__main__":
    main()
