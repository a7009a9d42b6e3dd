"""Compiled code kept on disk, by numba's cache, in such a way that no fault of the disk stops an encoder.

A folder that cannot be written, a full disk, or files that a crash cut off: the loop is compiled anew, the files are
written again where that is possible, and one warning a process says what is wrong. Where numba finds no folder at all
(no home, an installation that is read-only), the code is kept in a folder of this user's own below the temporary one.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from telegrad.errors import TelegradWarning

__all__ = ["cached", "compiled_here"]

compiled_here: list[str] = []
"""The names of the loops that this process has compiled, because no code of theirs was on the disk."""


def cached(numba: Any, scalar: Callable[..., Any]) -> Callable[..., Any]:
    """`scalar` compiled on its first call, or read from the disk where it was compiled before."""
    compiled = numba.njit(nogil=True)(scalar)
    try:
        compiled._cache = _tolerant_cache()(scalar)
    except (RuntimeError, OSError):  # no folder can be written
        _warn("no folder for compiled code can be written")
    return compiled


@cache
def _tolerant_cache() -> Any:
    """The class of numba's cache whose faults are misses."""
    from numba.core.caching import CompileResultCacheImpl, FunctionCache

    # Of another name in older numba: the place that a user names.
    named_by_user: Any = CompileResultCacheImpl._locator_classes[0]

    class BelowTemporary(named_by_user):
        """Finds the place of a function's code where none of numba's own places can be written."""

        def __init__(self, function: Any, file: str) -> None:
            self._py_file, self._lineno = file, function.__code__.co_firstlineno
            self._cache_path = os.path.join(_own_folder(), self.get_suitable_cache_subpath(file))

        @classmethod
        def from_function(cls, function: Any, file: str) -> Any:
            try:
                found = cls(function, file)
                found.ensure_cache_path()
            except OSError:
                return None
            return found

    class Places(CompileResultCacheImpl):
        _locator_classes = [*CompileResultCacheImpl._locator_classes, BelowTemporary]  # noqa: RUF012

    class Tolerant(FunctionCache):
        _impl_class = Places

        def load_overload(self, sig: Any, target_context: Any) -> Any:
            try:
                found = super().load_overload(sig, target_context)
                if found is None:
                    _announce(self._impl.filename_base, self.cache_path)
                return found
            except Exception as error:  # what a damaged pickle raises is not limited
                _warn(f"the compiled code in {self.cache_path} is damaged ({type(error).__name__})")
            try:
                self.flush()
            except OSError:
                self.disable()
            return None

        def save_overload(self, sig: Any, data: Any) -> None:
            try:
                super().save_overload(sig, data)
            except Exception as error:
                _warn(f"compiled code cannot be kept in {self.cache_path} ({error})")
                self.disable()

    return Tolerant


def _own_folder() -> str:
    """A folder below the temporary one that only this user can write. Code is read from it: others must not.

    Raises `OSError` where there is something else of its name.
    """
    user = os.getuid() if hasattr(os, "getuid") else None
    path = Path(tempfile.gettempdir()) / ("telegrad-compiled" if user is None else f"telegrad-compiled-{user}")
    path.mkdir(mode=0o700, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or (user is not None and (found.st_uid != user or found.st_mode & 0o022)):
        raise PermissionError(f"{path} is not a folder that only this user can write")
    return str(path)


def _announce(name: str, folder: str) -> None:
    """Say once, on one rank of a job, that what follows takes long because loops are compiled."""
    if not compiled_here and os.environ.get("RANK", "0") == "0":
        logging.getLogger("telegrad").warning(
            "telegrad compiles its loops on first use, which may take a minute in all; the code is kept in %s. "
            "`telegrad warmup` does it ahead of a job.",
            folder,
        )
    compiled_here.append(name)


_said: list[str] = []


def _warn(reason: str) -> None:
    """Warn once in a process."""
    if not _said:
        _said.append(reason)
        warnings.warn(
            f"{reason}: loops are compiled anew, which takes seconds each. NUMBA_CACHE_DIR may name another folder for "
            "compiled code",
            TelegradWarning,
            stacklevel=2,
        )
