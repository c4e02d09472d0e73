"""workflow.prototxt and service.prototxt: which ops answer a request, and in which order."""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

from cube_core.conf.prototxt import read_services, read_workflows
from cube_core.errors import ConfError

if TYPE_CHECKING:
    from ctr_serving.conf import EngineConf
    from ctr_serving.ops import Op
    from cube_proto.workflow_pb2 import DAGNode, InferService, Workflow, WorkflowConf

log = logging.getLogger(__name__)

CTR_PREDICTION_OP = "CTRPredictionOp"
_SERVICE = "CTRPredictionService"
# The name that the original's CTRPredictionOp has in its code.
_ORIGINAL_ENGINE = "ctr_prediction"
_MODES = ("RO", "RW")


@dataclass(frozen=True)
class Node:
    """One op of a workflow.

    Attributes:
        op_type: CTRPredictionOp, SlotsOp, or module.Class.
        engines: names of its engines.
        dependencies: names of the nodes whose results it takes.
        place: file and field, for errors.
    """

    name: str
    op_type: str
    engines: tuple[str, ...]
    dependencies: tuple[str, ...]
    place: tuple[str, str]

    def load_op(self) -> Op:
        """An op of the node's type; imports its module, from the directory of the file too.

        Raises:
            ConfError: it cannot be imported, or is no op.
        """
        from ctr_serving.ops import Op, SlotsOp

        if self.op_type in (CTR_PREDICTION_OP, SlotsOp.__name__):
            return SlotsOp(self.name, self.engines)
        file, field = self.place
        module_name, _, class_name = self.op_type.rpartition(".")
        if not module_name:
            raise ConfError(
                file, f"{field}.type", f"{self.op_type!r} is neither SlotsOp nor module.Class"
            )
        folder = str(Path(file).resolve().parent)
        if folder not in sys.path:
            sys.path.append(folder)
        try:
            found = getattr(importlib.import_module(module_name), class_name)
            if not (isinstance(found, type) and issubclass(found, Op)):
                raise TypeError("it is no class made of ctr_serving.ops.Op")
            return found(self.name, self.engines)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfError(file, f"{field}.type", f"{self.op_type!r}: {reason}") from error


def file_of_flags(path: str, file: str, usual_name: str) -> Path | None:
    """The file that a pair of the original's flags names: `--workflow_path`, its directory, and
    `--workflow_file`. A directory alone stands for the file of the usual name, if it has one."""
    if file:
        return Path(path) / file
    usual = Path(path) / usual_name
    return usual if path and usual.is_file() else None


def read_workflow(
    workflow_path: Path | None, service_path: Path | None, confs: Sequence[EngineConf]
) -> list[list[Node]] | None:
    """The workflow of CTRPredictionService: nodes that can run at the same time, group by group;
    the last group is the one node that makes the answer. None stands for CTRPredictionOp alone,
    over the one engine.

    Args:
        workflow_path: None for CTRPredictionOp alone.
        service_path: says which workflow it is; None when the file has only one.

    Raises:
        ConfError: names the file and the field.
    """
    engines = [conf.name for conf in confs]
    if workflow_path is None:
        if len(confs) > 1:
            raise ConfError(
                "command line",
                "--workflow_file",
                f"is missing: it says what the engines {', '.join(engines)} are for",
            )
        return None
    conf = read_workflows(workflow_path)
    index, workflow = _chosen(conf, str(workflow_path), service_path)
    field = f"workflows[{index}]"
    if workflow.workflow_type != "Sequence":
        raise ConfError(
            str(workflow_path),
            f"{field}.workflow_type",
            f"{workflow.workflow_type!r} is not supported; write Sequence",
        )
    nodes = [
        _node(str(workflow_path), f"{field}.nodes[{number}]", node, engines)
        for number, node in enumerate(workflow.nodes)
    ]
    groups = _in_order(str(workflow_path), f"{field}.nodes", nodes)
    if len(nodes) == 1 and nodes[0].op_type == CTR_PREDICTION_OP and len(confs) == 1:
        return None
    return groups


def _chosen(conf: WorkflowConf, file: str, service_path: Path | str | None) -> tuple[int, Workflow]:
    if service_path is None:
        if len(conf.workflows) > 1:
            raise ConfError(file, "workflows", "are several: say which one in service.prototxt")
        return 0, conf.workflows[0]
    services = read_services(service_path).services
    found = [number for number, each in enumerate(services) if _is_ours(each)]
    if len(found) != 1:
        raise ConfError(str(service_path), "services", f"must have one service {_SERVICE}")
    service, place = services[found[0]], f"services[{found[0]}].workflows"
    others = [each.name for each in services if not _is_ours(each)]
    if others:
        log.warning("%s: not served here: %s", service_path, ", ".join(others))
    if service.enable_map_request_to_workflow or len(service.workflows) != 1:
        raise ConfError(str(service_path), place, "name one workflow for all requests")
    for index, workflow in enumerate(conf.workflows):
        if workflow.name == service.workflows[0]:
            return index, workflow
    raise ConfError(str(service_path), place, f"{service.workflows[0]!r} is no workflow of {file}")


def _is_ours(service: InferService) -> bool:
    return service.name.rpartition(".")[2] == _SERVICE


def _node(file: str, field: str, node: DAGNode, known: Sequence[str]) -> Node:
    engines = tuple(node.engines) or _implied_engines(node, known)
    for engine in engines:
        if engine not in known:
            raise ConfError(
                file, f"{field}.engines", f"{engine!r} is no engine; there are {', '.join(known)}"
            )
    for each in node.dependencies:
        if each.mode not in _MODES:
            raise ConfError(file, f"{field}.dependencies.mode", f"{each.mode!r} is not RO or RW")
    dependencies = tuple(each.name for each in node.dependencies)
    return Node(node.name, node.type, engines, dependencies, (file, field))


def _implied_engines(node: DAGNode, known: Sequence[str]) -> tuple[str, ...]:
    """The engine of the node's name, or that which the original's op runs, or the only one."""
    if node.name in known:
        return (node.name,)
    if node.type == CTR_PREDICTION_OP and _ORIGINAL_ENGINE in known:
        return (_ORIGINAL_ENGINE,)
    return tuple(known) if len(known) == 1 else ()


def _in_order(file: str, field: str, nodes: Sequence[Node]) -> list[list[Node]]:
    by_name = {node.name: node for node in nodes}
    if len(by_name) != len(nodes):
        raise ConfError(file, field, "two nodes have one name")
    for node in nodes:
        for name in node.dependencies:
            if name not in by_name:
                raise ConfError(file, f"{node.place[1]}.dependencies", f"{name!r} is no node")
    awaited = {name for node in nodes for name in node.dependencies}
    last = [node.name for node in nodes if node.name not in awaited]
    sorter = TopologicalSorter({node.name: node.dependencies for node in nodes})
    try:
        sorter.prepare()
    except CycleError as error:
        raise ConfError(file, field, f"depend on each other: {error.args[1]}") from error
    if len(last) != 1:
        raise ConfError(
            file, field, f"one node must make the answer, not {', '.join(last) or 'none'}"
        )
    groups: list[list[Node]] = []
    while sorter.is_active():
        ready = sorter.get_ready()
        groups.append([by_name[name] for name in ready])
        sorter.done(*ready)
    return groups
