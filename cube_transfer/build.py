"""Runs the builder as a process of its own, so that its memory and its crashes are not ours."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import sys
from pathlib import Path

from cube_core.command_line import USAGE_EXIT_CODE
from cube_core.conf.transfer_conf import BuildOptions
from cube_core.errors import BuildError
from cube_core.versions import Version
from cube_transfer.backoff import until_done

log = logging.getLogger(__name__)

ATTEMPTS_MAX = 5
_TERMINATE_TIMEOUT_S = 5.0
_PASSING = tuple(os.strerror(number) for number in (errno.ENOSPC, errno.EDQUOT))
"""Words of a builder whose failure says nothing about the pass."""
_LINE_BYTES_MAX = 1 << 20


class _BuilderDiedError(Exception):
    """The builder ended without saying what is wrong with the pass: killed, or out of memory."""


class Builders:
    """Runs `cube-builder`, a process for each build.

    Args:
        keep_warm: have a process wait that has done its imports, which a small patch takes longer
            for than for its build.
    """

    def __init__(self, *, keep_warm: bool = False) -> None:
        self._keep_warm = keep_warm
        self._warm: asyncio.subprocess.Process | None = None

    async def warm(self) -> None:
        """Starts the process that waits for the next build, if there is to be one."""
        if self._keep_warm and self._warm is None:
            try:
                self._warm = await _start()
            except OSError as error:
                log.warning("no builder is kept warm: %s", error)

    async def close(self) -> None:
        """Ends the process that waits."""
        process, self._warm = self._warm, None
        if process is not None:
            await _end(process)

    async def build(
        self,
        *,
        dict_name: str,
        version: Version,
        input_path: Path,
        output_path: Path,
        shard_num: int,
        options: BuildOptions,
    ) -> None:
        """Builds `<output_path>/<version>/`.

        Raises:
            BuildError: the pass cannot be built (the builder's own words), or the builder died
                `ATTEMPTS_MAX` times.
            OSError: the disk is full.
        """
        arguments = [
            f"--dict_name={dict_name}",
            f"--job_mode={'base' if version.is_base else 'delta'}",
            f"--cur_version={version.version}",
            f"--depend_version={version.base}",
            f"--input_path={input_path}",
            f"--output_path={output_path}",
            f"--shard_num={shard_num}",
            "--only_build=true",
            *(f"--{name}={value}" for name, value in options.model_dump(exclude_none=True).items()),
        ]

        def note(error: BaseException, attempt: int) -> None:
            log.warning("build of %s, attempt %d: %s", version, attempt, error)

        try:
            await until_done(
                lambda: self._run(arguments),
                on_failure=note,
                transient=(_BuilderDiedError,),
                attempts_max=ATTEMPTS_MAX,
            )
        except _BuilderDiedError as error:
            raise BuildError(f"{error}, {ATTEMPTS_MAX} times") from error

    async def _run(self, arguments: list[str]) -> None:
        process, self._warm = self._warm, None
        if process is None or process.returncode is not None:
            process = await _start()
        assert process.stderr is not None  # noqa: S101  asked for as pipes
        assert process.stdin is not None  # noqa: S101
        try:
            process.stdin.write(json.dumps(arguments).encode())
            process.stdin.close()
            problem = await _log_lines(process.stderr)
            code = await process.wait()
        finally:
            if process.returncode is None:
                await _end(process)
        if code and any(words in problem for words in _PASSING):
            raise OSError(problem)
        if code == USAGE_EXIT_CODE and problem:
            raise BuildError(problem)
        if code:
            raise _BuilderDiedError(f"cube-builder ended with code {code}")


async def _start() -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "cube_transfer.builder_process", str(os.getpid())),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        limit=_LINE_BYTES_MAX,
    )


async def _log_lines(stderr: asyncio.StreamReader) -> str:
    """Passes the builder's log on; returns its last `error:` line without the word."""
    problem = ""
    async for line in stderr:
        text = line.decode(errors="replace").rstrip()
        log.info("cube-builder: %s", text)
        if text.startswith("error: "):
            problem = text.removeprefix("error: ")
    return problem


async def _end(process: asyncio.subprocess.Process) -> None:
    """SIGTERM, on which the builder removes what it has half-built; SIGKILL when it does not."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
        try:
            await asyncio.wait_for(process.wait(), _TERMINATE_TIMEOUT_S)
        except asyncio.TimeoutError:
            process.kill()
            await process.wait()
