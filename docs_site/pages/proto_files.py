"""Reads `.proto` files with their comments, through protoc."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet

_LABELS = {
    FieldDescriptorProto.LABEL_OPTIONAL: "optional",
    FieldDescriptorProto.LABEL_REQUIRED: "required",
    FieldDescriptorProto.LABEL_REPEATED: "repeated",
}
# Numbers of the fields of a FileDescriptorProto and a DescriptorProto, of which paths consist.
_MESSAGES, _FIELDS, _NESTED = 4, 2, 3
_SYNTAX = 12


@dataclass(frozen=True)
class MessageField:
    number: int
    name: str
    label: str
    type: str
    default: str
    comment: str


@dataclass(frozen=True)
class Message:
    name: str
    comment: str
    fields: tuple[MessageField, ...]


@dataclass(frozen=True)
class ProtoFile:
    """One file; `services` has (method, request, response) by the name of the service."""

    name: str
    package: str
    syntax: str
    comment: str
    messages: tuple[Message, ...]
    services: dict[str, list[tuple[str, str, str]]]

    def message(self, name: str) -> Message:
        return next(each for each in self.messages if each.name == name)


@functools.cache
def read_proto_files(directory: Path) -> Mapping[str, ProtoFile]:
    """The files of a directory, by name."""
    paths = sorted(directory.glob("*.proto"))
    with tempfile.TemporaryDirectory() as made:
        output = Path(made) / "files.pb"
        arguments = [f"-I{directory}", "--include_source_info", f"--descriptor_set_out={output}"]
        # Not in this process: Paddle, imported after it, would end that.
        command = [sys.executable, "-m", "grpc_tools.protoc", *arguments, *map(str, paths)]
        if subprocess.run(command, check=False).returncode != 0:  # noqa: S603
            raise ValueError(f"{directory}: protoc refuses a file, see above")
        descriptors = FileDescriptorSet.FromString(output.read_bytes())
    return {each.name: _file(each) for each in descriptors.file}


def _file(file: Any) -> ProtoFile:
    comments: dict[tuple[int, ...], str] = {}
    for place in file.source_code_info.location:
        text = place.leading_comments or place.trailing_comments
        # What stands above `syntax` is said of the file.
        if tuple(place.path) == (_SYNTAX,):
            text = "".join((*place.leading_detached_comments, place.leading_comments))
        comments[tuple(place.path)] = text.strip()
    messages: list[Message] = []
    for index, message in enumerate(file.message_type):
        messages += _messages(message, (_MESSAGES, index), comments)
    services = {
        service.name: [
            (method.name, _short(method.input_type), _short(method.output_type))
            for method in service.method
        ]
        for service in file.service
    }
    return ProtoFile(
        file.name,
        file.package,
        file.syntax or "proto2",
        comments.get((_SYNTAX,), ""),
        tuple(messages),
        services,
    )


def _messages(
    message: Any, path: tuple[int, ...], comments: dict[tuple[int, ...], str]
) -> list[Message]:
    found = [
        Message(
            message.name,
            comments.get(path, ""),
            tuple(
                _field(field, comments.get((*path, _FIELDS, index), ""), message)
                for index, field in enumerate(message.field)
            ),
        )
    ]
    for index, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            found += _messages(nested, (*path, _NESTED, index), comments)
    return found


def _field(field: Any, comment: str, message: Any) -> MessageField:
    kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    label = _LABELS[field.label]
    if field.type_name:
        kind = _short(field.type_name)
        entry = [each for each in message.nested_type if each.name == kind]
        if entry and entry[0].options.map_entry:
            kind, label = "map<string, string>", ""
        for enum in message.enum_type:
            if enum.name == kind:
                kind = ", ".join(value.name for value in enum.value)
    return MessageField(field.number, field.name, label, kind, field.default_value, comment)


def _short(type_name: str) -> str:
    return type_name.rpartition(".")[2]
