"""The example as the demo runs it: `python -m examples.criteo_ctr.demo --model=deepfm`."""

from __future__ import annotations

from pathlib import Path

from examples.criteo_ctr.example import Example
from examples.criteo_ctr.run_directory import Ports
from examples.deepfm_ctr.export import export_pass
from examples.deepfm_ctr.network import DeepFm

DEEPFM = Example(
    DeepFm,
    export_pass,
    conf_dir=Path(__file__).parent / "conf",
    ports=Ports(cube=(8001, 8002, 8003), cube_grpc=(9001, 9002, 9003), transfer=(8098, 8099)),
    transfer_confs=("transfer-embedding.conf", "transfer-first-order.conf"),
    ctr_flags=("--workflow_file=conf/workflow.prototxt",),
)
