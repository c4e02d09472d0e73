"""Files in protobuf's text form: model_toolkit, workflow, service and predictors.prototxt."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, TypeVar, cast

from google.protobuf import text_format
from google.protobuf.message import Message

from cube_core.errors import ConfError
from cube_proto.model_toolkit_pb2 import ModelToolkitConf
from cube_proto.predictors_pb2 import SDKConf
from cube_proto.workflow_pb2 import InferServiceConf, WorkflowConf

_M = TypeVar("_M", bound=Message)


def read_model_toolkit(path: Path | str) -> ModelToolkitConf:
    """Reads model_toolkit.prototxt.

    Raises:
        ConfError: names the file, the line and the field.
    """
    conf = _parse(path, ModelToolkitConf())
    if not conf.engines:
        raise ConfError(str(path), "engines", "at least one engine is needed")
    for index, engine in enumerate(conf.engines):
        if not engine.model_data_path and not engine.model_dir:
            raise ConfError(str(path), f"engines[{index}].model_data_path", "is missing")
    return conf


def read_workflows(path: Path | str) -> WorkflowConf:
    """Reads workflow.prototxt.

    Raises:
        ConfError: names the file, the line and the field.
    """
    conf = _parse(path, WorkflowConf())
    if not conf.workflows:
        raise ConfError(str(path), "workflows", "at least one workflow is needed")
    return conf


def read_services(path: Path | str) -> InferServiceConf:
    """Reads service.prototxt.

    Raises:
        ConfError: names the file, the line and the field.
    """
    return _parse(path, InferServiceConf())


def read_predictors(path: Path | str) -> SDKConf:
    """Reads predictors.prototxt.

    Raises:
        ConfError: names the file, the line and the field.
    """
    return _parse(path, SDKConf())


def _parse(path: Path | str, message: _M) -> _M:
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfError(str(path), "", f"cannot be read: {error}") from error
    try:
        with warnings.catch_warnings():
            # An escape that means nothing is a warning of Python's decoder deep inside protobuf.
            warnings.simplefilter("error", DeprecationWarning)
            text_format.Parse(text, message, allow_unknown_field=False)
    except DeprecationWarning as error:
        raise ConfError(str(path), "", f"a string has a bad escape: {error}") from error
    except text_format.ParseError as error:
        line = error.GetLine()
        where = f"{path}:{line}" if line else str(path)
        raise ConfError(where, "", str(error)) from error
    # The stubs of protobuf do not know this method of every message.
    missing: list[str] = cast(Any, message).FindInitializationErrors()
    if missing:
        raise ConfError(str(path), missing[0], "is missing")
    return message
