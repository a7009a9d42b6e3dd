"""Context: what a compressor may know beyond the entries of a tensor, and how it comes to those that ask for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from telegrad.errors import InputError, SpecError
from telegrad.spec import Registered

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import Self

    from telegrad.random import Key

__all__ = ["UNKNOWN", "Context", "Contextual", "LastEstimate"]

T = TypeVar("T")

_MOST_WORKERS = 2**20  # what all of them share out takes memory for each


@dataclass(frozen=True)
class Context:
    """Whose tensor is compressed, when, and which one it is.

    Handed to those who ask, by `within`: `permk` takes its share by rank, `warmup` looks at the step, `powersgd` at the
    shape. Runtimes make one for every message. What the context that `compressor.encode(x, key, context)` is given
    leaves open is taken from what the key was folded with, and from x; without one, all of it.

    Attributes:
        rank: the worker that sends; None for a server, and where it is not known.
        workers: how many there are; None where it is not known.
        step: the number of the step, from 0; None where it is not known.
        name: the tensor's, or that of the piece of the model; empty where it has none.
        shape: the tensor's; with fewer than two dimensions it is a flat vector.
        last: the estimate of the step before, which all ranks have, a tensor; None before there is one.

    Example:
        >>> code = tg.compressor("permk").encode(torch.ones(8), tg.Key(seed=0), tg.Context(rank=1, workers=4))
        >>> int(code.decode().count_nonzero()), float(code.decode().sum())  # its two of the entries, times 4
        (2, 8.0)
    """

    rank: int | None = None
    workers: int | None = None
    step: int | None = None
    name: str = ""
    shape: tuple[int, ...] = ()
    last: LastEstimate | None = None

    @classmethod
    def of(cls, key: Key, shape: tuple[int, ...] = ()) -> Context:
        """The context that a key tells of by what was folded into it: rank, step and the name of the piece."""
        folded: dict[str, Any] = dict(key.path)
        return cls(folded.get("rank"), None, folded.get("step"), str(folded.get("piece", "")), shape)

    def completed(self, key: Key, shape: tuple[int, ...]) -> Context:
        """This one; what it leaves open is what the key tells, and the shape."""
        told, last = Context.of(key, shape), self.last_estimate
        rank, step = (told.rank if self.rank is None else self.rank), (told.step if self.step is None else self.step)
        whole = Context(rank, self.workers, step, self.name or told.name, self.shape or shape, last)
        return self if whole == self else whole

    @property
    def last_estimate(self) -> LastEstimate | None:
        """`last`, also where it was given as a tensor, by whoever has none of the runtimes."""
        given: Any = self.last
        return given if given is None or isinstance(given, LastEstimate) else LastEstimate(given.reshape(-1))

    def place(self, workers: int | None, owner: object) -> tuple[int, int]:
        """(rank, number of workers) for an `owner` that counts on so many workers, with None on as many as there are.
        The rank is 0 where it is not known.

        Raises `SpecError` where the number is not known, `InputError` for a rank that is none of theirs.
        """
        workers, rank = workers or self.workers, self.rank or 0
        if workers is None:
            raise SpecError(
                f"{owner}: how many workers there are is not known; write for example workers=4, or give encode a "
                "context such as tg.Context(rank=0, workers=4)"
            )
        if workers > _MOST_WORKERS:
            raise SpecError(f"{owner}: {workers} workers; up to {_MOST_WORKERS} are allowed")
        if not isinstance(rank, int) or not 0 <= rank < workers:
            raise InputError(f"{owner}: rank {rank} is none of 0 … {workers - 1}; write workers=M")
        return rank, workers

    @staticmethod
    def shared(key: Key) -> Key:
        """The common randomness: in place of `key`, the stream of all ranks that fold the same but for their rank."""
        return key.without("rank")


UNKNOWN = Context()
"""The context of what was bound to none."""


@dataclass(frozen=True, eq=False)
class LastEstimate:
    """The last estimate of a piece, `vector`: flat, shape (d,), alike on all ranks; zero before the first step."""

    vector: Tensor
    _found: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def once(self, what: Hashable, compute: Callable[[Tensor], T]) -> T:
        """What `compute` makes of the vector: computed when first asked for, for all workers of a process."""
        if what not in self._found:
            self._found[what] = compute(self.vector)
        found: T = self._found[what]
        return found


@cache
def _computed(cls: type) -> frozenset[str]:
    """The names of a class's cached properties."""
    known = (one for base in cls.__mro__ for one in vars(base).items())
    return frozenset(name for name, value in known if isinstance(value, cached_property))


class Contextual(Registered):
    """Base of what may depend on a context: compressors, ladders, methods. What a spec names is a frozen dataclass.

    A class names the fields of the `Context` that it reads in `looks_at`, and reads them from `self.context`. Whoever
    knows the context calls `within`, which hands it on to the parts that ask.
    """

    context: Context = UNKNOWN
    """What this was bound to by `within`. No part of its spec, and of no account where objects are compared."""

    @property
    def looks_at(self) -> frozenset[str]:
        """The fields of the `Context` that this itself looks at, whatever its parts do."""
        return frozenset()

    @cached_property
    def asks(self) -> frozenset[str]:
        """The fields of the `Context` that this or a part of it looks at."""
        return self.looks_at.union(*(part.asks for part in self._contextual.values()))

    @cached_property
    def _contextual(self) -> dict[str, Contextual]:
        """The parts that may ask, by name."""
        return {name: value for name, value in self._given().items() if isinstance(value, Contextual)}

    def _given(self) -> dict[str, Any]:
        """The attributes of this object, without what was computed from them and kept."""
        computed = _computed(type(self))  # type: ignore[arg-type]
        return {name: value for name, value in vars(self).items() if name not in computed}

    def within(self, context: Context) -> Self:
        """This object in `context`, and with it those of its parts that ask for one; itself where none asks."""
        if not self.asks:
            return self
        bound = object.__new__(type(self))
        bound.__dict__.update(self._given())
        bound.__dict__.update({name: part.within(context) for name, part in self._contextual.items()})
        bound.__dict__.update(context=context, asks=self.asks)
        return bound
