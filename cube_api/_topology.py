"""Which endpoints hold which shard of which dict, and in which order they are asked."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from pathlib import Path

from cube_core.conf.cube_conf import DictConf, read_cube_conf
from cube_core.endpoint import Endpoint
from cube_core.errors import ConfError

_CONNECT_SHARE = 0.5


class Replicas:
    """The endpoints of one shard, asked in turn or at random."""

    def __init__(self, endpoints: list[Endpoint], *, at_random: bool) -> None:
        self._endpoints = endpoints
        self._at_random = at_random
        self._turns = itertools.count()

    def in_order(self) -> list[Endpoint]:
        """All of them, the one whose turn it is first; retries go round the list."""
        count = len(self._endpoints)
        if count == 1:
            return self._endpoints
        turn = random.randrange(count) if self._at_random else next(self._turns) % count  # noqa: S311
        return self._endpoints[turn:] + self._endpoints[:turn]


class DictTopology:
    """One dict of the topology; `dim_seen` is the width of the rows that were last found, 0 before
    any."""

    def __init__(self, conf: DictConf) -> None:
        self.name = conf.dict_name
        self.shard_num = conf.shard
        self.timeout_ms = conf.timeout_ms
        self.retry = conf.retry
        at_random = conf.load_balancer == "random"
        self.shards = [Replicas(endpoints, at_random=at_random) for endpoints in conf.replicas()]
        self.dim_seen = 0


class Topology:
    """The dicts of one `cube.conf`.

    Args:
        conf: path of `cube.conf`, or its dicts by name.

    Raises:
        ConfError: names the file and the field.
    """

    def __init__(self, conf: Path | str | Mapping[str, DictConf]) -> None:
        if isinstance(conf, Mapping):
            self._origin = "cube.conf"
            self.confs = dict(conf)
        else:
            self._origin = str(conf)
            self.confs = read_cube_conf(conf)
        self._dicts: dict[str, DictTopology] = {}
        for name, dict_conf in self.confs.items():
            try:
                self._dicts[name] = DictTopology(dict_conf)
            except ValueError as error:
                raise ConfError(self._origin, name, str(error)) from error
        timeouts_ms = [dict_conf.timeout_ms for dict_conf in self.confs.values()]
        self.connect_timeout_s = _CONNECT_SHARE * min(timeouts_ms, default=1000) / 1000
        """A replica that takes longer to connect to is given up, so that time is left to ask
        another one."""

    def dict_named(self, name: str) -> DictTopology:
        """Raises:
        ConfError: no such dict; names those there are.
        """
        found = self._dicts.get(name)
        if found is None:
            known = ", ".join(sorted(self._dicts)) or "none"
            raise ConfError(self._origin, f"dict_name {name!r}", f"is not in it; it has: {known}")
        return found
