"""Every field of every configuration file."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any

import annotated_types
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ctr_serving import manifest, network_manifest
from cube_cluster import cluster
from cube_cluster.kubernetes import section
from cube_core import file_list
from cube_core.conf import cube_conf, transfer_conf
from docs_site.pages.markdown import code, plain, table
from docs_site.pages.messages import message_section
from docs_site.pages.proto_files import read_proto_files

_HEAD = """# Fields

Every field of every configuration file, with what it takes and its default; this page is made of
the code. What the fields mean is told on the page of each file.
"""

# By file: the page that explains it, and its models by the place of their fields.
MODELS: dict[str, tuple[str, dict[str, type[BaseModel]]]] = {
    "cluster.yml": (
        "cluster.md",
        {
            "the top": cluster.Cluster,
            "dicts": cluster.Dict,
            "dicts.servers": cluster.ServerPlace,
            "dicts.retiring": cluster.Servers,
            "dicts.transfer": cluster.TransferPlace,
            "dicts.build": transfer_conf.BuildOptions,
            "ctr": cluster.Ctr,
            "ctr.servers": cluster.CtrPlace,
            "ctr.engines": cluster.Engine,
            "ctr.clients": cluster.CtrClients,
            "flags": cluster.FlagsByRole,
            "limits": cluster.LimitsByRole,
            "security": cluster.Security,
            "kubernetes": section.Kubernetes,
            "kubernetes.cube_server": section.ServerPods,
            "kubernetes.cube_transfer": section.TransferPods,
            "kubernetes.ctr_serving": section.CtrPods,
            "resources": section.Resources,
            "resources.requests, resources.limits": section.Amounts,
            "kubernetes.models": section.Models,
            "kubernetes.passes": section.Passes,
            "kubernetes.secrets": section.SecretNames,
            "kubernetes.network": section.Network,
            "kubernetes.network, an entry of its lists": section.Peer,
        },
    ),
    "cube.conf": (
        "cube-conf.md",
        {
            "an entry": cube_conf.DictConf,
            "nodes": cube_conf.Node,
            "tls": cube_conf.TlsConf,
        },
    ),
    "transfer.conf": (
        "cube-transfer.md#transferconf",
        {"[default]": transfer_conf.TransferConf, "build": transfer_conf.BuildOptions},
    ),
    "_manifest.json": ("../concepts/passes.md#on-disk", {"files": file_list.ListedFile}),
    "manifest.json": (
        "ctr-serving.md#the-model-directory",
        {
            "the top": manifest.Manifest,
            "fused": manifest.FusedModel,
        },
    ),
    "manifest.json, format 2": (
        "ops.md#the-model-directory-format-2",
        {
            "the top": network_manifest.NetworkManifest,
            "dicts": network_manifest.DictUse,
            "lookups": network_manifest.Lookup,
            "ids": network_manifest.IdsInput,
            "inputs": network_manifest.OtherInput,
        },
    ),
}
# By file: the page, the proto file and its messages by the place of their fields.
MESSAGES: dict[str, tuple[str, str, dict[str, str]]] = {
    "model_toolkit.prototxt": (
        "ctr-serving.md#model_toolkitprototxt",
        "model_toolkit.proto",
        {"engines": "EngineDesc", "engines.default_embeddings": "DefaultEmbedding"},
    ),
    "predictors.prototxt": (
        "ctr-client.md#predictorsprototxt",
        "predictors.proto",
        {
            "the top": "SDKConf",
            "predictors": "Predictor",
            "default_variant_conf, variants": "VariantConf",
            "connection_conf": "ConnectionConf",
            "connection_conf.tls": "TlsConf",
            "naming_conf": "NamingConf",
            "rpc_parameter": "RpcParameter",
            "weighted_random_render_conf": "WeightedRandomRenderConf",
            "split_conf": "SplitConf",
        },
    ),
    "workflow.prototxt, service.prototxt": (
        "ops.md#workflowprototxt",
        "workflow.proto",
        {
            "workflows": "Workflow",
            "workflows.nodes": "DAGNode",
            "workflows.nodes.dependencies": "DAGNodeDependency",
            "services": "InferService",
        },
    ),
}
# Of transfer.conf's model, those that stand in other sections.
_NOT_FIELDS = {"build", "replicas"}


def fields_page() -> str:
    parts = [_HEAD]
    for file, (page, models) in MODELS.items():
        parts.append(f"## {file}\n\n[What they mean]({page})\n")
        parts += [_model_section(file, place, model) for place, model in models.items()]
    protos = read_proto_files(Path(__file__).parents[2] / "proto")
    for file, (page, proto, messages) in MESSAGES.items():
        parts.append(f"## {file}\n\n[What they mean]({page})\n")
        for place, name in messages.items():
            message = protos[proto].message(name)
            parts.append(message_section(message, title=f"{place} of {file}", numbers=False))
    return "\n".join(parts)


def field_names(file: str, model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Fields of a model by the names that they have in the file."""
    return {
        info.alias or name: info
        for name, info in model.model_fields.items()
        if not (file == "transfer.conf" and name in _NOT_FIELDS)
    }


def _model_section(file: str, place: str, model: type[BaseModel]) -> str:
    rows = [
        (code(name), plain(_takes(info)), _default(info))
        for name, info in field_names(file, model).items()
    ]
    return f"### {place} of {file}\n\n" + table(("field", "takes", "default"), rows)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "needed"
    default = info.get_default(call_default_factory=True)
    if isinstance(default, BaseModel) or default in (None, "", {}, ()):
        return ""
    return code(str(default).lower() if isinstance(default, bool) else str(default))


def _takes(info: FieldInfo) -> str:
    return ", ".join([_type(info.annotation), *filter(None, map(_limit, info.metadata))])


def _limit(limit: Any) -> str:
    if isinstance(limit, annotated_types.Ge):
        return f"from {limit.ge}"
    if isinstance(limit, annotated_types.Le):
        return f"to {limit.le}"
    if isinstance(limit, annotated_types.MinLen):
        return "not empty"
    return ""


def _type(annotation: Any) -> str:
    """A type in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        metadata = [each for item in arguments[1:] for each in getattr(item, "metadata", (item,))]
        return ", ".join([_type(arguments[0]), *filter(None, map(_limit, metadata))])
    if origin is typing.Literal:
        return " or ".join(str(each) or '""' for each in arguments)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_type(each) for each in arguments if each is not type(None))
    if origin is tuple:
        return f"a list of {_type(arguments[0]).replace('a block', 'blocks')}"
    if origin is list:
        return f"a list of {_type(arguments[0]).replace('a block', 'blocks')}"
    if origin is dict:
        return f"{_type(arguments[1])} by name"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a block, see below"
    names = {int: "integer", str: "text", float: "number", bool: "true or false"}
    return names.get(annotation, str(annotation))
