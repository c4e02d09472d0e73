"""A cluster as its pods see it: with their addresses, ports and directories."""

from __future__ import annotations

from pathlib import PurePosixPath

from cube_cluster.cluster import Cluster, CtrPlace, Dict, Engine, Security, ServerPlace
from cube_cluster.conf_files import has_models
from cube_cluster.kubernetes import names
from cube_cluster.kubernetes.section import Kubernetes
from cube_cluster.layout import PlacementError
from cube_cluster.yaml_source import Place

SERVER_PORT = 8001
_GRPC_PORT_SHIFT = 1000
_GRPC_PORT_MAX_SHIFTED = 65535 - _GRPC_PORT_SHIFT
_ANY_ADDRESS = "0.0.0.0"  # noqa: S104  a pod has one address, which its network policies guard


def check_for_kubernetes(cluster: Cluster) -> Kubernetes:
    """What the rest of the package relies on.

    Raises:
        PlacementError: a field is missing, or cannot be as it is on Kubernetes.
    """
    section = cluster.kubernetes
    if section is None:
        raise PlacementError(("kubernetes",), "is missing: the image, at least")
    names.check_names(cluster)
    if cluster.security.tls_cert_file is not None and section.secrets.tls is None:
        problem = "is missing: the Secret to be used in place of security.tls_cert_file"
        raise PlacementError(("kubernetes", "secrets", "tls"), problem)
    if section.ctr_serving.replicas_min > section.ctr_serving.replicas_max:
        place: Place = ("kubernetes", "ctr_serving", "replicas_max")
        raise PlacementError(place, f"is below replicas_min {section.ctr_serving.replicas_min}")
    for index, conf in enumerate(cluster.dicts):
        _check_dict(conf, ("dicts", index), section)
    return section


def _check_dict(conf: Dict, place: Place, section: Kubernetes) -> None:
    if conf.servers is not None:
        problem = "Kubernetes places the servers; write port, which all of them listen on"
        raise PlacementError((*place, "servers"), problem)
    for name in ("retiring", "first_server"):
        if getattr(conf, name) is not None:
            problem = "pods have names of their own; see docs/operating/kubernetes.md"
            raise PlacementError((*place, name), problem)
    if server_port(conf) > _GRPC_PORT_MAX_SHIFTED and conf.grpc_port is None:
        raise PlacementError((*place, "grpc_port"), "is missing: port + 1000 is over 65535")
    scheme, separator, rest = conf.donefile_address.partition("://")
    path = rest if separator else conf.donefile_address
    if separator and scheme != "file":
        return
    where = (*place, "donefile_address")
    if section.passes is None:
        problem = "is a path; kubernetes.passes must name the claim of the volume that it is on"
        raise PlacementError(where, problem)
    mounted = PurePosixPath(section.passes.mount_path)
    if ".." in PurePosixPath(path).parts or not PurePosixPath(path).is_relative_to(mounted):
        raise PlacementError(where, f"{path} is not in kubernetes.passes.mount_path {mounted}")


def server_port(conf: Dict) -> int:
    """All servers of a dict listen on its port: each has an address of its own."""
    return conf.port or SERVER_PORT


def server_grpc_port(conf: Dict) -> int:
    """-1: none."""
    return server_port(conf) + _GRPC_PORT_SHIFT if conf.grpc_port is None else conf.grpc_port


def pod_cluster(cluster: Cluster, section: Kubernetes) -> Cluster:
    """The cluster that the configuration files in the pods are written from."""
    update: dict[str, object] = {
        "listen_host": _ANY_ADDRESS,
        "data_dir": names.DATA_DIR,
        "dicts": [_dict_in_pods(cluster, conf, section) for conf in cluster.dicts],
        "security": _security(cluster, section),
    }
    if cluster.ctr is not None:
        place = ctr_place(cluster).model_copy(
            update={"host": names.host_of(names.CTR, section), "grpc_port": ctr_grpc_port(cluster)}
        )
        engines = [_fetching(engine, cluster, section) for engine in cluster.ctr.engines]
        update["ctr"] = cluster.ctr.model_copy(update={"servers": [place], "engines": engines})
    return cluster.model_copy(update=update)


def _fetching(engine: Engine, cluster: Cluster, section: Kubernetes) -> Engine:
    """An engine that fetches its models from the daemon of its dict, unless it says from where."""
    conf = next(conf for conf in cluster.dicts if conf.name == engine.dict_name)
    scheme = "http" if section.secrets.tls is None else "https"
    host = names.host_of(names.transfer_name(conf), section)
    url = f"{scheme}://{host}:{conf.transfer.port}/models"
    return engine.model_copy(update={"model_url": engine.model_url or url})


def ctr_place(cluster: Cluster) -> CtrPlace:
    """The ports of all CTR servers are those of the first."""
    return cluster.ctr.servers[0] if cluster.ctr else CtrPlace()


def ctr_grpc_port(cluster: Cluster) -> int:
    place = ctr_place(cluster)
    return place.port + _GRPC_PORT_SHIFT if place.grpc_port is None else place.grpc_port


def _dict_in_pods(cluster: Cluster, conf: Dict, section: Kubernetes) -> Dict:
    servers = [
        ServerPlace(
            host=names.Shard(conf, shard).host(copy, section),
            port=server_port(conf),
            grpc_port=server_grpc_port(conf),
            data_dir=names.DATA_DIR,
        )
        for shard in range(conf.shards)
        for copy in range(conf.replicas)
    ]
    transfer = conf.transfer.model_copy(
        update={
            "host": names.host_of(names.transfer_name(conf), section),
            "output_address": f"{names.DATA_DIR}/output",
            "tmp_address": f"{names.DATA_DIR}/tmp",  # noqa: S108
        }
    )
    return conf.model_copy(
        update={
            "hosts": None,
            "port": None,
            "grpc_port": None,
            "servers": servers,
            "transfer": transfer,
            "model_path": names.models_dir(conf) if has_models(cluster, conf) else None,
        }
    )


def _security(cluster: Cluster, section: Kubernetes) -> Security:
    """Tokens always: pods are commanded from other machines."""
    tls: dict[str, str] = {}
    if section.secrets.tls is not None:
        tls = {
            "tls_cert_file": f"{names.TLS_DIR}/tls.crt",
            "tls_key_file": f"{names.TLS_DIR}/tls.key",
            "tls_ca_file": f"{names.TLS_DIR}/ca.crt",
        }
        if cluster.security.tls_server_name is not None:
            tls["tls_server_name"] = cluster.security.tls_server_name
    return Security(
        operate_token_file=f"{names.TOKENS_DIR}/operate",
        read_token_file=f"{names.TOKENS_DIR}/read",
        **tls,
    )
