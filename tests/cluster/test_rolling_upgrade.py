"""An upgrade of the pods of manifests, in the order of Kubernetes, fails no request."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from ctr_serving.client import CtrClient
from ctr_serving.predictor import import_paddle
from cube_api import CubeClient
from cube_core._native import SequenceFileWriter
from tests.cluster.kubelet import TIMEOUT_S, Kubelet
from tests.cluster.manifests import Site, Template
from tests.ctr.models import (
    DICT_NAME,
    ROW_COUNT,
    direct_probabilities,
    embedding,
    make_model,
    requests_of,
    write_manifest,
)
from tests.transfer.passes import Trainer
from tests.transfer.passes import write_manifest as write_parts_manifest
from tests.waiting import wait_until

CLUSTER = f"""
dicts:
  - name: {DICT_NAME}
    donefile_address: /passes/donefile
    shards: 2
    replicas: 2
    port: 8001
    timeout_ms: 20000
    transfer: {{port: 8098, poll_interval_ms: 100}}
ctr:
  servers: [{{port: 8010}}]
  engines: [{{dict_name: {DICT_NAME}, enable_batch_align: true}}]
flags:
  ctr_serving: {{reload_interval_ms: 50}}
kubernetes:
  image: cube-serving
  passes: {{claim: passes}}
  ctr_serving: {{replicas_min: 2}}
"""
KEYS = np.arange(ROW_COUNT, dtype=np.uint64)
ROWS = 5


@pytest.fixture(scope="module")
def kubelet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubelet]:
    """Servers and daemon, to which a pass of embeddings and a dense model was deployed."""
    folder = tmp_path_factory.mktemp("node")
    (folder / "cluster.yml").write_text(CLUSTER)
    with Kubelet(Site.written_from(folder / "cluster.yml"), folder).cleaning() as kubelet:
        for pod in kubelet.pods.values():
            kubelet.start(pod)
        servers = [p for p in kubelet.pods.values() if p.template.kind == "cube-server"]
        assert len(servers) == 4
        assert not any(pod.is_ready() for pod in servers), "they have no pass yet"
        write_pass(folder / "passes")
        for pod in servers:
            pod.wait_ready()
        wait_until((folder / "models" / DICT_NAME / "fluid_time_file").exists, TIMEOUT_S, "model")
        yield kubelet


def write_pass(folder: Path) -> None:
    trainer = Trainer(folder)
    directory = folder / "1" / "embedding"
    directory.mkdir(parents=True)
    with SequenceFileWriter(str(directory / "part-00000")) as writer:
        writer.append(KEYS, embedding(KEYS.view(np.int64), 1).view(np.uint8))
    write_parts_manifest(directory)
    import_paddle()
    make_model(folder / "1" / "dense", 1)
    write_manifest(folder / "1" / "dense", "1_1")
    trainer.announce(trainer.line("1"))


class Load:
    """Threads that ask without a pause; what failed is kept."""

    def __init__(self, *asks: Callable[[], None]) -> None:
        self.answered = [0] * len(asks)
        self.failures: list[str] = []
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(index, ask)) for index, ask in enumerate(asks)
        ]

    def _run(self, index: int, ask: Callable[[], None]) -> None:
        while not self._stopping.is_set():
            try:
                ask()
            except Exception as error:
                self.failures.append(repr(error))
            else:
                self.answered[index] += 1

    def wait_for_more(self, count: int = 50) -> None:
        reached = [each + count for each in self.answered]
        wait_until(
            lambda: all(a >= b for a, b in zip(self.answered, reached, strict=True)),
            TIMEOUT_S,
            "further answers of every client",
        )

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stopping.set()
            for thread in self._threads:
                thread.join()


def test_an_upgrade_of_all_shard_servers_fails_no_request(kubelet: Kubelet) -> None:
    conf, wanted = kubelet.file_for_clients("cube.conf"), embedding(KEYS.view(np.int64), 1)
    sets = [t for t in kubelet.site.templates() if t.kind == "cube-server"]
    before = {pod.name: pod.role for template in sets for pod in kubelet.of(template)}
    with CubeClient(conf) as one, CubeClient(conf) as two:

        def seek(cube: CubeClient) -> Callable[[], None]:
            def ask() -> None:
                rows, status = cube.seek(DICT_NAME, KEYS)
                assert (status == 0).all()
                np.testing.assert_array_equal(rows, wanted)

            return ask

        with Load(seek(one), seek(two)).running() as load:
            load.wait_for_more()
            # Both StatefulSets are updated at the same time.
            updates = [
                threading.Thread(target=kubelet.update_in_place, args=(each,)) for each in sets
            ]
            for update in updates:
                update.start()
            for update in updates:
                update.join()
            load.wait_for_more()
    assert load.failures == []
    after = {pod.name: pod.role for template in sets for pod in kubelet.of(template)}
    assert all(after[name] is not None and after[name] is not before[name] for name in before)


@pytest.fixture(scope="module")
def ctr_template(kubelet: Kubelet) -> Template:
    """Of the CTR servers, of which there are two."""
    template = kubelet.site.template("ctr-serving")
    kubelet.scale_deployment(template, 2)
    return template


def require_no_failure(
    kubelet: Kubelet, clients: Sequence[CtrClient], update: Callable[[], None]
) -> None:
    """All clients are answered as Paddle answers, before the update, while it lasts, and after."""
    request = requests_of(ROWS)
    rows = embedding(request[0], 1)
    wanted = direct_probabilities(kubelet.folder / "passes" / "1" / "dense", rows, request[1])

    def predict(client: CtrClient) -> Callable[[], None]:
        def ask() -> None:
            np.testing.assert_allclose(client.predict(*request), wanted, atol=1e-5)

        return ask

    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.enter_context(client)
        with Load(*map(predict, clients)).running() as load:
            load.wait_for_more()
            update()
            load.wait_for_more()
    assert load.failures == []


def test_a_restart_of_ctr_servers_in_their_places_fails_no_request(
    kubelet: Kubelet, ctr_template: Template
) -> None:
    ports = [pod.ports["http"] for pod in kubelet.of(ctr_template)]
    address = f"list://127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}"
    clients = [CtrClient(address), CtrClient(address), CtrClient(address, "http")]
    require_no_failure(kubelet, clients, lambda: kubelet.update_in_place(ctr_template))


def test_an_upgrade_of_ctr_servers_fails_no_request(
    kubelet: Kubelet, ctr_template: Template
) -> None:
    """Clients know one address, that of the Service."""
    path = kubelet.file_for_clients("predictors.prototxt")
    clients = [CtrClient.from_conf(path, protocol=each) for each in ("baidu_std", "http")]
    require_no_failure(kubelet, clients, lambda: kubelet.update_deployment(ctr_template))
