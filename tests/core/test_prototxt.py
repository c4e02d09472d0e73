"""Prototxt files of Paddle Serving: its files parse, damaged ones are refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cube_core.conf.prototxt import read_model_toolkit, read_predictors
from cube_core.errors import ConfError

CONF = Path(__file__).parents[2] / "conf"
ENGINE = """engines {
  name: "ctr_prediction"
  type: "FLUID_CPU_ANALYSIS_DIR"
  reloadable_meta: "./data/fluid_time_file"
  reloadable_type: "timestamp_ne"
  model_data_path: "./data/model"
  runtime_thread_num: 4
  batch_infer_size: 32
  enable_batch_align: 0
  sparse_param_service_type: REMOTE
  sparse_param_service_table_name: "dict"
}
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "some.prototxt"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_sample_files_are_valid() -> None:
    engines = read_model_toolkit(CONF / "model_toolkit.prototxt").engines
    assert [engine.name for engine in engines] == ["ctr_prediction"]
    predictors = read_predictors(CONF / "predictors.prototxt").predictors
    assert predictors[0].variants[0].naming_conf.cluster == "list://127.0.0.1:8010"


def test_an_engine_of_the_original(tmp_path: Path) -> None:
    engine = read_model_toolkit(write(tmp_path, ENGINE)).engines[0]
    assert engine.sparse_param_service_type == engine.REMOTE
    assert engine.sparse_param_service_table_name == "dict"
    assert engine.default_embedding_value == 0


def test_tuning_of_the_originals_runtime_is_accepted(tmp_path: Path) -> None:
    tuning = """
      use_gpu: false gpu_memory_mb: 100 use_trt: false trt_workspace_size: 33554432
      min_input_shape { key: "x" value: "1 3" } enable_dist_model: false use_ipu: false
      cpu_math_thread_num: 1 enable_overrun: false allow_split_request: true
    }
    """
    text = tuning.join(ENGINE.rsplit("}", 1))
    engine = read_model_toolkit(write(tmp_path, text)).engines[0]
    assert engine.min_input_shape == {"x": "1 3"}


def test_model_dir_stands_for_model_data_path(tmp_path: Path) -> None:
    text = ENGINE.replace("model_data_path", "model_dir")
    assert read_model_toolkit(write(tmp_path, text)).engines[0].model_dir == "./data/model"


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ('  name: "ctr_prediction"\n', "", "engines[0].name: is missing"),
        ('  model_data_path: "./data/model"\n', "", "engines[0].model_data_path: is missing"),
        ("runtime_thread_num: 4", "runtime_thread_num: many", ":7: "),
        ("sparse_param_service_type: REMOTE", "sparse_param_service_type: FAR", "FAR"),
        ("batch_infer_size", "batch_infre_size", "batch_infre_size"),
        ("engines {", "engines ", ":2: "),
        (ENGINE, "", "engines: at least one engine is needed"),
        ('"ctr_prediction"', r'"\377"', "Couldn't parse string"),
    ],
)
def test_names_what_is_wrong_in_a_model_toolkit(
    tmp_path: Path, before: str, after: str, problem: str
) -> None:
    assert before in ENGINE
    path = write(tmp_path, ENGINE.replace(before, after, 1))
    with pytest.raises(ConfError) as raised:
        read_model_toolkit(path)
    assert str(raised.value).startswith(str(path))
    assert problem in str(raised.value)


def test_names_what_is_missing_in_predictors(tmp_path: Path) -> None:
    text = (CONF / "predictors.prototxt").read_text()
    path = write(tmp_path, text.replace('  endpoint_router: "WeightedRandomRender"\n', ""))
    with pytest.raises(ConfError, match=r"predictors\[0\]\.endpoint_router: is missing"):
        read_predictors(path)


@pytest.mark.parametrize("read", [read_model_toolkit, read_predictors])
def test_a_file_that_is_not_there(tmp_path: Path, read: Callable[[Path], Message]) -> None:
    with pytest.raises(ConfError, match="cannot be read"):
        read(tmp_path / "none.prototxt")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(at=st.integers(0, len(ENGINE)), piece=st.text(max_size=8), dropped_chars=st.integers(0, 20))
def test_any_damage_is_taken_or_refused_with_the_file_named(
    tmp_path: Path, at: int, piece: str, dropped_chars: int
) -> None:
    path = tmp_path / "some.prototxt"
    damaged = ENGINE[:at] + piece + ENGINE[at + dropped_chars :]
    path.write_bytes(damaged.encode("utf-8", errors="surrogatepass"))
    try:
        conf = read_model_toolkit(path)
    except ConfError as error:
        refusal = str(error)
    else:
        assert conf.IsInitialized()
        return
    assert str(path) in refusal
