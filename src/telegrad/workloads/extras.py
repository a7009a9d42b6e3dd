"""Optional packages, imported where they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType

from telegrad.errors import DataError

__all__ = ["require"]


def require(module: str, what: str) -> ModuleType:
    """The imported `module`, or a `DataError` that says `what` needs it and how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"{what} needs the package {module.split('.')[0]}; pip install 'telegrad[lab]'") from error
