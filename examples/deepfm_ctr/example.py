"""The example as the demo runs it: `python -m examples.criteo_ctr.demo --model=deepfm`."""

from __future__ import annotations

from pathlib import Path

from examples.criteo_ctr.example import Example
from examples.deepfm_ctr.export import export_pass
from examples.deepfm_ctr.network import DeepFm

DEEPFM = Example(DeepFm, export_pass, conf_dir=Path(__file__).parent / "conf")
