"""Packages that telegrad is quicker with, and does without."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from telegrad.errors import TelegradWarning

__all__ = ["optional"]


def optional(name: str, instead: str) -> Any:
    """The package, or None where it is missing: then a warning says what happens instead."""
    try:
        return import_module(name)
    except ImportError:
        warnings.warn(f"{name} is not installed: {instead}", TelegradWarning, stacklevel=5)
        return None
