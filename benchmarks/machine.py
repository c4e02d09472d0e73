"""What machine a figure was measured on."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path


def machine() -> dict[str, str | int]:
    """Processor, cores, memory, kernel and Python of this machine."""
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text())
    return {
        "cpu": cpu[1] if cpu else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory[1]) / 2**20) if memory else 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
    }
