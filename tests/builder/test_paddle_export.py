"""Paddle embeddings to passes; the files are written by Paddle itself."""

from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cube_builder import append_pass, build, export_rows, load_embedding
from cube_core._native import SequenceFileReader, crc32c_file
from cube_core.errors import BuildError
from tests.builder.passes import job, tables_of, tree

ROWS: NDArray[np.float32] = np.arange(21, dtype=np.float32).reshape(7, 3) / np.float32(4)


@pytest.fixture(scope="module")
def paddle() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import paddle

        return paddle


@pytest.fixture
def embedding(paddle: Any) -> Any:
    layer = paddle.nn.Embedding(7, 3)
    layer.weight.set_value(ROWS)
    return layer


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_reads_a_state_dict(tmp_path: Path, paddle: Any, embedding: Any, protocol: int) -> None:
    path = tmp_path / "model.pdparams"
    paddle.save(embedding.state_dict(), str(path), protocol=protocol)
    np.testing.assert_array_equal(load_embedding(path), ROWS)
    np.testing.assert_array_equal(load_embedding(path, "weight"), ROWS)


def test_chooses_the_entry(tmp_path: Path, paddle: Any, embedding: Any) -> None:
    path = tmp_path / "model.pdparams"
    saved = {
        "emb": embedding.weight,
        "other": embedding.weight * 2,
        "bias": paddle.zeros([3]),
        "half": embedding.weight.astype("float16"),
        "step": 5,
    }
    paddle.save(saved, str(path))
    np.testing.assert_array_equal(load_embedding(path, "other"), ROWS * 2)
    with pytest.raises(BuildError, match="2 float32 matrices, so name one with --entry; it has"):
        load_embedding(path)
    with pytest.raises(BuildError, match=r"no entry 'nope'; it has 'emb' float32\[7, 3\], 'other'"):
        load_embedding(path, "nope")
    for entry in ("bias", "half"):
        with pytest.raises(BuildError, match=f"entry '{entry}': .* is no float32 matrix"):
            load_embedding(path, entry)


def test_reads_a_bare_tensor(tmp_path: Path, paddle: Any, embedding: Any) -> None:
    paddle.save(embedding.weight, str(tmp_path / "w.pdparams"))
    np.testing.assert_array_equal(load_embedding(tmp_path / "w.pdparams"), ROWS)


def test_reads_a_variable_of_a_static_program(tmp_path: Path, paddle: Any) -> None:
    path = tmp_path / "SparseFeatFactors"
    paddle.enable_static()
    try:
        main, startup = paddle.static.Program(), paddle.static.Program()
        with paddle.static.program_guard(main, startup):
            paddle.static.create_parameter(
                [7, 3],
                "float32",
                name="SparseFeatFactors",
                default_initializer=paddle.nn.initializer.Assign(ROWS),
            )
        scope = paddle.static.Scope()
        with paddle.static.scope_guard(scope):
            paddle.static.Executor().run(startup)
            tensor = scope.find_var("SparseFeatFactors").get_tensor()
            paddle.save(tensor, str(path), use_binary_format=True)
    finally:
        paddle.disable_static()
    rows = load_embedding(path)
    np.testing.assert_array_equal(rows, ROWS)
    with pytest.raises(BuildError, match="holds a single variable"):
        load_embedding(path, "SparseFeatFactors")


def variable(dims: list[int], data: bytes, data_type: int = 5) -> bytes:
    """A variable as Paddle writes it, by hand; dims below 128."""
    description = bytes([0x08, data_type]) + b"".join(bytes([0x10, size]) for size in dims)
    return struct.pack("<IQIi", 0, 0, 0, len(description)) + description + data


def test_the_hand_made_variable_is_that_of_paddle(
    tmp_path: Path, paddle: Any, embedding: Any
) -> None:
    paddle.save(embedding.weight, str(tmp_path / "w"), use_binary_format=True)
    assert (tmp_path / "w").read_bytes() == variable([7, 3], ROWS.tobytes())


