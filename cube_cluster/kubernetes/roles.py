"""The objects of each role: shard servers, transfer daemons, CTR servers."""

from __future__ import annotations

from cube_cluster.cluster import Cluster, Dict, FlagValue
from cube_cluster.conf_files import has_models
from cube_cluster.kubernetes import names, pods
from cube_cluster.kubernetes.config_maps import CLIENTS, RoleConf, sha256_of
from cube_cluster.kubernetes.pod_cluster import (
    ctr_grpc_port,
    ctr_place,
    server_grpc_port,
    server_port,
)
from cube_cluster.kubernetes.pods import Mount, Object, Pod
from cube_cluster.kubernetes.section import Kubernetes, ServerPods

# Clients notice by themselves that a shard server ends. Those of CTR servers may find them by a
# Service, whose changes take a while to reach all nodes.
_SERVER_BEFORE_STOP_S = 5
_CTR_BEFORE_STOP_S = 10
_SCALE_DOWN_WINDOW_S = 300


def shard_objects(
    cluster: Cluster, section: Kubernetes, files: RoleConf, shard: names.Shard
) -> list[Object]:
    """Service, StatefulSet and PodDisruptionBudget of a shard."""
    own = server_pods(section, shard.dict)
    grpc_port = server_grpc_port(shard.dict)
    pod = Pod(
        kind=names.SERVER,
        instance=shard.name,
        arguments=[
            f"--flagfile={names.CONF_DIR}/gflags.conf",
            f"--flagfile={names.CONF_DIR}/{shard.name}.flags",
        ],
        ports={"http": server_port(shard.dict), **({"grpc": grpc_port} if grpc_port > 0 else {})},
        mounts=[
            Mount("data", names.DATA_DIR, {}, read_only=False),
            pods.conf_mount(names.servers_conf_name(shard.dict)),
            *pods.secret_mounts(section, operates=True),
        ],
        resources=own.resources,
        ready_path="/ready",
        conf_sha256=sha256_of(files.shard(shard)),
        before_stop_s=_SERVER_BEFORE_STOP_S,
        drain_timeout_s=_drain_timeout_s(cluster.flags.cube_server),
        labels={"cube-dict": names.slug(shard.dict.name), "cube-shard": str(shard.number)},
        scheduling=pods.spread(names.SERVER, shard.name, own.anti_affinity),
    )
    return [
        # The daemon has to reach servers that are not ready, to make them so.
        pods.service(pod, section, headless=True, also_unready=True),
        pods.stateful_set(
            pod,
            section,
            replicas=shard.dict.replicas,
            storage=own,
            pod_management="Parallel",
        ),
        pods.disruption_budget(pod, section),
    ]


def server_pods(section: Kubernetes, conf: Dict) -> ServerPods:
    """As the dict says; what it does not, as all dicts have it."""
    if conf.kubernetes is None:
        return section.cube_server
    return section.cube_server.model_copy(
        update={name: getattr(conf.kubernetes, name) for name in conf.kubernetes.model_fields_set}
    )


def transfer_objects(
    cluster: Cluster, section: Kubernetes, files: RoleConf, conf: Dict
) -> list[Object]:
    """Service and StatefulSet of a dict's daemon, and the volume that it publishes models to."""
    name = names.transfer_name(conf)
    pod = Pod(
        kind=names.TRANSFER,
        instance=name,
        arguments=[f"--flagfile={names.CONF_DIR}/{names.TRANSFER}.flags"],
        ports={"http": conf.transfer.port},
        mounts=[
            Mount("data", names.DATA_DIR, {}, read_only=False),
            *_published_models(cluster, conf),
            *_passes_mounts(section),
            pods.conf_mount(name),
            *pods.secret_mounts(section, operates=True),
        ],
        resources=section.cube_transfer.resources,
        ready_path="/health",
        conf_sha256=sha256_of(files.transfer(conf)),
        labels={"cube-dict": names.slug(conf.name)},
        env_secret=section.secrets.sources,
    )
    return [
        *_models_claim(cluster, section, conf),
        pods.service(pod, section, headless=True),
        pods.stateful_set(
            pod, section, replicas=1, storage=section.cube_transfer, pod_management="OrderedReady"
        ),
    ]


