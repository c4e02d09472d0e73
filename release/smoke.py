"""What `release.installed` runs where the package is installed and its source is not.

A tiny pass goes the whole way: written, built by the transfer daemon, served by two shard servers,
looked up by `CubeClient`, and predicted by `ctr-serving` with a model that Paddle saved.

    python smoke.py SOURCE_TREE     (in an empty directory)
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import numpy as np

import cube_core
from cube_api import CubeClient
from cube_builder import append_pass, export_rows

SLOTS, DIM, DENSE_DIM, ROWS = 26, 10, 13, 1000
DEADLINE_S = 120.0
BIN = Path(sys.executable).parent
FIRST = "1"


def require(holds: bool, otherwise: object) -> None:
    if not holds:
        raise SystemExit(f"smoke: {otherwise}")


def run(*command: str) -> str:
    """What an installed command prints; it must end well."""
    done = subprocess.run(
        [str(BIN / command[0]), *command[1:]], capture_output=True, text=True, timeout=DEADLINE_S
    )
    require(done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def logs() -> str:
    return "\n".join(path.read_text()[-5000:] for path in Path("run").glob("*/*.log"))


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def write_cluster() -> None:
    """conf/cluster.yml of two shard servers, a transfer daemon and a predictor."""
    one, one_grpc, two, two_grpc, transfer, ctr, ctr_grpc = free_ports(7)
    Path("conf").mkdir()
    Path("conf/cluster.yml").write_text(
        f"""dicts:
  - name: smoke
    donefile_address: ./train/donefile
    shards: 2
    servers:
      - {{port: {one}, grpc_port: {one_grpc}}}
      - {{port: {two}, grpc_port: {two_grpc}}}
    transfer: {{port: {transfer}}}
ctr:
  servers: [{{port: {ctr}, grpc_port: {ctr_grpc}}}]
  engines: [{{name: ctr_prediction, dict_name: smoke}}]
"""
    )


def write_pass(rows: Any) -> None:
    """The embedding and a dense network over it, announced in the donefile."""
    export_rows(rows, Path("train/1/embedding"))
    dense = Path("train/1/dense")
    dense.mkdir()
    inputs = save_model(dense)
    manifest = {
        "format": 1,
        "dict_name": "smoke",
        "version": f"{FIRST}_{FIRST}",
        "slots": SLOTS,
        "embedding_dim": DIM,
        "dense_dim": DENSE_DIM,
        "sparse_inputs": inputs,
        "dense_input": "dense_input",
        "output": "fetch_name_0",
        "model": "model",
    }
    (dense / "manifest.json").write_text(json.dumps(manifest))
    Path("train/donefile").mkdir()
    append_pass(Path("train/donefile/base.txt"), FIRST, Path("train/1/embedding"), dense)


def save_model(directory: Path) -> list[str]:
    """Softmax over (0, sum of all inputs); gives the names of the sparse inputs."""
    import paddle

    static: Any = paddle.static
    names = [f"slot_{slot}" for slot in range(SLOTS)]
    paddle.enable_static()
    program, startup = static.Program(), static.Program()
    with static.program_guard(program, startup):
        vectors = [static.data(name, [None, DIM], "float32") for name in names]
        dense = static.data("dense_input", [None, DENSE_DIM], "float32")
        ones = paddle.nn.initializer.Constant(1.0)
        add_up = paddle.nn.Linear(SLOTS * DIM + DENSE_DIM, 1, weight_attr=ones, bias_attr=False)
        total = add_up(paddle.concat([*vectors, dense], axis=1))
        probabilities = paddle.nn.functional.softmax(paddle.concat([total * 0, total], axis=1))
        executor = static.Executor(paddle.CPUPlace())
        executor.run(startup)
        static.save_inference_model(
            str(directory / "model"), [*vectors, dense], [probabilities], executor, program=program
        )
    paddle.disable_static()
    return names


def predicted(ids: Any, dense: Any) -> Any:
    """What the predictor answers, once it has the pass."""
    from ctr_serving.client import CtrClient

    deadline_s = time.monotonic() + DEADLINE_S
    while True:
        try:
            with CtrClient.from_conf("conf/predictors.prototxt") as client:
                return client.predict(ids, dense)
        except Exception as error:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"no prediction: {error}\n{logs()}") from error
            time.sleep(0.2)


def check_answers(rows: Any) -> None:
    random = np.random.default_rng(2)
    ids = random.integers(0, ROWS, (5, SLOTS))
    dense = random.random((5, DENSE_DIM), np.float32)
    answers = predicted(ids, dense)
    with CubeClient("conf/cube.conf") as client:
        found = client.seek("smoke", np.array([3, 5, 999, ROWS + 1]))
    require(found.status.tolist() == [0, 0, 0, -1], found.status)
    require(np.array_equal(found.rows[:3], rows[[3, 5, 999]]), found.rows)
    total = rows[ids].sum(axis=(1, 2)) + dense.sum(axis=1)
    expected = 1 / (1 + np.exp(-total))
    require(np.allclose(answers[:, 1], expected, atol=1e-5), f"{answers} instead of {expected}")


def main() -> None:
    source = Path(sys.argv[1]).resolve()
    require(not any(Path.cwd().iterdir()), "begins in an empty directory")
    places = [cube_core.__file__, *sys.path]
    require(not any(Path(each).is_relative_to(source) for each in places), places)
    scripts = [each.name for each in distribution("cube-serving").entry_points]
    require(len(scripts) >= 7, scripts)
    for script in scripts:
        require("Example" in run(script, "--help"), f"{script} --help")
    rows = np.random.default_rng(1).normal(0, 0.05, (ROWS, DIM)).astype(np.float32)
    write_cluster()
    write_pass(rows)
    run("cube", "config")
    try:
        run("cube", "up", "--detach", f"--timeout_s={DEADLINE_S}")
        check_answers(rows)
    finally:
        print(run("cube", "down").strip())
    print(f"smoke: {len(scripts)} commands; a pass built, served, looked up and predicted")


if __name__ == "__main__":
    main()
