"""Optional packages, imported where they are needed."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from telegrad.errors import DataError

__all__ = ["fetch", "require"]


def require(module: str, what: str) -> ModuleType:
    """The imported `module`, or a `DataError` that says `what` needs it and how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise DataError(f"{what} needs the package {module.split('.')[0]}; pip install 'telegrad[lab]'") from error


def fetch(workload: str, wanted: str, name: str, **arguments: Any) -> Any:
    """The data set `name` from the Hugging Face Hub by the package `datasets`, with further `arguments` for it.

    Raises `DataError` where it cannot be had: it names the `workload` and the files that a folder should hold instead.
    """
    try:
        datasets = importlib.import_module("datasets")
    except ImportError:
        raise DataError(
            f"{workload} needs its data: pass as data a folder with {wanted}; "
            "or pip install 'telegrad[fetch]', and it is fetched by name"
        ) from None
    try:
        return datasets.load_dataset(name, **arguments)
    # The package raises errors of several libraries (HTTP clients, the Hub, arrow); each means that there are no data.
    except Exception as error:
        raise DataError(f"cannot fetch {name}: {error}; or pass as data a folder with {wanted}") from error
