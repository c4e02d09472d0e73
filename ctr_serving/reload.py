"""Takes a new model into service when its file of announcement changes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Generic

from ctr_serving.announcement import Announcement, Mark
from ctr_serving.cached_source import fill_caches
from ctr_serving.conf import EngineConf
from ctr_serving.model_slot import M, ModelSlot
from ctr_serving.predictor import first_line
from cube_core.errors import CubeError, ModelError
from cube_core.log import fields as log_fields

log = logging.getLogger(__name__)

_LOAD_PAUSE_MAX_S = 10.0
_TOLD_AGAIN_S = 60.0
_WARM_SIZES = (1, 50)
_WARM_SIZES_MAX = 40

Probe = Callable[[Any], Awaitable[object]]
"""Raises a CubeError when the embedding that the manifest names cannot be asked; what it returns
is held as long as the model."""


class Reloader(Generic[M]):
    """Polls `reloadable_meta`, loads what `model_data_path` points at beside the served model,
    probes that its embedding version is there on every shard, and switches.

    Args:
        load: makes a model of a directory, in a thread; raises ModelError.

    A model that is refused leaves the served one in place; it is tried again at the next poll, or
    after a growing pause of at most 10 s when it did not load. The slot says why.
    """

    def __init__(
        self,
        conf: EngineConf,
        slot: ModelSlot[M],
        probe: Probe,
        *,
        load: Callable[[Path], M],
        interval_s: float,
        on_switch: Callable[[], None] = lambda: None,
    ) -> None:
        self._conf = conf
        self._slot = slot
        self._probe = probe
        self._load_model = load
        self._interval_s = interval_s
        self._on_switch = on_switch
        self._announcement = Announcement(conf.reload_type, conf.reload_meta_path)
        self._served_mark: Mark | None = None
        self._candidate: M | None = None
        self._candidate_mark: Mark | None = None
        self._load_pause_s = 0.0
        self._next_load_s = 0.0
        self._told_reason: tuple[type[CubeError], Mark | None] | None = None
        self._told_s = 0.0

    async def run(self) -> None:
        """Polls until cancelled."""
        with log_fields(engine=self._conf.name, dict=self._conf.dict_name):
            while True:
                try:
                    await self.poll()
                except Exception:
                    # What fails after the switch must not end the watch either.
                    log.exception("a model could not be looked at")
                await asyncio.sleep(self._interval_s)

    async def poll(self) -> None:
        """Looks once, and switches when there is a new model that can be served."""
        try:
            mark = self._announcement.mark()
            if self._is_served(mark):
                if mark is not None:
                    self._withdrawn()
                return
            if mark != self._candidate_mark:
                self._candidate, self._candidate_mark = None, mark
                self._load_pause_s = self._next_load_s = 0.0
            engine = await self._loaded()
            if engine is None:
                return
            engine.embedding = await self._probe(engine.manifest)
            served = self._slot.engine
            await fill_caches(engine.directory, engine.embedding, served and served.embedding)
            await self._warm_up(engine)
        except CubeError as error:
            self._refuse(error)
            return
        except Exception as error:
            self._refuse(_UnforeseenError(self._conf.model_path, error))
            return
        self._served_mark, self._candidate, self._told_reason = mark, None, None
        self._slot.switch(engine)
        self._on_switch()
        log.info(
            "model %s is served, embedding version %s, loaded in %.3f s",
            engine.directory,
            engine.manifest.version,
            engine.load_seconds,
            extra={"fields": {"version": engine.manifest.version}},
        )

    async def _warm_up(self, engine: M) -> None:
        """Runs the numbers of rows that are asked for most, here, where it is going to predict."""
        served = self._slot.engine
        sizes = [size for size, _ in served.sizes.most_common(_WARM_SIZES_MAX)] if served else []
        for rows_num in sizes or _WARM_SIZES:
            engine.warm_up(rows_num)
            # Each takes some milliseconds; requests go first.
            await asyncio.sleep(0)

    def _is_served(self, mark: Mark | None) -> bool:
        if self._slot.engine is None:
            return False
        # A file of announcement that is away, for a moment or for good, announces nothing.
        return mark is None or not self._announcement.is_new(mark, self._served_mark)

    def _withdrawn(self) -> None:
        """What is served is what is announced: a model that was refused is not wanted any more."""
        self._candidate = self._candidate_mark = self._told_reason = None
        self._slot.problem = ""

    async def _loaded(self) -> M | None:
        """The engine that `model_data_path` points at; None while a failed one is left alone."""
        if self._candidate is not None and self._candidate.directory == self._directory():
            return self._candidate
        if time.monotonic() < self._next_load_s:
            return None
        try:
            self._candidate = await asyncio.to_thread(self._load)
        except CubeError:
            self._load_pause_s = min(
                max(2 * self._load_pause_s, self._interval_s), _LOAD_PAUSE_MAX_S
            )
            self._next_load_s = time.monotonic() + self._load_pause_s
            raise
        return self._candidate

    def _directory(self) -> Path:
        return self._conf.model_path.resolve()

    def _load(self) -> M:
        directory = self._directory()
        if not directory.is_dir():
            raise ModelError(f"{self._conf.model_path}: there is no model directory")
        try:
            return self._load_model(directory)
        except CubeError:
            raise
        except Exception as error:
            # As any other model that cannot be loaded: told, counted, and tried again less often.
            raise _UnforeseenError(directory, error) from error

    def _refuse(self, error: CubeError) -> None:
        # Which shard or replica it names may change with every poll.
        reason = (type(error), self._candidate_mark)
        is_due = reason != self._told_reason or time.monotonic() - self._told_s >= _TOLD_AGAIN_S
        if str(error) != self._slot.problem and is_due:
            self._told_reason, self._told_s = reason, time.monotonic()
            trace = error.__cause__ if isinstance(error, _UnforeseenError) else None
            log.warning("the model is not taken: %s", error, exc_info=trace)
        self._slot.refuse(str(error))


class _UnforeseenError(ModelError):
    """Stands for an error that nobody raises on purpose; the log has its trace."""

    def __init__(self, model: Path, error: Exception) -> None:
        super().__init__(f"{model}: {type(error).__name__}: {first_line(error)}")
        self.__cause__ = error
