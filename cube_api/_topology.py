"""Which servers hold which shard of which dict."""

from __future__ import annotations

from collections.abc import Mapping

from cube_api._balancer import Replica, Replicas
from cube_api._health import HealthBoard
from cube_core.conf.cube_conf import DictConf, TlsConf
from cube_core.conf.naming import Server
from cube_core.endpoint import Endpoint
from cube_core.errors import ConfError
from cube_core.hedging import HedgeBudget
from cube_core.tls import ClientTls

_CONNECT_SHARE = 0.5


class DictTopology:
    """One dict of the topology; `dim_seen` is the width of the rows that were last found, 0 before
    any. `backup_request_s` is None when no backup requests are wanted.

    Args:
        servers: the replicas of every shard, by shard number.
    """

    def __init__(self, conf: DictConf, servers: list[list[Server]], board: HealthBoard) -> None:
        self.name = conf.dict_name
        self.shard_num = conf.shard
        self.timeout_ms = conf.timeout_ms
        self.retry = conf.retry
        wanted = conf.backup_request_ms >= 0 and any(len(replicas) > 1 for replicas in servers)
        self.backup_request_s = conf.backup_request_ms / 1000 if wanted else None
        self.hedges = HedgeBudget(conf.backup_request_share_max)
        self.shards = [
            Replicas(
                [Replica(each.endpoint, each.weight, board.of(each.endpoint)) for each in replicas],
                conf.load_balancer,
            )
            for replicas in servers
        ]
        self.dim_seen = 0


class Topology:
    """The dicts of one `cube.conf`, with every name resolved; never changed once it is made.

    Args:
        confs: its dicts by name.
        origin: path of the file, for errors.

    Raises:
        ConfError: names the file and the dict whose servers cannot be told.
    """

    def __init__(self, confs: Mapping[str, DictConf], origin: str, board: HealthBoard) -> None:
        self.confs = dict(confs)
        self._origin = origin
        self.servers = {name: self._servers_of(conf) for name, conf in self.confs.items()}
        self._dicts = {
            name: DictTopology(conf, self.servers[name], board) for name, conf in confs.items()
        }
        self._tls = self._tls_clients()
        timeouts_ms = [conf.timeout_ms for conf in self.confs.values()]
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

    def endpoints(self) -> set[Endpoint]:
        return {
            server.endpoint
            for shards in self.servers.values()
            for replicas in shards
            for server in replicas
        }

    def tls_of(self, endpoint: Endpoint) -> ClientTls | None:
        """How connections to the endpoint are secured; None: not at all."""
        return self._tls.get(endpoint)

    def connected_alike(self, other: Topology) -> set[Endpoint]:
        """Endpoints that both have, and connect to in the same way."""
        both = self.endpoints() & other.endpoints()
        return {each for each in both if self.tls_of(each) == other.tls_of(each)}

    def is_same_as(self, other: Topology) -> bool:
        """Whether it says the same about every dict and server."""
        return self.confs == other.confs and self.servers == other.servers

    def take_over_from(self, other: Topology) -> None:
        """Keeps what was learned about dicts that stay."""
        for name, target in self._dicts.items():
            if name in other._dicts:
                target.dim_seen = other._dicts[name].dim_seen

    def _tls_clients(self) -> dict[Endpoint, ClientTls]:
        ways: dict[Endpoint, TlsConf | None] = {}
        for name, conf in self.confs.items():
            for endpoint in {each.endpoint for replicas in self.servers[name] for each in replicas}:
                if ways.setdefault(endpoint, conf.tls) != conf.tls:
                    problem = f"is not that of another dict on {endpoint}"
                    raise ConfError(self._origin, f"{name}: tls", problem)
        clients = {tls: tls.client() for tls in set(ways.values()) if tls is not None}
        return {endpoint: clients[tls] for endpoint, tls in ways.items() if tls is not None}

    def _servers_of(self, conf: DictConf) -> list[list[Server]]:
        try:
            return conf.servers()
        except (OSError, ValueError) as error:
            raise ConfError(self._origin, conf.dict_name, str(error)) from error
