"""manifest.json of a dense model: which embedding it was trained with and what its inputs are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cube_core.errors import ControlError, ModelError
from cube_core.file_list import ListedFile, file_problem, first_problem
from cube_core.versions import Version

MANIFEST_NAME = "manifest.json"


class FusedModel(BaseModel):
    """The same network with all vectors of an instance in one input.

    Attributes:
        model: file names without their endings.
        input: name of the input float32[n, slots * embedding_dim], slot by slot.
        output: name of the output float32[n, 2].
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    model: str = Field(pattern=r"^[0-9A-Za-z_.\-]+$")
    input: str = Field(min_length=1)
    output: str = Field(min_length=1)


class Manifest(BaseModel):
    """What the exporter of a pass says of its dense model.

    Attributes:
        dict_name, version: the embedding that the model was trained with.
        slots, embedding_dim, dense_dim: shapes of the inputs.
            embedding_dim 0: the model takes no vectors, and instances may have ids all the same.
        sparse_inputs: name of the input of each slot, float32[n, embedding_dim]; none when the
            model takes no vectors.
        dense_input: name of the input float32[n, dense_dim].
        output: name of the output float32[n, 2].
        model: file names without their endings.
        files: what is checked before Paddle reads it, for Paddle takes flipped bits in weights as
            they come and may crash on a program; empty when the exporter lists none.
        mean_row: mean vector of the embedding, float[embedding_dim], for who wants it as the
            default of missing keys; empty when the exporter gives none.
        fused: run instead of `model` when there is one: copying 26 inputs costs some 40 µs a run.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[1]
    dict_name: str = ""
    version: str
    slots: int = Field(ge=0, le=4096)
    embedding_dim: int = Field(ge=0, le=16383)
    dense_dim: int = Field(ge=1, le=65536)
    sparse_inputs: tuple[str, ...] = ()
    dense_input: str
    output: str
    model: str = Field(pattern=r"^[0-9A-Za-z_.\-]+$")
    files: tuple[ListedFile, ...] = ()
    mean_row: tuple[float, ...] = ()
    fused: FusedModel | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Manifest:
        if len(self.sparse_inputs) != (self.slots if self.embedding_dim else 0):
            raise ValueError(
                f"sparse_inputs: {len(self.sparse_inputs)} names for {self.slots} slots of"
                f" embedding_dim={self.embedding_dim}"
            )
        if self.embedding_dim and not (self.slots and self.dict_name):
            raise ValueError("slots, dict_name: are needed by a model with embedding_dim")
        if self.fused is not None and not self.embedding_dim:
            raise ValueError("fused: is of no use to a model without embedding_dim")
        names = (*self.sparse_inputs, self.dense_input)
        if len(set(names)) != len(names):
            raise ValueError("sparse_inputs, dense_input: a name stands twice")
        if len(self.mean_row) not in (0, self.embedding_dim):
            raise ValueError(
                f"mean_row: {len(self.mean_row)} values for embedding_dim={self.embedding_dim}"
            )
        checked_version(self.version)
        return self


def read_manifest(model_directory: Path) -> Manifest:
    """Reads `manifest.json` of a model directory.

    Raises:
        ModelError: it cannot be read or is malformed; names file and field.
    """
    path = model_directory / MANIFEST_NAME
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ModelError(f"{path}: {first_problem(error)}") from error


def checked_version(version: str) -> Version:
    """Raises ValueError for what is no "<base>_<version>"."""
    try:
        return Version.parse(version)
    except ControlError as error:
        raise ValueError(str(error)) from error


def check_files(model_directory: Path, files: Sequence[ListedFile]) -> None:
    """Compares files with what the manifest says of them.

    Raises:
        ModelError: a file is missing, or of another size or checksum; names it.
    """
    for file in files:
        path = model_directory / file.name
        try:
            problem = file_problem(path, file)
        except OSError as error:
            raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
        if problem:
            raise ModelError(f"{path}: {problem}")
