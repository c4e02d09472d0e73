"""`manifest.json` of a dense model: which embedding version it was trained with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cube_core.errors import DeployError, ModelError
from cube_core.file_list import ListedFile, file_problem, first_problem

DENSE_MANIFEST_NAME = "manifest.json"
FLUID_PROGRAM = "__model__"
"""The program of a model of Paddle's fluid age, whose parameters have names of their own."""
_MODEL_SUFFIXES = (".json", ".pdmodel")


class DictUse(BaseModel):
    """A dict that the model takes vectors of; `version` "" is that of the model."""

    model_config = ConfigDict(extra="ignore")

    dim: Annotated[int, Field(ge=1)]
    version: str = ""


class DenseManifest(BaseModel):
    """What the deployment needs of it; the predictor reads the rest.

    Format 1 names its one dict by `dict_name` and `embedding_dim`, format 2 all of them in `dicts`.
    """

    model_config = ConfigDict(extra="ignore")

    dict_name: str = ""
    version: Annotated[str, Field(min_length=1)]
    embedding_dim: Annotated[int, Field(ge=0)] = 0
    dicts: dict[str, DictUse] = {}
    model: Annotated[str, Field(pattern=r"^[0-9A-Za-z_\-][0-9A-Za-z_.\-]*$")]
    files: tuple[ListedFile, ...] = ()
    """What is to be checked; empty when the trainer lists none."""

    def use_of(self, dict_name: str) -> DictUse | None:
        """How it takes vectors of a dict, the version said; None when it takes none of it."""
        use = self.dicts.get(dict_name)
        if use is not None:
            return DictUse(dim=use.dim, version=use.version or self.version)
        if self.dict_name != dict_name or not self.embedding_dim:
            return None
        return DictUse(dim=self.embedding_dim, version=self.version)


def parse_dense_manifest(data: bytes, where: str) -> DenseManifest:
    """Reads the JSON.

    Raises:
        ModelError: names `where` and the field.
    """
    try:
        return DenseManifest.model_validate_json(data)
    except ValidationError as error:
        raise ModelError(f"{where}: {first_problem(error)}") from error


def relabel_dense(model: Path, target: Path, dict_name: str, version: str) -> None:
    """Copies a model to `target` as that of another version of the dict: a patch that changes
    embeddings alone is served with the network of what it is laid over, whose seeks must ask for
    the patch. Of other dicts they go on asking for what they did.

    Raises:
        ModelError: `model` has no manifest that can be read.
        OSError: it cannot be copied.
    """
    name = f"{model}/{DENSE_MANIFEST_NAME}"
    data = (model / DENSE_MANIFEST_NAME).read_bytes()
    manifest = parse_dense_manifest(data, name)
    part = target.with_name(f"{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(model, part)
    fields = {**json.loads(data), "version": version}
    for other, use in fields.get("dicts", {}).items():
        use["version"] = use.get("version") or manifest.version
        if other == dict_name:
            use["version"] = version
    (part / DENSE_MANIFEST_NAME).write_text(json.dumps(fields), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)


def check_dense(
    directory: Path, *, dict_name: str, version: str, value_bytes: int | None, where: str
) -> None:
    """Checks that the model in `directory` belongs to the pass.

    Args:
        value_bytes: width of the pass's embedding rows, float32; None when not known yet, 0 when it
            is variable.
        where: location to name in errors.

    Raises:
        ModelError: another dict, version or width, or a file of the model is missing.
        DeployError: a file is not what the manifest says.
    """
    name = f"{where}/{DENSE_MANIFEST_NAME}"
    try:
        data = (directory / DENSE_MANIFEST_NAME).read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"{name}: is missing") from error
    manifest = parse_dense_manifest(data, name)
    use = manifest.use_of(dict_name)
    if use is None:
        named = ", ".join(manifest.dicts) or manifest.dict_name or "none"
        raise ModelError(f"{name}: dict_name is {named}, but the pass is {dict_name}")
    if use.version != version:
        raise ModelError(f"{name}: version is {use.version}, but the pass is {version}")
    if value_bytes is not None and use.dim * 4 != value_bytes:
        raise ModelError(
            f"{name}: embedding_dim is {use.dim} float32, but the values of the pass are "
            f"{value_bytes} bytes"
        )
    for expected_file in manifest.files:
        path = directory / expected_file.name
        if not path.is_file():
            raise ModelError(f"{where}: {path.name} is missing; {DENSE_MANIFEST_NAME} lists it")
        problem = file_problem(path, expected_file)
        if problem:
            raise DeployError(f"{where}/{path.name}: {problem}")
    if manifest.model == FLUID_PROGRAM:
        if not (directory / FLUID_PROGRAM).is_file():
            raise ModelError(f"{where}: {FLUID_PROGRAM} is missing")
        return
    if not any((directory / f"{manifest.model}{suffix}").is_file() for suffix in _MODEL_SUFFIXES):
        raise ModelError(f"{where}: neither {manifest.model}.json nor {manifest.model}.pdmodel")
    if not (directory / f"{manifest.model}.pdiparams").is_file():
        raise ModelError(f"{where}: {manifest.model}.pdiparams is missing")
