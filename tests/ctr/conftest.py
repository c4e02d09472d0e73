"""Models that every test of the predictor uses, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr_serving.engine import import_paddle
from tests.ctr.models import make_model, write_manifest


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Model directories by seed: model 1 of embedding version 1_1, model 2 of 2_2."""
    import_paddle()
    root = tmp_path_factory.mktemp("models")
    for seed in (1, 2):
        make_model(root / str(seed), seed)
        write_manifest(root / str(seed), f"{seed}_{seed}")
    return {seed: root / str(seed) for seed in (1, 2)}
