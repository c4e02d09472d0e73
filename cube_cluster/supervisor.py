"""Runs the roles of this machine until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path
from typing import Any

from cube_cluster.identity import boot_id, child_identity
from cube_cluster.processes_file import (
    FILE_NAME,
    ProcessesRecord,
    read_processes,
    remove_processes,
    write_processes,
)
from cube_cluster.role_runner import RoleRunner, taken_port
from cube_cluster.roles import Role
from cube_cluster.roles_request import take_request
from cube_core.errors import ClusterError

log = logging.getLogger(__name__)

STOP_TIMEOUT_S = 20.0
"""A role that has not ended by then is killed; roles drain for 10 s unless told otherwise."""

_POLL_INTERVAL_S = 0.1
_LOCK_NAME = "cube.lock"
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# A CTR server that drains still asks shard servers.
_STOP_ORDER = (("ctr_serving", "cube_transfer"), ("cube_server",))


class Supervisor:
    """The roles of one run directory.

    Args:
        cluster_file: what they were made of, to be told.
        ready_timeout_s: for the first start of each.
    """

    def __init__(
        self, roles: Sequence[Role], run_dir: Path, cluster_file: str, ready_timeout_s: float
    ) -> None:
        self._run_dir = run_dir
        self._ready_timeout_s = ready_timeout_s
        self._runners = [RoleRunner(role, run_dir, self._write) for role in roles]
        self._record = ProcessesRecord(
            boot_id=boot_id(),
            cluster_file=cluster_file,
            supervisor=child_identity(os.getpid()),
            roles={},
        )

    async def run(self, on_up: Callable[[ProcessesRecord], None]) -> None:
        """Starts all roles, calls `on_up` when they are ready, and keeps them running until
        SIGINT, SIGTERM or SIGHUP; then ends them. All are ended too when one cannot be started.

        Raises:
            ClusterError: a port is taken, or a role ended or was not ready in time.
        """
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, stopping.set)
        take_request(self._run_dir)  # Whoever asked has given up.
        _require_free_ports([runner.role for runner in self._runners])
        log.info("starting %s", ", ".join(runner.role.name for runner in self._runners))
        try:
            if await _unless(stopping, self._start_all()):
                # Who waits for the state finds printed what there is to say.
                on_up(self._record)
                self._write(state="up")
                await _unless(stopping, self._keep_all())
        finally:
            log.info("ending all roles")
            self._write(state="stopping")
            await self._stop_all()
            remove_processes(self._run_dir)

    async def _start_all(self) -> None:
        await _all_or_none([runner.start(self._ready_timeout_s) for runner in self._runners])

    async def _keep_all(self) -> None:
        """Keeps the roles running, and those that `cube apply` adds, without those it ends."""
        keeping = {runner: asyncio.create_task(runner.keep()) for runner in self._runners}
        try:
            while True:
                done, _ = await asyncio.wait(keeping.values(), timeout=_POLL_INTERVAL_S)
                for task in done:
                    task.result()
                await self._take_request(keeping)
        finally:
            await _cancel([*keeping.values()])

    async def _take_request(self, keeping: dict[RoleRunner, asyncio.Task[None]]) -> None:
        request = take_request(self._run_dir)
        if request is None:
            return
        for role in request.start:
            log.info("starting %s, which is new", role.name)
            runner = RoleRunner(role, self._run_dir, self._write)
            self._runners.append(runner)
            keeping[runner] = asyncio.create_task(runner.keep())
        ending = [each for each in self._runners if each.role.name in request.end]
        for runner in ending:
            log.info("ending %s", runner.role.name)
            await _cancel([keeping.pop(runner)])
        await asyncio.gather(*(runner.stop(STOP_TIMEOUT_S) for runner in ending))
        self._runners = [each for each in self._runners if each not in ending]
        self._write()

    async def _stop_all(self) -> None:
        for kinds in _STOP_ORDER:
            runners = [each for each in self._runners if each.role.kind in kinds]
            await asyncio.gather(*(each.stop(STOP_TIMEOUT_S) for each in runners))

    def _write(self, **changes: object) -> None:
        roles = {runner.role.name: runner.record for runner in self._runners}
        was_up = self._record.state != "starting"
        self._record = self._record.model_copy(update={"roles": roles, **changes})
        try:
            write_processes(self._run_dir, self._record)
        except OSError as error:
            # A disk that is full must neither end roles that serve, nor keep them from being ended.
            if not was_up and self._record.state != "stopping":
                raise
            log.error("%s cannot be written: %s", self._run_dir / FILE_NAME, error)


@contextlib.contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Holds the run directory: one supervisor each.

    Raises:
        ClusterError: another holds it, or roles run there whose supervisor is gone.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / _LOCK_NAME).open("a", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            record = read_processes(run_dir)
            who = f"pid {record.supervisor.pid}" if record else "a process that starts or ends"
            raise ClusterError(
                f"{run_dir} is up already, run by {who}; `cube down` ends it"
            ) from None
        record = read_processes(run_dir)
        if record is not None and (running := record.running()):
            told = ", ".join(record.told(name) for name in running)
            raise ClusterError(
                f"{run_dir}: the supervisor is gone, but {told} still run; `cube down` ends them"
            )
        yield


def _require_free_ports(roles: Sequence[Role]) -> None:
    problems = [problem for role in roles if (problem := taken_port(role))]
    if problems:
        raise ClusterError("; ".join(problems))


async def _unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Awaits `work`, which is cancelled when the event comes first; whether it was done."""
    task, waiter = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
        return task.done()
    finally:
        await _cancel([task, waiter])


async def _all_or_none(works: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Awaits all of them; those that are left are cancelled when one fails."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _cancel(tasks)


async def _cancel(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
