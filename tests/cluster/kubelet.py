"""The pods of manifests as processes of this machine, updated in the order that the controllers of
StatefulSets and Deployments keep."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.cluster.manifests import Site, Template
from tests.cluster.service_proxy import ServiceProxy
from tests.cluster.site import free_ports
from tests.processes import Role, running
from tests.waiting import wait_until

TIMEOUT_S = 60.0
_MODULES = {
    "cube-server": "cube_server.main",
    "cube-transfer": "cube_transfer.main",
    "ctr-serving": "ctr_serving.main",
}


@dataclass
class Pod:
    """One pod; while it is stopped it has no role."""

    template: Template
    name: str
    ports: dict[str, int]
    folder: Path
    role: Role | None = None
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def is_ready(self) -> bool:
        """As its readiness probe finds it."""
        probe = self.template.container["readinessProbe"]["httpGet"]
        try:
            answer = httpx.get(
                f"http://127.0.0.1:{self.ports[probe['port']]}{probe['path']}", trust_env=False
            )
        except httpx.HTTPError:
            return False
        return bool(answer.status_code == httpx.codes.OK)

    def wait_ready(self) -> None:
        wait_until(self.is_ready, TIMEOUT_S, f"{self.name} ready")


class Kubelet:
    """Runs pods of a site in `folder`. Their names stand for ports of this machine, and their
    directories for some in `folder`."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.folder = folder
        self.pods: dict[str, Pod] = {}
        self._numbers = itertools.count()
        self._stack = contextlib.ExitStack()
        self.ctr_service = self._stack.enter_context(ServiceProxy.running())
        for template in site.templates():
            if template.owner["kind"] == "StatefulSet":
                for ordinal in range(template.owner["spec"]["replicas"]):
                    self._new_pod(template, f"{template.name}-{ordinal}")

    @contextlib.contextmanager
    def cleaning(self) -> Iterator[Kubelet]:
        """Ends all at the end."""
        try:
            yield self
        finally:
            for pod in self.pods.values():
                pod.stack.close()
            self._stack.close()

    def of(self, template: Template) -> list[Pod]:
        return [pod for pod in self.pods.values() if pod.template.name == template.name]

    def start(self, pod: Pod) -> None:
        """Starts its process from the files that its volumes bring."""
        root = self.folder / pod.name
        for path, text in self.site.files_in(pod.template):
            target = Path(f"{root}{path}")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self._seen_here(text, pod), encoding="utf-8")
        root.mkdir(exist_ok=True)
        arguments = [self._seen_here(each, pod) for each in pod.template.container["args"]]
        pod.role = pod.stack.enter_context(
            running(
                _MODULES[pod.template.kind],
                arguments,
                cwd=root,
                ready_timeout_s=TIMEOUT_S,
                preloaded=pod.template.kind != "ctr-serving",
            )
        )

    def terminate(self, pod: Pod) -> None:
        """Ends its process as Kubernetes does, without the wait before: SIGTERM, and time to end.
        It must not look ready meanwhile, nor need to be killed."""
        role = pod.role
        assert role is not None
        role.process.send_signal(signal.SIGTERM)
        wait_until(lambda: not pod.is_ready(), TIMEOUT_S, f"{pod.name} not ready any more")
        grace_s = pod.template.spec["terminationGracePeriodSeconds"]
        wait_until(lambda: role.process.poll() is not None, max(grace_s, TIMEOUT_S), "its end")
        assert role.process.returncode == 0, role.log()
        pod.stack.close()
        pod.role = None

    def update_in_place(self, template: Template) -> None:
        """As a StatefulSet, the last pod first: each is ended, started and ready before the
        next."""
        for pod in reversed(self.of(template)):
            self.terminate(pod)
            self.start(pod)
            pod.wait_ready()

    def scale_deployment(self, template: Template, replicas: int) -> None:
        """Adds pods; the Service leads to each once it is ready."""
        for _ in range(replicas):
            pod = self._new_pod(template, f"{template.name}-{next(self._numbers)}")
            self.start(pod)
            pod.wait_ready()
            self.ctr_service.targets.append(pod.ports["http"])

    def update_deployment(self, template: Template) -> None:
        """With maxSurge 1 and maxUnavailable 0: a new pod is ready before an old one goes."""
        assert template.owner["spec"]["strategy"]["rollingUpdate"] == {
            "maxSurge": 1,
            "maxUnavailable": 0,
        }
        for old in self.of(template):
            self.scale_deployment(template, 1)
            self.ctr_service.targets.remove(old.ports["http"])
            self.terminate(old)
            del self.pods[old.name]

    def _new_pod(self, template: Template, name: str) -> Pod:
        ports = dict(zip(template.ports, free_ports(len(template.ports)), strict=True))
        pod = self.pods[name] = Pod(template, name, ports, self.folder / name)
        return pod

    def _seen_here(self, text: str, pod: Pod) -> str:
        """What a file of a pod says, with ports and paths of this machine."""
        for each in self.pods.values():
            host = f"{each.name}.{each.template.name}.cube.svc.cluster.local"
            local = f"127.0.0.1:{each.ports['http']}"
            text = text.replace(f"{host}:{each.template.ports['http']}", local)
            if each.template.kind == "cube-transfer":
                service = f"{each.template.name}.cube.svc.cluster.local"
                text = text.replace(f"transfer_address: {service}", "transfer_address: 127.0.0.1")
                text = text.replace("wget_port: 8098", f"wget_port: {each.ports['http']}")
        service = f"127.0.0.1:{self.ctr_service.port}"
        # All predictors are behind one address here.
        text = text.replace("dns://ctr-serving-pods.cube.svc.cluster.local:8010", service)
        text = text.replace("ctr-serving.cube.svc.cluster.local:8010", service)
        text = text.replace("--host=0.0.0.0", "--host=127.0.0.1")
        for name, flag in (("http", "port"), ("grpc", "grpc_port")):
            if name in pod.ports:
                port = pod.template.ports[name]
                text = text.replace(f"--{flag}={port}\n", f"--{flag}={pod.ports[name]}\n")
        for path in ("/etc/cube", "/var/lib/cube"):
            text = text.replace(path, f"{pod.folder}{path}")
        for path in ("/models", "/passes"):
            text = text.replace(f"{path}/", f"{self.folder}{path}/")
        return text

    def file_for_clients(self, name: str) -> Path:
        """A file that clients read, written for this machine."""
        path = self.folder / name
        data = self.site.named("ConfigMap", "cube-clients")["data"]
        path.write_text(self._seen_here(data[name], next(iter(self.pods.values()))))
        return path