def ctr_objects(cluster: Cluster, section: Kubernetes, files: RoleConf) -> list[Object]:
    """Services, Deployment, autoscaler and PodDisruptionBudget of the CTR servers."""
    own = section.ctr_serving
    engines = cluster.ctr.engines if cluster.ctr else []
    used = {engine.dict_name for engine in engines}
    pod = Pod(
        kind=names.CTR,
        instance=names.CTR,
        arguments=[f"--flagfile={names.CONF_DIR}/{names.CTR}.flags"],
        ports={"http": ctr_place(cluster).port, "grpc": ctr_grpc_port(cluster)},
        mounts=[
            *(
                mount
                for conf in cluster.dicts
                if conf.name in used
                for mount in _fetched_models(cluster, section, conf)
            ),
            pods.conf_mount(names.CTR, CLIENTS),
            *pods.secret_mounts(section, operates=False),
        ],
        resources=own.resources,
        ready_path="/ready",
        conf_sha256=sha256_of(files.ctr()),
        before_stop_s=_CTR_BEFORE_STOP_S,
        drain_timeout_s=_drain_timeout_s(cluster.flags.ctr_serving),
        scheduling=pods.spread(names.CTR, names.CTR, "preferred"),
    )
    return [
        pods.service(pod, section, headless=False),
        # For the daemons' page, which shows those that are not ready as well.
        pods.service(pod, section, headless=True, also_unready=True, name=names.CTR_PODS),
        _deployment(pod, section),
        _autoscaler(pod, section),
        pods.disruption_budget(pod, section),
    ]


def _deployment(pod: Pod, section: Kubernetes) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": pods.metadata(pod.kind, pod.instance, section),
        # Without replicas: these are the autoscaler's.
        "spec": {
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "selector": {"matchLabels": names.selector(pod.kind, pod.instance)},
            "template": pod.template(section),
        },
    }


def _autoscaler(pod: Pod, section: Kubernetes) -> Object:
    own = section.ctr_serving
    target = {"type": "Utilization", "averageUtilization": own.cpu_percent}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": pods.metadata(pod.kind, pod.instance, section),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": pod.instance},
            "minReplicas": own.replicas_min,
            "maxReplicas": own.replicas_max,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": _SCALE_DOWN_WINDOW_S}},
        },
    }


def _models_claim(cluster: Cluster, section: Kubernetes, conf: Dict) -> list[Object]:
    if not has_models(cluster, conf):
        return []
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": names.models_claim(conf),
                "namespace": section.namespace,
                "labels": names.labels(names.TRANSFER, names.transfer_name(conf)),
            },
            "spec": pods.claim_spec(section.models, "ReadWriteOnce"),
        }
    ]


def _published_models(cluster: Cluster, conf: Dict) -> list[Mount]:
    if not has_models(cluster, conf):
        return []
    return [_models_mount(conf, {"persistentVolumeClaim": {"claimName": names.models_claim(conf)}})]


def _fetched_models(cluster: Cluster, section: Kubernetes, conf: Dict) -> list[Mount]:
    if not has_models(cluster, conf):
        return []
    return [_models_mount(conf, {"emptyDir": {"sizeLimit": section.models.storage}})]


def _models_mount(conf: Dict, source: Object) -> Mount:
    name = f"models-{names.slug(conf.name)}"
    return Mount(name, names.models_dir(conf), source, read_only=False)


def _passes_mounts(section: Kubernetes) -> list[Mount]:
    if section.passes is None:
        return []
    claim = {"claimName": section.passes.claim, "readOnly": True}
    return [Mount("passes", section.passes.mount_path, {"persistentVolumeClaim": claim})]


def _drain_timeout_s(flags: dict[str, FlagValue]) -> float:
    return float(flags.get("drain_timeout_s", pods.DRAIN_TIMEOUT_S))
