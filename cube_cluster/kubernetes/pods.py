"""What the pods of all roles have in common."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cube_cluster.kubernetes import names
from cube_cluster.kubernetes.section import Kubernetes, Resources, Storage

Object = dict[str, Any]

USER_ID = 10001
"""Of the image's user, whom files on volumes are readable for, too."""

DRAIN_TIMEOUT_S = 10
"""Default of `--drain_timeout_s` of the roles that answer requests."""

_TMP_SIZE = "1Gi"
_GRACE_BEYOND_DRAIN_S = 15
_GRACE_MIN_S = 30
# A process may be busy for long, and must not be ended for that: what it does would be begun again.
_LIVENESS = {"periodSeconds": 10, "timeoutSeconds": 5, "failureThreshold": 12}
_READINESS = {"periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 2}
_STARTUP = {"periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": 300}


@dataclass(frozen=True)
class Mount:
    """A volume of a pod; `source` {}: it is a claim of the StatefulSet."""

    name: str
    path: str
    source: Object
    read_only: bool = True


@dataclass(frozen=True)
class Pod:
    """One pod of one container.

    Attributes:
        ports: those it listens on, by name; `http` is asked how it is.
        ready_path: what tells that it does its work.
        before_stop_s: it is left alone so long before it is told to end, until nobody finds it
            any more; 0: told at once.
        conf_sha256: of the files that it reads once, at its start.
    """

    kind: str
    instance: str
    arguments: Sequence[str]
    ports: Mapping[str, int]
    mounts: Sequence[Mount]
    resources: Resources
    ready_path: str
    conf_sha256: str
    before_stop_s: int = 0
    drain_timeout_s: float = 0
    labels: Mapping[str, str] = field(default_factory=dict)
    scheduling: Object = field(default_factory=dict)
    env_secret: str | None = None

    def template(self, section: Kubernetes) -> Object:
        """The PodTemplateSpec."""
        return {
            "metadata": {
                "labels": {**names.labels(self.kind, self.instance), **self.labels},
                "annotations": {"conf-sha256": self.conf_sha256},
            },
            "spec": self._spec(section),
        }

    def _spec(self, section: Kubernetes) -> Object:
        grace_s = self.before_stop_s + math.ceil(self.drain_timeout_s) + _GRACE_BEYOND_DRAIN_S
        spec: Object = {
            "serviceAccountName": "cube-serving",
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER_ID,
                "runAsGroup": USER_ID,
                "fsGroup": USER_ID,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "terminationGracePeriodSeconds": max(_GRACE_MIN_S, grace_s),
            **self.scheduling,
            "containers": [self._container(section)],
            "volumes": [
                {"name": "tmp", "emptyDir": {"sizeLimit": _TMP_SIZE}},
                *({"name": m.name, **m.source} for m in self.mounts if m.source),
            ],
        }
        if section.image_pull_secrets:
            spec["imagePullSecrets"] = [{"name": each} for each in section.image_pull_secrets]
        return spec

    def _container(self, section: Kubernetes) -> Object:
        container: Object = {
            "name": self.kind,
            "image": section.image,
            "command": [self.kind],
            "args": list(self.arguments),
            "workingDir": "/tmp",  # noqa: S108
            "ports": [
                {"name": name, "containerPort": port, "protocol": "TCP"}
                for name, port in self.ports.items()
            ],
            **_resources(self.resources),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
            # /live answers while tables are loaded, /ready when the wanted version is served.
            "startupProbe": {**self._probe("/live", section), **_STARTUP},
            "livenessProbe": {**self._probe("/live", section), **_LIVENESS},
            "readinessProbe": {**self._probe(self.ready_path, section), **_READINESS},
            "volumeMounts": [
                {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108
                *(
                    {"name": m.name, "mountPath": m.path}
                    | ({"readOnly": True} if m.read_only else {})
                    for m in self.mounts
                ),
            ],
        }
        if self.env_secret is not None:
            container["envFrom"] = [{"secretRef": {"name": self.env_secret}}]
        if self.before_stop_s:
            sleep = {"exec": {"command": ["sleep", str(self.before_stop_s)]}}
            container["lifecycle"] = {"preStop": sleep}
        return container

    def _probe(self, path: str, section: Kubernetes) -> Object:
        if section.secrets.tls is None:
            return {"httpGet": {"path": path, "port": "http"}}
        # The ports want a certificate to be shown, which the kubelet has none of.
        command = [
            "python",
            "-m",
            "cube_core.probe",
            f"https://127.0.0.1:{self.ports['http']}{path}",
            f"--cert={names.TLS_DIR}/tls.crt",
            f"--key={names.TLS_DIR}/tls.key",
        ]
        return {"exec": {"command": command}}


def secret_mounts(section: Kubernetes, *, operates: bool) -> list[Mount]:
    """Tokens, and certificates where there are any.

    Args:
        operates: whether the pod gets the operate token; else the read token only.
    """
    keys = ["operate", "read"] if operates else ["read"]
    tokens = {
        "secretName": section.secrets.tokens,
        "defaultMode": 0o440,
        "items": [{"key": key, "path": key} for key in keys],
    }
    mounts = [Mount("tokens", names.TOKENS_DIR, {"secret": tokens})]
    if section.secrets.tls is not None:
        tls = {"secretName": section.secrets.tls, "defaultMode": 0o440}
        mounts.append(Mount("tls", names.TLS_DIR, {"secret": tls}))
    return mounts


def conf_mount(*config_maps: str) -> Mount:
    """The files of several ConfigMaps in one directory, which follows when they are changed."""
    sources = [{"configMap": {"name": name}} for name in config_maps]
    return Mount("conf", names.CONF_DIR, {"projected": {"sources": sources}})


def claim_spec(storage: Storage, access_mode: str = "ReadWriteOnce") -> Object:
    """What a PersistentVolumeClaim asks for."""
    spec: Object = {
        "accessModes": [access_mode],
        "resources": {"requests": {"storage": storage.storage}},
    }
    return spec | ({"storageClassName": storage.storage_class} if storage.storage_class else {})


def stateful_set(
    pod: Pod, section: Kubernetes, *, replicas: int, storage: Storage, pod_management: str
) -> Object:
    """A StatefulSet whose pods have a volume `data` each, and a headless Service of its name."""
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": metadata(pod.kind, pod.instance, section),
        "spec": {
            "serviceName": pod.instance,
            "replicas": replicas,
            "podManagementPolicy": pod_management,
            "updateStrategy": {"type": "RollingUpdate"},
            "selector": {"matchLabels": names.selector(pod.kind, pod.instance)},
            "template": pod.template(section),
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim_spec(storage)}],
        },
    }


