"""The predictor against the bare model: what serving costs on top, in one run.

The bare model is Paddle's predictor with oneDNN, one thread, over ready arrays, as `split` (26
inputs) and `fused` (one), both as Paddle comes; `tuned` is the fused one with the flags that the
predictor sets.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.ctr_load import answer_all, answer_at_rate, answer_each, tell
from benchmarks.peers import Server, ctr_server, cube_server
from ctr_serving.client import CtrClient
from cube_core import _native
from cube_core.versions import Version

KEY_COUNT = 1_000_000
IN_FLIGHT = 64
_BEST_CANDIDATES = (50, 100, 200, 500)
_WINDOW_S = 0.5
_PADDLE_FLAGS = {"FLAGS_eager_delete_tensor_gb": 0.0}
"""What FLAGS of ctr_serving.predictor are when nobody sets them."""
_OVERLOAD_S = 3.0
_OVERLOAD_TIMEOUT_MS = 100
_CAPACITY_REQUESTS = 2000
_BATCH_WAITS_US = (0, 100, 300)
_CACHE_MB = 64
_HOT_REQUESTS = 1000
_Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.int64]]
_LAWS: dict[str, _Draw] = {
    "keys by Zipf's law, 1.3": lambda random, shape: (
        random.zipf(1.3, shape) * 2_654_435_761 % KEY_COUNT
    ),
    "10,000 keys": lambda random, shape: random.integers(0, 10_000, shape),
}


@dataclass(frozen=True)
class _Dict:
    name: str
    dim: int
    shards: int


_EMBEDDING = _Dict("ctr_embedding", 10, 2)
_FIRST_ORDER = _Dict("ctr_first_order", 1, 1)
_SLOTS_OP = 'workflows { name: "w" workflow_type: "Sequence" nodes { name: "op" type: "SlotsOp" } }'


@dataclass(frozen=True)
class Figure:
    """One figure and, where there is one, what it is to be compared with."""

    name: str
    value: float
    target: float | None = None


@dataclass(frozen=True)
class _Deployment:
    server: Server
    shards: list[Server]
    run_dir: Path

    @property
    def port(self) -> int:
        return self.server.port


def measure(run_dir: Path, *, rounds: int) -> list[Figure]:
    """Measures all figures; times in µs, of CPU where the name says so."""
    models = [_export(run_dir / f"model_{seed}", seed) for seed in (1, 2)]
    with _deployed(run_dir, models[0]) as deployed:
        figures = _against_bare(deployed, models[0], rounds)
        figures += _overload(deployed)
        figures += _while_switching(deployed, models, rounds)
    figures += _workflow(run_dir, models[0], _export_deep_fm(run_dir / "deep_fm"), rounds)
    figures += _batch_waits(run_dir, models[0], rounds)
    for cache_mb in (0, _CACHE_MB):
        cached_dir = run_dir / f"cache_{cache_mb}"
        cached_dir.mkdir()
        with _deployed(cached_dir, models[0], f"cube_cache_mb: {cache_mb}") as deployed:
            for law, draw in _LAWS.items():
                figures += _with_hot_keys(deployed, f"{law}, cache of {cache_mb} MiB", draw)
    return figures


def _against_bare(deployed: _Deployment, model: Path, rounds: int) -> list[Figure]:
    bare = {form: _Bare(model, form) for form in ("split", "fused", "tuned")}
    bare_us: dict[tuple[str, int], list[float]] = {}
    single_us, served_us, cpu_us, fetch = [], [], [], []
    with CtrClient(f"127.0.0.1:{deployed.server.port}") as client:
        for _ in range(rounds):
            for form, each in bare.items():
                for size in (1, *_BEST_CANDIDATES):
                    bare_us.setdefault((form, size), []).append(each.cpu_us(size))
            single_us.append(_latency_us(client, 1, 500)[0])
            before_s, fetched_s = deployed.server.cpu_s(), _seek_seconds(deployed.server)
            requests = 400
            p50_us, total_s = _latency_us(client, 50, requests)
            served_us.append(p50_us)
            cpu_us.append((deployed.server.cpu_s() - before_s) / requests * 1e6)
            fetch.append((_seek_seconds(deployed.server) - fetched_s) / total_s)
    rows_per_s, row_us = _single_rows(deployed, rounds)
    median = {key: statistics.median(values) for key, values in bare_us.items()}
    cpu, single = statistics.median(cpu_us), statistics.median(single_us)
    figures = [
        Figure("server CPU µs, 50-row request", cpu),
        Figure("p50 µs, 50-row request", statistics.median(served_us)),
        Figure("p50 µs, 1-row request", single),
        Figure(f"rows/s, 1-row requests, {IN_FLIGHT} in flight", rows_per_s),
        Figure(f"server CPU µs a row, {IN_FLIGHT} in flight", row_us),
        Figure("embedding fetch share, 50-row request", statistics.median(fetch), 0.20),
    ]
    for form in bare:
        best_us = min(median[form, size] / size for size in _BEST_CANDIDATES)
        figures += [
            Figure(f"bare {form} CPU µs, 1 row", median[form, 1]),
            Figure(f"bare {form} CPU µs, 50 rows", median[form, 50]),
            Figure(f"bare {form} CPU µs a row, best batch", best_us),
            Figure(f"server CPU ÷ bare {form}, 50 rows", cpu / median[form, 50], 1.35),
            Figure(f"rows/s ÷ bare {form} at its best", rows_per_s * best_us / 1e6, 0.4),
            Figure(f"p50 µs, 1 row, over bare {form}", single - median[form, 1], 250),
        ]
    return figures


def _single_rows(deployed: _Deployment, rounds: int) -> tuple[float, float]:
    """Rows a second with so many 1-row requests in flight, and server CPU µs a row."""
    frames = [_native.encode_ctr_request(*_request(1, seed)) for seed in range(256)]
    many, many_us = [], []
    for _ in range(rounds):
        before_s, requests = deployed.server.cpu_s(), 80 * IN_FLIGHT
        many.append(answer_all(deployed.port, frames, requests, IN_FLIGHT))
        many_us.append((deployed.server.cpu_s() - before_s) / requests * 1e6)
    return statistics.median(many), statistics.median(many_us)


def _overload(deployed: _Deployment, name: str = "") -> list[Figure]:
    """Half and twice as many 50-row requests as the predictor can answer, each with a timeout."""
    payloads = [_native.encode_ctr_request(*_request(50, seed)) for seed in range(64)]
    capacity = answer_all(deployed.port, payloads, _CAPACITY_REQUESTS, IN_FLIGHT)
    said = [Figure(f"{name}50-row requests/s, {IN_FLIGHT} in flight", capacity)]
    for factor in (0.5, 2.0):
        before = deployed.server.cpu_s()
        latencies_us, refused = answer_at_rate(
            deployed.port, payloads, factor * capacity, _OVERLOAD_S, _OVERLOAD_TIMEOUT_MS
        )
        at = f"{name}{factor} x capacity"
        said += [
            Figure(f"{at}: answered, share", len(latencies_us) / (len(latencies_us) + refused)),
            Figure(f"{at}: answers/s", len(latencies_us) / _OVERLOAD_S),
            Figure(f"{at}: server CPU s", deployed.server.cpu_s() - before),
        ]
        if latencies_us:
            p50, p99 = np.percentile(latencies_us, [50, 99])
            said += [
                Figure(f"{at}: p50 µs of answered", float(p50)),
                Figure(f"{at}: p99 µs of answered", float(p99)),
            ]
    return said


def _workflow(run_dir: Path, model: Path, deep_fm: Path, rounds: int) -> list[Figure]:
    """The same model by ops as by the fixed op, and one of two dicts."""
    figures = []
    for name, each, dicts in (
        ("SlotsOp", model, [_EMBEDDING]),
        ("DeepFM", deep_fm, [_EMBEDDING, _FIRST_ORDER]),
    ):
        workflow_dir = run_dir / name
        workflow_dir.mkdir()
        with _deployed(workflow_dir, each, dicts=dicts, workflow=_SLOTS_OP) as deployed:
            rows_per_s, row_us = _single_rows(deployed, rounds)
            figures += [
                Figure(f"{name}: rows/s, 1-row requests, {IN_FLIGHT} in flight", rows_per_s),
                Figure(f"{name}: server CPU µs a row, {IN_FLIGHT} in flight", row_us),
                *_overload(deployed, f"{name}: "),
            ]
    return figures


def _batch_waits(run_dir: Path, model: Path, rounds: int) -> list[Figure]:
    """What waiting for others gains where each caller has a connection and one request."""
    payloads = [_native.encode_ctr_request(*_request(1, seed)) for seed in range(256)]
    measured: dict[int, list[tuple[float, float, float]]] = {us: [] for us in _BATCH_WAITS_US}
    with contextlib.ExitStack() as stack:
        deployed = {}
        for wait_us in _BATCH_WAITS_US:
            wait_dir = run_dir / f"wait_{wait_us}"
            wait_dir.mkdir()
            each = stack.enter_context(_deployed(wait_dir, model, f"batch_wait_us: {wait_us}"))
            answer_each(each.port, payloads, 20 * IN_FLIGHT, IN_FLIGHT)
            deployed[wait_us] = each
        for _ in range(rounds):
            for wait_us, each in deployed.items():
                before_s, requests = each.server.cpu_s(), 80 * IN_FLIGHT
                rows_per_s, us = answer_each(each.port, payloads, requests, IN_FLIGHT)
                cpu_us = (each.server.cpu_s() - before_s) / requests * 1e6
                measured[wait_us].append((rows_per_s, statistics.median(us), cpu_us))
    figures = []
    for wait_us, values in measured.items():
        at = f"{IN_FLIGHT} connections, batch_wait_us {wait_us}"
        rows_per_s, p50_us, cpu_us = np.median(values, axis=0).tolist()
        figures += [
            Figure(f"{at}: rows/s", rows_per_s),
            Figure(f"{at}: p50 µs, 1 row", p50_us),
            Figure(f"{at}: server CPU µs a row", cpu_us),
        ]
    return figures


def _with_hot_keys(deployed: _Deployment, name: str, draw: _Draw) -> list[Figure]:
    """50-row requests, none asked twice, after as many more."""
    random = np.random.default_rng(3)
    ids = draw(random, (2 * _HOT_REQUESTS, 50, 26))
    dense = random.random((50, 13), np.float32)
    keys_before = _cache_counts(deployed.server)
    with CtrClient(f"127.0.0.1:{deployed.server.port}") as client:
        for each in ids[:_HOT_REQUESTS]:
            client.predict(each, dense)
        before_s, fetched_s = deployed.server.cpu_s(), _seek_seconds(deployed.server)
        shards_s = sum(shard.cpu_s() for shard in deployed.shards)
        start_s = time.perf_counter()
        for each in ids[_HOT_REQUESTS:]:
            client.predict(each, dense)
        taken_s = time.perf_counter() - start_s
    cpu_s = deployed.server.cpu_s() - before_s
    shards_s = sum(shard.cpu_s() for shard in deployed.shards) - shards_s
    hits, misses = np.subtract(_cache_counts(deployed.server), keys_before)
    return [
        Figure(f"{name}: hit rate", hits / (hits + misses) if hits else 0.0),
        Figure(f"{name}: server CPU µs, 50-row request", cpu_s / _HOT_REQUESTS * 1e6),
        Figure(f"{name}: shards' CPU µs", shards_s / _HOT_REQUESTS * 1e6),
        Figure(
            f"{name}: embedding fetch share",
            (_seek_seconds(deployed.server) - fetched_s) / taken_s,
        ),
    ]


def _while_switching(deployed: _Deployment, models: list[Path], rounds: int) -> list[Figure]:
    """p99 of single-row requests at rest, and in the half second after each command."""
    rest: list[float] = []
    reload: list[float] = []
    switch: list[float] = []
    with CtrClient(f"127.0.0.1:{deployed.server.port}") as client:
        for number in range(2 * rounds):
            version = f"{number % 2 + 1}_{number % 2 + 1}"
            rest += _window(client, list)
            for command in ("bg_load_base", "bg_switch"):
                switch += _window(
                    client,
                    lambda: tell([s.port for s in deployed.shards], command, version),  # noqa: B023
                )
            reload += _window(
                client,
                lambda: _publish(deployed.run_dir, models[number % 2]),  # noqa: B023
            )
    status = httpx.get(f"http://127.0.0.1:{deployed.server.port}/status").json()
    if status["switches"] < 2 * rounds or status["problem"]:
        raise RuntimeError(f"the models were not switched: {status}")
    p99 = {
        name: float(np.percentile(us, 99))
        for name, us in (("rest", rest), ("reload", reload), ("switch", switch))
    }
    return [
        Figure("p99 µs, 1 row, at rest", p99["rest"]),
        Figure("p99 during a dense reload ÷ at rest", p99["reload"] / p99["rest"], 2),
        Figure("p99 during a table switch ÷ at rest", p99["switch"] / p99["rest"], 2),
    ]


def _window(client: CtrClient, begin: Callable[[], list[socket.socket]]) -> list[float]:
    """Latencies in µs from the moment on that `begin` is called."""
    request = _request(1)
    end_s = time.perf_counter() + _WINDOW_S
    told = begin()
    taken_us = []
    while (start_s := time.perf_counter()) < end_s:
        client.predict(*request)
        taken_us.append((time.perf_counter() - start_s) * 1e6)
    for connection in told:
        answer = connection.recv(1 << 16)
        connection.close()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"a shard server refused a command: {answer!r}")
    return taken_us


class _Bare:
    """A bare loop over one saved program: `split`, `fused` or `tuned`."""

    def __init__(self, model: Path, form: str) -> None:
        from ctr_serving.manifest import read_manifest
        from ctr_serving.predictor import FLAGS, Predictor, import_paddle

        import_paddle()
        import paddle

        paddle.set_flags(FLAGS if form == "tuned" else _PADDLE_FLAGS)
        manifest = read_manifest(model)
        if form == "split":
            manifest = manifest.model_copy(update={"fused": None})
        self._predictor = Predictor(model, manifest, onednn=True)
        self._width = manifest.slots * manifest.embedding_dim
        self._dense_dim = manifest.dense_dim
        # Paddle reads its flags at the first run.
        self.cpu_us(1)

    def cpu_us(self, size: int) -> float:
        """Mean CPU time of a run, of all threads, inputs and outputs copied."""
        random = np.random.default_rng(size)
        rows = random.random((size, self._width), np.float32)
        dense = random.random((size, self._dense_dim), np.float32)
        self._predictor.run(rows, dense)
        runs = max(20, 2000 // size)
        start_ns = time.process_time_ns()
        for _ in range(runs):
            self._predictor.run(rows, dense)
        return (time.process_time_ns() - start_ns) / runs / 1000


def _latency_us(client: CtrClient, size: int, requests: int) -> tuple[float, float]:
    """p50 of one request at a time in µs, and the time of all in s."""
    request = _request(size)
    taken_s = []
    for _ in range(requests):
        start_s = time.perf_counter()
        client.predict(*request)
        taken_s.append(time.perf_counter() - start_s)
    return statistics.median(taken_s) * 1e6, sum(taken_s)


def _cache_counts(server: Server) -> tuple[int, int]:
    """Keys that the cache has answered, and has not."""
    cache = httpx.get(f"http://127.0.0.1:{server.port}/status").json()["cache"]
    return (cache["hits"], cache["misses"]) if cache else (0, 0)


def _seek_seconds(server: Server) -> float:
    text = httpx.get(f"http://127.0.0.1:{server.port}/metrics").text
    line = next(
        line for line in text.splitlines() if line.startswith('ctr_stage_seconds_sum{stage="seek"}')
    )
    return float(line.rpartition(" ")[2])


def _request(size: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return random.integers(0, KEY_COUNT, (size, 26)), random.random((size, 13), np.float32)


def _export(directory: Path, seed: int) -> Path:
    import paddle

    from examples.criteo_ctr.export import write_dense
    from examples.criteo_ctr.network import CtrNetwork

    paddle.seed(seed)
    write_dense(CtrNetwork(), directory, _EMBEDDING.name, Version(str(seed), str(seed)))
    return directory


def _export_deep_fm(directory: Path) -> Path:
    import paddle

    from examples.deepfm_ctr.export import write_dense
    from examples.deepfm_ctr.network import DeepFm

    paddle.seed(1)
    write_dense(DeepFm(), directory, Version("1", "1"))
    return directory


@contextlib.contextmanager
def _deployed(
    run_dir: Path,
    model: Path,
    extra: str = "",
    *,
    dicts: Sequence[_Dict] = (_EMBEDDING,),
    workflow: str = "",
) -> Iterator[_Deployment]:
    with contextlib.ExitStack() as stack:
        shards: dict[str, list[Server]] = {}
        for each in dicts:
            for shard in range(each.shards):
                shard_dir = run_dir / f"{each.name}_shard_{shard}"
                shard_dir.mkdir()
                first, second = (_table(shard_dir, each, shard, seed) for seed in (1, 2))
                server = stack.enter_context(cube_server(first, "1_1", shard_dir))
                shards.setdefault(each.name, []).append(server)
                target = shard_dir / "data" / "2_2" / first.name
                target.parent.mkdir()
                target.symlink_to(second)
        _write_conf(run_dir, shards, extra)
        _publish(run_dir, model)
        flags = []
        if workflow:
            (run_dir / "workflow.prototxt").write_text(workflow)
            flags = [f"--workflow_path={run_dir}"]
        server = stack.enter_context(ctr_server(run_dir, *flags))
        deadline_s = time.monotonic() + 60
        while httpx.get(f"http://127.0.0.1:{server.port}/ready").status_code != 200:
            if time.monotonic() > deadline_s:
                raise RuntimeError(httpx.get(f"http://127.0.0.1:{server.port}/status").text)
            time.sleep(0.05)
        yield _Deployment(server, [each for some in shards.values() for each in some], run_dir)


def _table(shard_dir: Path, of: _Dict, shard: int, seed: int) -> Path:
    keys = np.arange(shard, KEY_COUNT, of.shards, dtype=np.uint64)
    values = np.random.default_rng(seed).normal(scale=0.05, size=(len(keys), of.dim))
    directory = shard_dir / f"table_{seed}"
    directory.mkdir()
    path = directory / f"{of.name}_part{shard}.table"
    _native.write_table(
        str(path),
        keys,
        values.astype(np.float32).view(np.uint8),
        dict_name=of.name,
        version=f"{seed}_{seed}",
        shard=shard,
        shard_num=of.shards,
    )
    return path


def _write_conf(run_dir: Path, shards: Mapping[str, Sequence[Server]], extra: str = "") -> None:
    conf = [
        {
            "dict_name": name,
            "shard": len(servers),
            "nodes": [{"ip": "127.0.0.1", "port": server.port} for server in servers],
        }
        for name, servers in shards.items()
    ]
    (run_dir / "ctr_cube.conf").write_text(json.dumps(conf))
    (run_dir / "model_toolkit.prototxt").write_text(
        'engines { name: "ctr" type: "PADDLE_INFER" reloadable_type: "timestamp_ne"\n'
        f'reloadable_meta: "{run_dir}/fluid_time_file" model_data_path: "{run_dir}/current"\n'
        "enable_batch_align: 1 sparse_param_service_type: REMOTE\n"
        f'sparse_param_service_table_name: "{_EMBEDDING.name}" {extra} }}\n'
    )


def _publish(run_dir: Path, model: Path) -> list[socket.socket]:
    link = run_dir / ".current"
    link.symlink_to(model)
    link.rename(run_dir / "current")
    meta = run_dir / "fluid_time_file"
    meta.write_text(model.name)
    os.utime(meta, ns=(time.time_ns(), time.time_ns()))
    return []
