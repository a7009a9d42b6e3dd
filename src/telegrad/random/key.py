"""Key: which stream of random numbers, and a single one of them.

Element i of the stream of a key is a pure function of (key, i): there is no generator whose state moves on, so the same
numbers appear on every rank, thread count and device, in the simulator and on the wire. A key is a seed and a path of
named folds; ranks that fold the same path share a stream (Rand-k's subset, a common coin), ranks that fold their own
rank do not. From such a key the shared stream is had by `without`: PermK finds the permutation of all ranks so.
"""

from __future__ import annotations

import hashlib
import operator
import struct
from dataclasses import dataclass

import numpy as np

from telegrad.errors import InputError
from telegrad.random.arrays import Arrays

__all__ = ["Key"]

_WORD = (1 << 64) - 1
_TWO_WORDS = struct.Struct("<QQ")


def _integer(value: object) -> int | None:
    """An integer of any kind (numpy's, an element of an integer tensor) as Python's own; None for anything else."""
    try:
        return None if isinstance(value, bool) else int(operator.index(value))  # type: ignore[arg-type]
    except TypeError:
        return None


def _exact(name: str, value: object) -> int | str:
    """What is folded, as Python's own int or str: equal values name equal streams, whatever type they come in."""
    exact = str.__str__(value) if isinstance(value, str) else _integer(value)
    if exact is None:
        raise InputError(f"Key.fold({name}={value!r}): only integers and strings name a stream; write fold({name}=0)")
    return exact


def _hashed(text: str) -> tuple[int, int]:
    words: tuple[int, int] = _TWO_WORDS.unpack(hashlib.blake2b(text.encode(), digest_size=16).digest())
    return words


@dataclass(frozen=True)
class Key(Arrays):
    """A source of reproducible randomness: one stream of numbers for each seed and path.

    `Key(seed=0).fold(step=3, rank=1, name="layer1.weight")` names one stream. Within a call the order of the keyword
    arguments does not matter; folding call after call, the order of the calls does.

    Attributes:
        seed: any integer.
        path: names and values that were folded, in order.

    Example:
        >>> key = tg.Key(seed=0).fold(step=3)
        >>> bool((key.fold(rank=0).uniform(5) == key.fold(rank=0).uniform(5)).all())  # same key, same numbers
        True
        >>> bool((key.fold(rank=0).uniform(5) == key.fold(rank=1).uniform(5)).any())
        False

    The generator is SplitMix64's finaliser over a counter, with 128 bits of key: one word offsets the counter, the
    other enters between the two multiplications, so that no two keys walk the same sequence. The key words are the
    BLAKE2b hash of seed and path.
    """

    seed: int = 0
    path: tuple[tuple[str, int | str], ...] = ()

    def __post_init__(self) -> None:
        seed = _integer(self.seed)
        if seed is None:
            raise InputError(f"Key(seed={self.seed!r}): a seed is an integer, for example Key(seed=0)")
        object.__setattr__(self, "seed", seed)
        if self.path:
            object.__setattr__(self, "path", tuple((name, _exact(name, value)) for name, value in self.path))

    def fold(self, **what: int | str) -> Key:
        """The key of another stream, named by names and values below this one.

        Args:
            what: names with integers or strings.

        Returns:
            The key; it does not depend on the order of the names within this call.

        Raises:
            InputError: a value is neither an integer nor a string.

        Example:
            >>> tg.Key(seed=0).fold(step=3, rank=1)
            Key(seed=0, path=(('rank', 1), ('step', 3)))
        """
        for name, value in what.items():
            if type(value) is not int and type(value) is not str:
                what[name] = _exact(name, value)
        key = object.__new__(Key)  # past the checks of a new seed: messages fold many keys
        key.__dict__["seed"] = self.seed
        key.__dict__["path"] = (*self.path, *(sorted(what.items()) if len(what) > 1 else what.items()))
        return key

    def without(self, name: str) -> Key:
        """The key as if a name had never been folded: `key.without("rank")` is a stream that all ranks share.

        Args:
            name: as in `fold`.

        Returns:
            The key of the shorter path.

        Example:
            >>> tg.Key().fold(step=3, rank=1).without("rank")
            Key(seed=0, path=(('step', 3),))
        """
        key = object.__new__(Key)
        key.__dict__["seed"] = self.seed
        key.__dict__["path"] = tuple([one for one in self.path if one[0] != name])
        return key

    @property
    def words(self) -> tuple[int, int]:
        """The two 64-bit words of this key, (offset, inner), from which compiled loops derive its stream."""
        found: tuple[int, int] | None = self.__dict__.get("_words")
        if found is None:
            # repr() of ints and strings is unambiguous, so distinct (seed, path) give distinct texts.
            found = self.__dict__["_words"] = _hashed(repr((self.seed, self.path)))
        return found

    def words_of_each(self, name: str, count: int) -> list[tuple[int, int]]:
        """`words` of the keys `fold(name=0)`, `fold(name=1)` … `fold(name=count - 1)`, for less than one by one.

        Args:
            name: what is folded.
            count: how many keys.

        Returns:
            A pair of words for each key.

        Example:
            >>> tg.Key().words_of_each("round", 2) == [tg.Key().fold(round=i).words for i in range(2)]
            True
        """
        before, after = repr((self.seed, (*self.path, (name, 0)))).rsplit("0", 1)
        return [_hashed(f"{before}{i}{after}") for i in range(count)]

    @property
    def stream(self) -> tuple[np.uint64, np.uint64]:
        """`words` in the type that compiled loops take."""
        offset, inner = self.words
        return np.uint64(offset), np.uint64(inner)

    def to_int(self) -> int:
        """A 64-bit integer that stands for this key: whoever receives it can rebuild `Key(seed=key.to_int())`.

        Below a fold of "piece", the pieces of a step share the upper 48 bits, so that a parcel sends these once.

        Returns:
            An integer from 0 to 2^64 − 1.

        Example:
            >>> 0 <= tg.Key(seed=1).to_int() < 2**64
            True
        """
        if "piece" not in dict(self.path):
            return self.words[0]
        return self.without("piece").words[0] & ~0xFFFF | self.words[0] & 0xFFFF

    def number(self, i: int = 0) -> float:
        """One element of `uniform`, in plain arithmetic: for a single one arrays cost more.

        Args:
            i: which element, from 0.

        Returns:
            A float in [0, 1).

        Example:
            >>> key = tg.Key(seed=1)
            >>> key.number(2) == float(key.uniform(3)[2])
            True
        """
        return (self._element(i) >> 11) * 2.0**-53

    def _element(self, i: int) -> int:
        """One element of the stream, in plain integers."""
        offset, inner = self.words
        z = ((i + 1) * 0x9E3779B97F4A7C15 + offset) & _WORD
        z = (((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & _WORD) ^ inner
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & _WORD
        return z ^ z >> 31
