"""What is said of an argument by a name that there is not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

from telegrad.errors import ConfigError

__all__ = ["refuse_unknown"]


def refuse_unknown(unknown: Iterable[str], known: Iterable[str], elsewhere: Mapping[str, str] | None = None) -> None:
    """Raise `ConfigError` for the first of the unknown names, with the nearest one; `elsewhere`: where some belong."""
    for name in unknown:
        if elsewhere and name in elsewhere:
            raise ConfigError(f"{name} is no argument here: {elsewhere[name]}")
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"allowed are {', '.join(known)}"
        raise ConfigError(f"unknown argument {name!r}; {hint}")