def service(
    pod: Pod, section: Kubernetes, *, headless: bool, also_unready: bool = False, name: str = ""
) -> Object:
    """The Service of a role.

    Args:
        headless: its name stands for the pods, and they have names of their own below it.
        also_unready: for pods that are not ready, too.
        name: that of the instance if not given.
    """
    spec: Object = {"clusterIP": "None"} if headless else {"type": "ClusterIP"}
    if also_unready:
        spec["publishNotReadyAddresses"] = True
    spec["selector"] = names.selector(pod.kind, pod.instance)
    spec["ports"] = [
        {"name": each, "port": port, "targetPort": each, "protocol": "TCP"}
        for each, port in pod.ports.items()
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            **metadata(pod.kind, pod.instance, section),
            "name": name or pod.instance,
        },
        "spec": spec,
    }


def disruption_budget(pod: Pod, section: Kubernetes) -> Object:
    """One pod at a time is taken away; those that are not ready any time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(pod.kind, pod.instance, section),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": names.selector(pod.kind, pod.instance)},
        },
    }


def metadata(kind: str, name: str, section: Kubernetes) -> Object:
    return {"name": name, "namespace": section.namespace, "labels": names.labels(kind, name)}


def spread(pod_kind: str, instance: str, affinity: str) -> Object:
    """Pods of an instance go to different nodes: always, or where there are enough; and to
    different zones where there are any."""
    labels = {"matchLabels": names.selector(pod_kind, instance)}
    term: Object = {"labelSelector": labels, "topologyKey": "kubernetes.io/hostname"}
    if affinity == "required":
        rule: Object = {"requiredDuringSchedulingIgnoredDuringExecution": [term]}
    else:
        weighted = {"weight": 100, "podAffinityTerm": term}
        rule = {"preferredDuringSchedulingIgnoredDuringExecution": [weighted]}
    return {
        "affinity": {"podAntiAffinity": rule},
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "topology.kubernetes.io/zone",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": labels,
            }
        ],
    }


def _resources(resources: Resources) -> Object:
    given = resources.model_dump(exclude_none=True)
    return {"resources": {name: amounts for name, amounts in given.items() if amounts}}
