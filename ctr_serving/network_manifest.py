"""manifest.json of a model for general ops: which vectors go into which input, from which dict.

Format 2 says it slot by slot; format 1, of the 26-slot op, is read as one configuration of it.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ctr_serving.manifest import MANIFEST_NAME, Manifest, checked_version
from ctr_serving.predictor import FLUID_PROGRAM
from cube_core.errors import ModelError
from cube_core.file_list import ListedFile, first_problem


class DictUse(BaseModel):
    """A dict that the model was trained with.

    Attributes:
        dim: floats of a vector.
        version: "" is that of the model.
        mean_row: float[dim], for missing keys of kind MEAN.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    dim: int = Field(ge=1, le=16383)
    version: str = ""
    mean_row: tuple[float, ...] = ()


class Lookup(BaseModel):
    """The vectors of one slot, on their way into an input.

    Attributes:
        slot: of the request, from 0.
        dict_name: where its ids are looked up.
        input: where the vectors go; side by side, in this order, when it has several lookups.
        pooling: of several vectors; "sequence" leaves it to the model, as a LoD tensor.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    slot: int = Field(ge=0)
    dict_name: str = Field(alias="dict", min_length=1)
    input: str = Field(min_length=1)
    pooling: Literal["sum", "mean", "sequence"] = "sum"


class IdsInput(BaseModel):
    """The ids of one slot as they are, int64[m, 1] as a LoD tensor: the table is in the model."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    slot: int = Field(ge=0)
    input: str = Field(min_length=1)


class OtherInput(BaseModel):
    """An input that an op of one's own fills: [n, *shape]."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    name: str = Field(min_length=1)
    shape: tuple[int, ...] = ()
    dtype: Literal["float32", "int64", "int32"] = "float32"


class NetworkManifest(BaseModel):
    """What the exporter says of a model for general ops.

    Attributes:
        version: "<base>_<version>" of the pass.
        slots, dense_dim: of an instance.
        dicts: by name.
        lookups, ids, inputs, dense_input: together all inputs of the model.
        outputs: names of what `run` returns, each [n, …].
        model: file names without their endings, or "__model__".
        files: what is checked before Paddle reads it.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    format: Literal[2] = 2
    version: str
    slots: int = Field(default=0, ge=0, le=4096)
    dense_dim: int = Field(default=0, ge=0, le=65536)
    dicts: dict[str, DictUse] = Field(default_factory=dict)
    lookups: tuple[Lookup, ...] = ()
    ids: tuple[IdsInput, ...] = ()
    inputs: tuple[OtherInput, ...] = ()
    dense_input: str = ""
    outputs: tuple[str, ...] = Field(min_length=1)
    model: str = Field(default="model", pattern=r"^[0-9A-Za-z_.\-]+$")
    files: tuple[ListedFile, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> NetworkManifest:
        checked_version(self.version)
        for name, use in self.dicts.items():
            checked_version(use.version or self.version)
            if len(use.mean_row) not in (0, use.dim):
                raise ValueError(f"dicts.{name}.mean_row: is not {use.dim} floats long")
        for index, lookup in enumerate(self.lookups):
            if lookup.dict_name not in self.dicts:
                raise ValueError(f"lookups.{index}.dict: {lookup.dict_name!r} is not in dicts")
        uses: list[tuple[int, Lookup | IdsInput]] = [*enumerate(self.lookups), *enumerate(self.ids)]
        for index, each in uses:
            if each.slot >= self.slots:
                field = "lookups" if isinstance(each, Lookup) else "ids"
                raise ValueError(f"{field}.{index}.slot: is {each.slot}, slots={self.slots}")
        self._check_inputs()
        return self

    def _check_inputs(self) -> None:
        alone = [each.input for each in self.ids] + [each.name for each in self.inputs]
        alone += [self.dense_input] if self.dense_input else []
        sequences = [each.input for each in self.lookups if each.pooling == "sequence"]
        pooled = {each.input for each in self.lookups if each.pooling != "sequence"}
        names = [*alone, *sequences, *pooled]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"input {twice!r}: is filled twice; only pooled lookups may share one")
        if bool(self.dense_input) != bool(self.dense_dim):
            raise ValueError("dense_input, dense_dim: one stands without the other")

    @cached_property
    def whole_inputs(self) -> dict[str, tuple[tuple[int, Lookup], ...]]:
        """The numbered lookups of every dict whose vectors all go to one input that takes no
        others."""
        inputs = {
            name: {each.input for each in self.lookups if each.dict_name == name}
            for name in self.dicts
        }
        whole = {}
        for name, names in inputs.items():
            into = [each for each in enumerate(self.lookups) if each[1].input in names]
            is_alone = all(
                each.dict_name == name and each.pooling != "sequence" for _, each in into
            )
            if len(names) == 1 and is_alone:
                whole[name] = tuple(into)
        return whole

    def version_of(self, dict_name: str) -> str:
        """The version that seeks of a dict pin."""
        return self.dicts[dict_name].version or self.version


def read_network_manifest(model_directory: Path) -> NetworkManifest:
    """Reads `manifest.json` of a model directory, in format 2 or 1.

    Raises:
        ModelError: it cannot be read or is malformed; names file and field.
    """
    path = model_directory / MANIFEST_NAME
    try:
        content = path.read_bytes()
        fields = json.loads(content)
        if isinstance(fields, dict) and fields.get("format") == 1:
            return _of_format_1(Manifest.model_validate_json(content))
        return NetworkManifest.model_validate_json(content)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from error
    except ValidationError as error:
        raise ModelError(f"{path}: {first_problem(error)}") from error
    except ValueError as error:
        raise ModelError(f"{path}: is no JSON: {error}") from error


def _of_format_1(manifest: Manifest) -> NetworkManifest:
    fused = manifest.fused
    inputs = manifest.sparse_inputs if fused is None else (fused.input,) * manifest.slots
    model = manifest.model if fused is None else fused.model
    return NetworkManifest(
        version=manifest.version,
        slots=manifest.slots,
        dense_dim=manifest.dense_dim,
        dicts=(
            {manifest.dict_name: DictUse(dim=manifest.embedding_dim, mean_row=manifest.mean_row)}
            if inputs
            else {}
        ),
        lookups=tuple(
            Lookup(
                slot=slot,
                dict=manifest.dict_name,
                input=name,
                pooling="sequence" if model == FLUID_PROGRAM else "sum",
            )
            for slot, name in enumerate(inputs)
        ),
        dense_input=manifest.dense_input,
        outputs=(manifest.output if fused is None else fused.output,),
        model=model,
        files=manifest.files,
    )
