"""Every field of every configuration file is in the documentation, and no other."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from docs_site.pages.fields import MESSAGES, MODELS, field_names, fields_page
from docs_site.pages.proto_files import read_proto_files
from tests.docs.pages import ROOT, names, page, section, tables

# What a page says of a file, where the page is about more.
_SECTIONS = {
    "transfer.conf": "transfer.conf",
    "manifest.json": "The model directory",
    "manifest.json, format 2": "The model directory, format 2",
    "model_toolkit.prototxt": "model_toolkit.prototxt",
    "predictors.prototxt": "predictors.prototxt",
    "workflow.prototxt, service.prototxt": "workflow.prototxt",
}
# Told by the column beside it, or of other files.
_NOT_FIELDS = {"agent…", "mean_row", "rpc_parameter.protocol"}


def text_of(file: str, place: str) -> str:
    text = page("reference/" + place.partition("#")[0])
    return section(text, _SECTIONS[file]) if file in _SECTIONS else text


def fields_of(file: str) -> set[str]:
    if file in MODELS:
        models = MODELS[file][1].values()
        return {name for model in models for name in field_names(file, model)}
    _, proto, messages = MESSAGES[file]
    read = read_proto_files(ROOT / "proto")[proto]
    return {field.name for name in messages.values() for field in read.message(name).fields}


@pytest.mark.parametrize("file", sorted(MODELS))
def test_the_page_of_a_file_has_every_field(file: str) -> None:
    text = text_of(file, MODELS[file][0])
    missing = {
        name for name in fields_of(file) if not re.search(rf"`([\w]+\.)?{name}\b|\"{name}\"", text)
    }
    assert not missing


@pytest.mark.parametrize("file", sorted({*MODELS, *MESSAGES}))
def test_no_field_is_made_up(file: str) -> None:
    place = MODELS[file][0] if file in MODELS else MESSAGES[file][0]
    found = 0
    for head, *rows in tables(text_of(file, place)):
        if not head[0].startswith("field"):
            continue
        for row in rows:
            told = {name.partition(" ")[0].rpartition(".")[2] for name in names(row[0])}
            assert told <= fields_of(file) | _NOT_FIELDS, row
            found += len(told)
    # One that shows its fields in an example has no table of them.
    assert found or file.endswith("manifest.json")


def nested_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for info in annotation.model_fields.values():
            yield from nested_models(info.annotation)
    for argument in typing.get_args(annotation):
        yield from nested_models(argument)


def test_no_block_of_cluster_yml_is_left_out() -> None:
    known = set(MODELS["cluster.yml"][1].values())
    assert set(nested_models(MODELS["cluster.yml"][1]["the top"])) <= known


def test_the_page_of_all_fields_is_complete() -> None:
    text = fields_page()
    for file in (*MODELS, *MESSAGES):
        assert f"## {file}\n" in text
        for name in fields_of(file):
            assert f"| `{name}` |" in text, (file, name)
    assert "| `shards` | integer, from 1, to 65535 | needed |" in text
