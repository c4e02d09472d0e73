"""Libraries that only some inputs need."""

from __future__ import annotations

import importlib
from typing import Any

from cube_core.errors import BuildError


def require(module: str, extra: str, needed_for: str) -> Any:
    """Imports a module that an extra of this package installs.

    Raises:
        BuildError: it is not installed; names the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BuildError(
            f"{needed_for} needs {module.partition('.')[0]}: pip install 'cube-serving[{extra}]'"
        ) from error
