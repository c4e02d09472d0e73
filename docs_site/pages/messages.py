"""The protobuf messages and services, from `proto/` with its comments."""

from __future__ import annotations

from pathlib import Path

from docs_site.pages.markdown import code, plain, table
from docs_site.pages.proto_files import Message, ProtoFile, read_proto_files

_WIRE = ("dict.proto", "control.proto", "ctr_prediction.proto", "baidu_rpc_meta.proto")
_HEAD = """# Messages

What travels between the roles and their clients, over gRPC, over baidu_std and, as JSON, over HTTP;
this page is made of the files in `proto/`. gRPC servers have reflection, so that `grpcurl` and its
like need no files.

A baidu_std frame: the bytes `PRPC`, the length of meta, payload and attachment together as u32
big-endian, the length of the meta as u32 big-endian, then meta (`RpcMeta`), payload, attachment.
"""


def messages_page() -> str:
    files = read_proto_files(Path(__file__).parents[2] / "proto")
    return "\n".join([_HEAD, *(_file_section(files[name]) for name in _WIRE)])


def _file_section(file: ProtoFile) -> str:
    parts = [
        f"## {file.name}\n",
        f"Package `{file.package}`, {file.syntax}. {plain(file.comment)}\n",
    ]
    for service, methods in file.services.items():
        rows = [
            (code(f"{service}.{name}"), code(request), code(response))
            for name, request, response in methods
        ]
        parts.append(table(("method", "takes", "answers"), rows))
    parts += [message_section(message) for message in file.messages]
    return "\n".join(parts)


def message_section(message: Message, *, title: str = "", numbers: bool = True) -> str:
    """A message with a row for each field; `numbers`: with those that count on the wire."""
    head = ["number", "field", "type", "default", ""]
    rows = [
        [
            str(field.number),
            code(field.name),
            f"{field.label} {code(field.type)}",
            code(field.default),
            plain(field.comment),
        ]
        for field in message.fields
    ]
    comment = f"{plain(message.comment)}\n\n" if message.comment else ""
    skipped = 0 if numbers else 1
    cells = table(head[skipped:], [row[skipped:] for row in rows])
    return f"### {title or message.name}\n\n{comment}{cells}"
