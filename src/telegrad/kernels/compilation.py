"""Loops for the CPU, compiled by numba on first use.

A loop is written as plain Python over arrays and wrapped by `Loop`, beside a form in torch or numpy that defines what
it computes. Where numba is missing the defining form runs, and that is said once. Loops release the interpreter's lock:
`telegrad.kernels.threads` runs them side by side.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from types import FunctionType
from typing import Any

from telegrad.kernels.caching import cached
from telegrad.kernels.optional import optional

__all__ = ["Loop", "reference_forms"]


class Loop(partial[Any]):
    """`scalar` compiled, or `reference` where numba is missing; both take the same arguments and do the same.

    `uses`: plain functions that `scalar` calls by their names; they are compiled into it. Compiled code is kept on
    disk (see `telegrad.kernels.caching`); the first call in a process loads or compiles it. From then on this is a
    `functools.partial` of what was found, so that calling it costs no step in Python.
    """

    scalar: Callable[..., Any]
    reference: Callable[..., Any]
    uses: Sequence[Callable[..., Any]]
    compiled: Callable[..., Any]
    asks: Callable[..., Any]
    """What looks for the compiled form, in the first call."""

    def __new__(
        cls, scalar: Callable[..., Any], reference: Callable[..., Any], uses: Sequence[Callable[..., Any]] = ()
    ) -> Loop:
        loop: Loop = super().__new__(cls, lambda *arguments: loop._first(*arguments))
        loop.scalar, loop.reference, loop.uses, loop.asks = scalar, reference, uses, loop.func
        return loop

    def _first(self, *arguments: Any) -> Any:
        numba = None if _references else _numba()
        self.stand_for(self.reference if numba is None else self._compiled(numba))
        _found.append(self)
        return self(*arguments)

    def stand_for(self, function: Callable[..., Any]) -> None:
        """Call this function from now on."""
        self.__setstate__((function, (), {}, self.__dict__))  # type: ignore[attr-defined]

    def _compiled(self, numba: Any) -> Callable[..., Any]:
        # All threads take the form of the first one: a second would replace it while another thread is still in it.
        # No lock: a process that is forked while a thread holds it would wait for it forever.
        if "compiled" not in self.__dict__:
            self.__dict__.setdefault("compiled", cached(numba, self._linked(numba)))
        return self.compiled

    def _linked(self, numba: Any) -> Any:
        """`scalar`, its names of helpers bound to what compiled code may call."""
        linked = _bound(self.scalar, {helper.__name__: _helper(helper, numba) for helper in self.uses})
        if files := sorted({file for helper in self.uses for file in _files(helper)}):
            # Numba looks at the loop's own file to tell whether what it has cached is up to date.
            content = b"".join(Path(file).read_bytes() for file in files if Path(file).exists())
            linked.__qualname__ += hashlib.blake2b(content, digest_size=8).hexdigest()
        return linked


def _helper(helper: Any, numba: Any) -> Any:
    """A compiled helper, bound to those that it calls in its turn."""
    return numba.njit(_bound(helper, {name: _helper(one, numba) for name, one in _called(helper).items()}))


def _called(helper: Any) -> dict[str, FunctionType]:
    """The plain functions that a helper calls, found by their names."""
    found = {name: helper.__globals__.get(name) for name in helper.__code__.co_names}
    return {name: one for name, one in found.items() if isinstance(one, FunctionType)}


def _files(helper: Any) -> set[str]:
    """The source files of a helper and of those that it calls."""
    return {helper.__code__.co_filename}.union(*(_files(one) for one in _called(helper).values()))


def _bound(function: Any, names: dict[str, Any]) -> Any:
    if not names:
        return function
    bound = FunctionType(function.__code__, {**function.__globals__, **names}, function.__name__)
    bound.__qualname__ = function.__qualname__
    return bound


_found: list[Loop] = []
"""The loops that were called since they were last sent to look for numba."""
_references = False


@contextmanager
def reference_forms() -> Iterator[None]:
    """Within, all loops run in the forms that define them: for tests that compare."""
    global _references
    before, _references = _references, True
    _look_again()
    try:
        yield
    finally:
        _references = before
        _look_again()


def _look_again() -> None:
    while _found:
        loop = _found.pop()
        loop.stand_for(loop.asks)


@cache
def _numba() -> Any:
    return optional("numba", "telegrad's loops run in torch and numpy, many times slower")