WHOLE = variable([7, 3], ROWS.tobytes())


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "ends inside the header of a tensor"),
        (b"\x01" + WHOLE[1:], r"version 1 \(offset 0\)"),
        (WHOLE[:4] + b"\xff" * 8 + WHOLE[12:], "levels of detail"),
        (WHOLE[:12] + b"\x02" + WHOLE[13:], r"version 2 \(offset 12\)"),
        (WHOLE[:16] + b"\xff" * 4 + WHOLE[20:], "a description of -1 bytes"),
        (WHOLE[:20] + b"\xff" * 6 + WHOLE[26:], "description at offset 20 does not parse"),
        (variable([7, 3], ROWS.tobytes(), data_type=6), "data type 6; only float32"),
        (variable([7, 0], b""), "dimension below 1"),
        (variable([21], ROWS.tobytes()), r"float32\[21\] is no float32 matrix"),
        (WHOLE + b"x", "holds several variables"),
    ],
)
def test_a_malformed_variable_is_refused(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "variable"
    path.write_bytes(content)
    with pytest.raises(BuildError, match=problem):
        load_embedding(path)


def test_a_variable_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "variable"
    for size in range(len(WHOLE)):
        path.write_bytes(WHOLE[:size])
        with pytest.raises(BuildError, match="variable"):
            load_embedding(path)


class Hostile:
    def __init__(self, *call: Any) -> None:
        self._call = call

    def __reduce__(self) -> Any:
        function, *arguments = self._call
        return function, tuple(arguments)


@pytest.mark.parametrize("function", [print, eval, exec, np.fromstring, io.open])
def test_a_pickle_that_calls_is_refused(tmp_path: Path, function: Any) -> None:
    path = tmp_path / "model.pdparams"
    made = tmp_path / "made"
    path.write_bytes(pickle.dumps({"w": ROWS, "x": Hostile(function, str(made), "w")}))
    with pytest.raises(BuildError, match="is refused"):
        load_embedding(path)
    assert not made.exists()


def test_arrays_that_are_no_plain_numbers_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.pdparams"
    strange: list[NDArray[Any]] = [
        np.array([[1, "x"]], dtype=object),
        np.zeros((1, 2), dtype=[("a", "f4")]),
        np.array([["text"]]),
    ]
    for array in strange:
        path.write_bytes(pickle.dumps({"w": array}, protocol=4))
        with pytest.raises(BuildError, match="malformed array"):
            load_embedding(path)


def test_a_damaged_pickle_is_refused_or_read(tmp_path: Path, paddle: Any, embedding: Any) -> None:
    path = tmp_path / "model.pdparams"
    paddle.save(embedding.state_dict(), str(path))
    whole = path.read_bytes()
    assert whole[:1] == b"\x80"
    for position in range(1, len(whole)):
        path.write_bytes(whole[:position])
        with pytest.raises(BuildError):
            load_embedding(path)
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        try:
            rows = load_embedding(path)
        except BuildError:
            continue
        assert rows.dtype == np.float32


@pytest.mark.parametrize("dialect", ["hadoop", "paddle"])
@pytest.mark.parametrize("rows_per_file", [1, 3, 7, 100])
def test_exports_parts_and_manifest(tmp_path: Path, dialect: str, rows_per_file: int) -> None:
    directory = tmp_path / "10/embedding"
    told: list[int] = []
    parts = export_rows(
        ROWS, directory, dialect=dialect, rows_per_file=rows_per_file, on_rows=told.append
    )
    assert [part.name for part in parts] == [f"part-{n:05d}" for n in range(-(-7 // rows_per_file))]
    assert tree(directory) == ["_manifest.json", *(part.name for part in parts)]
    assert told[-1] == 7
    manifest = json.loads((directory / "_manifest.json").read_text())
    assert manifest["files"] == [
        {"name": part.name, "size": part.stat().st_size, "crc32c": crc32c_file(str(part))}
        for part in parts
    ]
    keys: list[int] = []
    for part in parts:
        reader = SequenceFileReader(str(part))
        assert reader.dialect == dialect
        part_keys, part_values = reader.read(1000)
        np.testing.assert_array_equal(part_values.view(np.float32), ROWS[part_keys.astype(int)])
        keys += part_keys.tolist()
    assert keys == list(range(7))


def test_an_export_builds(tmp_path: Path) -> None:
    export_rows(ROWS, tmp_path / "pass", rows_per_file=3)
    made = job(tmp_path)
    tables = tables_of(made, build(made))
    merged = {**tables[0][1], **tables[1][1]}
    assert merged == {key: row.tobytes() for key, row in enumerate(ROWS)}


def test_an_export_replaces_only_an_export(tmp_path: Path) -> None:
    directory = tmp_path / "embedding"
    export_rows(ROWS, directory, rows_per_file=1)
    export_rows(ROWS[:2], directory)
    assert tree(directory) == ["_manifest.json", "part-00000"]
    (directory / "_manifest.json").unlink()
    with pytest.raises(BuildError, match="exists and is no export"):
        export_rows(ROWS, directory)
    assert tree(directory) == ["part-00000"]


@pytest.mark.parametrize(
    ("rows", "options", "problem"),
    [
        (ROWS[:0], {}, "no float32 matrix"),
        (ROWS.astype(np.float64), {}, "no float32 matrix"),
        (np.zeros((1, 16_384), np.float32), {}, "rows of 16384 elements"),
        (ROWS, {"rows_per_file": 0}, "rows_per_file 0"),
        (ROWS, {"dialect": "avro"}, "dialect 'avro'"),
    ],
)
def test_rows_that_make_no_pass_are_refused(
    tmp_path: Path, rows: Any, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(BuildError, match=problem):
        export_rows(rows, tmp_path / "deep/embedding", **options)
    assert tree(tmp_path) == []


def test_donefile_lines(tmp_path: Path) -> None:
    donefile = tmp_path / "donefile/base.txt"
    append_pass(donefile, "10", tmp_path / "10/embedding", tmp_path / "10/dense")
    append_pass(donefile, "10", tmp_path / "10/embedding", tmp_path / "10/dense")
    donefile.write_bytes(donefile.read_bytes() + b"half a li")
    append_pass(donefile, "11", tmp_path / "11/embedding")
    first, broken, second = donefile.read_text().splitlines()
    assert json.loads(first) == {
        "id": "10",
        "key": "10",
        "input": str(tmp_path / "10/embedding"),
        "dense": str(tmp_path / "10/dense"),
    }
    assert broken == "half a li"
    assert json.loads(second) == {"id": "11", "key": "11", "input": str(tmp_path / "11/embedding")}
    with pytest.raises(BuildError, match=r"base.txt:1: has id '10' already"):
        append_pass(donefile, "10", tmp_path / "elsewhere")
