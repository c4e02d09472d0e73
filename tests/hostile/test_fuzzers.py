"""Every libFuzzer target builds, and finds nothing in a moment; `make fuzz` looks for longer."""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TARGETS = (
    "frame", "seek_request", "seek_response", "table", "sequence_file", "ctr_request", "snappy",
)  # fmt: skip


@pytest.fixture(scope="module")
def fuzzers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the built targets; builds what has changed since `make fuzz` or the last
    test."""
    tools = {
        name: shutil.which(name, path=_search_path()) for name in ("clang++", "cmake", "ninja")
    }
    missing = [name for name, path in tools.items() if path is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} is not installed: Debian's clang and libclang-rt-14-dev")
    probe = tmp_path_factory.mktemp("probe") / "probe.cpp"
    probe.write_text(
        'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }'
    )
    command = ["clang++", "-fsanitize=fuzzer,address", f"{probe}", "-o", f"{probe}.out"]
    if subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("clang++ comes without libFuzzer and AddressSanitizer: libclang-rt-14-dev")
    directory = ROOT / "build" / "fuzz"
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may build too
        _run(
            f"{tools['cmake']}", "-S", f"{ROOT}", "-B", f"{directory}", "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={tools['ninja']}", "-DCMAKE_CXX_COMPILER=clang++",
            "-DCUBE_BUILD_FUZZERS=ON", "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
        )  # fmt: skip
        _run(f"{tools['cmake']}", "--build", f"{directory}")
    return directory


@pytest.mark.parametrize("target", TARGETS)
def test_a_moment_of_fuzzing_finds_nothing(fuzzers: Path, target: str, tmp_path: Path) -> None:
    _run(f"{fuzzers / 'fuzz_seeds'}", f"{tmp_path}")
    corpus = tmp_path / target
    seeds = len(list(corpus.iterdir()))
    done = _run(
        f"{fuzzers / f'fuzz_{target}'}", "-max_total_time=1", "-timeout=10",
        "-print_final_stats=1", f"-artifact_prefix={tmp_path}/", f"{corpus}",
    )  # fmt: skip
    assert "stat::number_of_executed_units" in done
    assert len(list(corpus.iterdir())) > seeds, "no input reached code that the seeds did not"


def _search_path() -> str:
    """cmake and ninja stand beside the interpreter in a virtual environment."""
    return f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"


def _run(*command: str) -> str:
    """What it printed; a failed assertion when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-8000:]
    return done.stdout + done.stderr
