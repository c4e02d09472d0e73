"""A client's current topology, kept up to date by a thread in the background."""

from __future__ import annotations

import logging
import os
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path

from cube_api._conf_source import ConfSource
from cube_api._health import EndpointHealth, HealthBoard
from cube_api._probe import answers, is_late
from cube_api._topology import Topology
from cube_core.conf.cube_conf import DictConf
from cube_core.errors import ConfError

WATCH_INTERVAL_S = 0.5
"""How often `cube.conf` and the files it names are looked at."""

_IDLE_S = 3600.0

log = logging.getLogger(__name__)


class Directory:
    """Holds the topology that seeks begin with. A seek keeps the one it began with, so that a new
    one is taken over between two seeks, as a whole. Thread-safe; usable in forked children.

    Args:
        conf: path of `cube.conf`, or its dicts by name.

    Raises:
        ConfError: names the file and the field.
    """

    def __init__(self, conf: Path | str | Mapping[str, DictConf]) -> None:
        me = weakref.ref(self)
        self._board = HealthBoard(lambda health: _put_aside(me, health), lambda: _wake(me))
        self._source = ConfSource(conf, self._board)
        self._topology = self._source.read()
        self._tenders: dict[int, _Tender] = {}
        self._closed = False

    @property
    def topology(self) -> Topology:
        """What a seek that begins now is to use."""
        if self._source.is_watched and os.getpid() not in self._tenders:
            self._tender()
        return self._topology

    def close(self) -> None:
        """Ends the thread; the topology stays as it is."""
        self._closed = True
        for tender in list(self._tenders.values()):
            tender.wake()

    def wake(self) -> None:
        """A server was put aside, or may be late: the thread has to probe it."""
        if not self._closed:
            self._tender().wake()

    def tend(self) -> float | None:
        """Takes over what changed and probes what is due.

        Returns:
            seconds until there is something to do again; None when the client is closed.
        """
        if self._closed:
            return None
        if self._source.is_watched and self._source.may_have_changed():
            self._reload()
        for health in self._board.doubted():
            if not self._closed:
                self._ask_whether_late(health)
        for health in self._board.aside():
            if not self._closed and time.monotonic() >= health.probe_due_s:
                self._probe(health)
        waits_s = [health.probe_due_s - time.monotonic() for health in self._board.aside()]
        if self._source.is_watched:
            waits_s.append(WATCH_INTERVAL_S)
        return max(0.0, min(waits_s, default=_IDLE_S))

    def _tender(self) -> _Tender:
        # One a process: a forked child has none of its parent's threads.
        made = _Tender(self)
        tender = self._tenders.setdefault(os.getpid(), made)
        if tender is made:
            tender.start()
        return tender

    def _reload(self) -> None:
        try:
            topology = self._source.read()
        except ConfError as error:
            log.warning("the topology stays as it was: %s", error)
            return
        if topology.is_same_as(self._topology):
            return
        topology.take_over_from(self._topology)
        self._topology = topology
        self._board.keep_only(topology.endpoints())
        log.info("%s: took over a changed topology", self._source.origin)

    def _ask_whether_late(self, health: EndpointHealth) -> None:
        tls = self._topology.tls_of(health.endpoint)
        within_s = self._topology.connect_timeout_s
        health.asked_whether_late(is_late(health.endpoint, within_s=within_s, tls=tls))

    def _probe(self, health: EndpointHealth) -> None:
        succeeded = answers(
            health.endpoint,
            within_s=self._topology.connect_timeout_s,
            seek_within_s=health.answer_limit_s,
            tls=self._topology.tls_of(health.endpoint),
        )
        health.probed(succeeded, time.monotonic())
        if succeeded:
            log.info("%s answers again", health.endpoint)


def _put_aside(directory: weakref.ref[Directory], health: EndpointHealth) -> None:
    log.warning("%s is put aside: it failed, was too slow, or is late", health.endpoint)
    _wake(directory)


def _wake(directory: weakref.ref[Directory]) -> None:
    found = directory()
    if found is not None:
        found.wake()


class _Tender:
    """The thread. It holds no reference that would keep a forgotten client alive."""

    def __init__(self, directory: Directory) -> None:
        self._awake = threading.Event()
        self._directory = weakref.ref(directory, lambda _: self._awake.set())
        self._thread = threading.Thread(target=self._run, name="cube-api", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        self._awake.set()

    def _run(self) -> None:
        while True:
            directory = self._directory()
            wait_s = None if directory is None else directory.tend()
            if wait_s is None:
                return
            del directory
            self._awake.wait(wait_s)
            self._awake.clear()
