"""Which process of a cluster runs where, with its name, its ports and its directories."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cube_cluster.cluster import Cluster, Dict, ServerPlace, Servers
from cube_cluster.yaml_source import Place

_GRPC_PORT_SHIFT = 1000
_PORT_MAX = 65535
_RETIRING = "retiring"


@dataclass(frozen=True)
class ShardServer:
    """A `cube-server`; `grpc_port` -1: none. `place` is where cluster.yml names its port,
    `topology` that of the servers it is one of."""

    name: str
    dict_name: str
    shard: int
    copy: int
    host: str
    port: int
    grpc_port: int
    data_dir: str
    place: Place
    topology: Place

    @property
    def is_retiring(self) -> bool:
        """Whether it only serves those who have not left the topology before yet."""
        return self.topology[-1] == _RETIRING


@dataclass(frozen=True)
class Transfer:
    """The `cube-transfer` of a dict."""

    name: str
    dict: Dict
    conf_name: str
    host: str
    port: int
    output_address: str
    tmp_address: str
    place: Place


@dataclass(frozen=True)
class CtrServer:
    """A `ctr-serving`."""

    name: str
    host: str
    port: int
    grpc_port: int
    place: Place


class PlacementError(ValueError):
    """Servers cannot be placed as a field says; `place` is where it stands."""

    def __init__(self, place: Place, problem: str) -> None:
        self.place = place
        super().__init__(problem)


def shard_servers(cluster: Cluster) -> list[ShardServer]:
    """Those that passes are deployed to: dict by dict, shard by shard, copy by copy.

    Raises:
        PlacementError: too few servers or ports.
    """
    return [each for each in all_shard_servers(cluster) if not each.is_retiring]


def all_shard_servers(cluster: Cluster) -> list[ShardServer]:
    """As `shard_servers`, and before those of a dict the ones that are retiring.

    Raises:
        PlacementError: too few servers or ports, or they have to be numbered.
    """
    servers: list[ShardServer] = []
    number = 0
    for index, conf in enumerate(cluster.dicts):
        place: Place = ("dicts", index)
        topologies: list[tuple[Servers, Place]] = [(conf, place)]
        if conf.retiring is not None:
            _check_numbered(conf, number, place)
            topologies.insert(0, (conf.retiring, (*place, _RETIRING)))
        for topology, where in topologies:
            number = number if topology.first_server is None else topology.first_server
            added = _servers(cluster, conf.name, topology, number, where)
            servers += added
            number += len(added)
    return servers


def _check_numbered(conf: Dict, number: int, place: Place) -> None:
    """Without it the new servers would be called otherwise when the old ones are gone."""
    retiring = conf.retiring
    if retiring is not None and conf.first_server is None:
        first = number if retiring.first_server is None else retiring.first_server
        free = first + retiring.shards * retiring.replicas
        problem = f"is missing: the number of the new servers' first one, such as {free}"
        raise PlacementError((*place, "first_server"), problem)


def _servers(
    cluster: Cluster, dict_name: str, topology: Servers, number: int, place: Place
) -> list[ShardServer]:
    servers = []
    for index, (server, where) in enumerate(_places(topology, place)):
        name = f"cube_server_{number + index}"
        servers.append(
            ShardServer(
                name=name,
                dict_name=dict_name,
                shard=index // topology.replicas,
                copy=index % topology.replicas,
                host=server.host or cluster.host,
                port=server.port,
                grpc_port=_grpc_port(server.port, server.grpc_port, where),
                data_dir=server.data_dir or f"{cluster.data_dir}/{name}",
                place=where,
                topology=place,
            )
        )
    return servers


def transfers(cluster: Cluster) -> list[Transfer]:
    """One a dict; the first one's file is transfer.conf."""
    found = []
    for index, conf in enumerate(cluster.dicts):
        name = f"cube_transfer_{index}"
        own = f"{cluster.data_dir}/{name}"
        found.append(
            Transfer(
                name=name,
                dict=conf,
                conf_name=f"transfer_{index}.conf" if index else "transfer.conf",
                host=conf.transfer.host or cluster.host,
                port=conf.transfer.port,
                output_address=conf.transfer.output_address or f"{own}/output",
                tmp_address=conf.transfer.tmp_address or f"{own}/tmp",  # noqa: S108
                place=("dicts", index, "transfer", "port"),
            )
        )
    return found


def ctr_servers(cluster: Cluster) -> list[CtrServer]:
    """In the order of the file.

    Raises:
        PlacementError: a gRPC port has to be named.
    """
    found = []
    for index, place in enumerate(cluster.ctr.servers if cluster.ctr else ()):
        where: Place = ("ctr", "servers", index, "port")
        found.append(
            CtrServer(
                name=f"ctr_serving_{index}",
                host=place.host or cluster.host,
                port=place.port,
                grpc_port=_grpc_port(place.port, place.grpc_port, where),
                place=where,
            )
        )
    return found


def model_path(cluster: Cluster, conf: Dict) -> str:
    """Where the dense models of a dict's passes are published."""
    return conf.model_path or f"{cluster.data_dir}/models/{conf.name}"


def _places(conf: Servers, place: Place) -> Iterator[tuple[ServerPlace, Place]]:
    needed = conf.shards * conf.replicas
    if conf.servers is not None:
        if conf.port is not None or conf.grpc_port is not None or conf.hosts is not None:
            raise PlacementError((*place, "servers"), "takes the place of hosts, port, grpc_port")
        if len(conf.servers) != needed:
            needs = f"{conf.shards} shards × {conf.replicas} replicas need {needed}"
            raise PlacementError((*place, "servers"), f"names {len(conf.servers)}; {needs}")
        for index, each in enumerate(conf.servers):
            yield each, (*place, "servers", index, "port")
        return
    if conf.port is None:
        raise PlacementError((*place, "port"), "is missing: the first server's, or list servers")
    yield from _numbered(conf, conf.port, needed, place)


def _numbered(
    conf: Servers, port: int, needed: int, place: Place
) -> Iterator[tuple[ServerPlace, Place]]:
    """Server i stands on host i modulo their number, so that the replicas of a shard are on
    different ones where there are enough; ports of a host count up."""
    hosts: list[str | None] = [*conf.hosts] if conf.hosts else [None]
    for index in range(needed):
        step = index // len(hosts)
        grpc_port = conf.grpc_port
        if grpc_port is not None and grpc_port > 0:
            grpc_port += step
        if max(port + step, grpc_port or 0) > _PORT_MAX:
            raise PlacementError((*place, "port"), f"port of server {index} is over {_PORT_MAX}")
        host = hosts[index % len(hosts)]
        yield ServerPlace(host=host, port=port + step, grpc_port=grpc_port), (*place, "port")


def _grpc_port(port: int, grpc_port: int | None, place: Place) -> int:
    if grpc_port is None:
        grpc_port = port + _GRPC_PORT_SHIFT
        if grpc_port > _PORT_MAX:
            problem = f"is missing: port + {_GRPC_PORT_SHIFT} is over {_PORT_MAX}"
            raise PlacementError((*place[:-1], "grpc_port"), problem)
    if grpc_port == 0:
        raise PlacementError((*place[:-1], "grpc_port"), "write a port, or -1 for none")
    return grpc_port
