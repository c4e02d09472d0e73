"""Parameters that were cut off or damaged do not get as far as Paddle."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctr_serving.weights import check_weights
from cube_core.errors import ModelError


@pytest.fixture
def weights(models: dict[int, Path]) -> Path:
    return models[1] / "model.pdiparams"


def test_whole_files_pass(weights: Path, tmp_path: Path) -> None:
    assert check_weights(weights) > 2
    (tmp_path / "none").touch()
    assert check_weights(tmp_path / "none") == 0


def problem_of(path: Path) -> str:
    try:
        check_weights(path)
    except ModelError as error:
        return str(error)
    return ""


def test_every_cut_within_a_tensor_is_refused(weights: Path, tmp_path: Path) -> None:
    content = weights.read_bytes()
    path = tmp_path / "weights"
    problems = []
    for size in range(1, len(content), 7):
        path.write_bytes(content[:size])
        problems.append(problem_of(path))
    refused = [problem for problem in problems if problem]
    assert all(problem.startswith(f"{path}: ") for problem in refused)
    # Between two tensors a file can end well; the manifest's checksums tell that.
    assert len(problems) - len(refused) < 10


@pytest.mark.parametrize(
    ("offset", "problem"),
    [
        (0, "only 0 is supported"),
        (4, "levels of detail"),
        (12, "only 0 is supported"),
        (16, "a description of 213"),
    ],
)
def test_what_is_no_tensor_is_told(
    weights: Path, tmp_path: Path, offset: int, problem: str
) -> None:
    content = bytearray(weights.read_bytes())
    content[offset + 3] = 0x7F
    path = tmp_path / "weights"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=problem):
        check_weights(path)
