"""JSON bodies to protobuf bytes and back, by brpc's rules.

Field names are those of the .proto, bytes are base64, enums and 64-bit integers are numbers (read
from strings too), fields that the message does not have are ignored.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, EncodeError

from cube_core.errors import WireError

if TYPE_CHECKING:
    from google.protobuf.message import Message

_INT64_KINDS = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)


def request_from_json(message_class: type[Message], body: bytes) -> bytes:
    """The message that a JSON body stands for, serialized; no body is an empty message.

    Raises:
        WireError: no JSON object, or a field of another type or out of range (named).
    """
    message = message_class()
    try:
        fields = json.loads(body) if body.strip() else {}
        if not isinstance(fields, dict):
            raise ValueError("the body must be a JSON object")
        json_format.ParseDict(fields, message, ignore_unknown_fields=True)
        return message.SerializeToString()
    except (ValueError, RecursionError, json_format.ParseError, EncodeError) as error:
        name = message.DESCRIPTOR.full_name
        raise WireError(f"Fail to parse http body as {name}, {error}") from error


def response_to_json(message_class: type[Message], payload: bytes) -> bytes:
    """The JSON body for a serialized message."""
    message = message_class()
    try:
        message.ParseFromString(payload)
    except DecodeError as error:
        raise WireError(f"{message.DESCRIPTOR.full_name}: {error}") from error
    fields = json_format.MessageToDict(message, preserving_proto_field_name=True)
    _numbers(fields, message.DESCRIPTOR)
    return json.dumps(fields, separators=(",", ":")).encode()


def _numbers(fields: dict[str, Any], descriptor: Any) -> None:
    """Turns 64-bit integers, which protobuf's own mapping writes as strings, into numbers."""
    for name, value in fields.items():
        field = descriptor.fields_by_name[name]
        if field.cpp_type in _INT64_KINDS:
            fields[name] = [int(v) for v in value] if isinstance(value, list) else int(value)
        elif field.cpp_type == FieldDescriptor.CPPTYPE_MESSAGE:
            for message in value if isinstance(value, list) else [value]:
                _numbers(message, field.message_type)
