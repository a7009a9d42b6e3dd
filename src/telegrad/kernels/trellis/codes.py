"""Trellis codes of the standard normal law at any rate: frequencies, points and prices, between designs that are fixed
(A28.3).

A design has for each class of states the frequencies of its points and their centroids, both symmetrical, and the price
of a bit under which it was made. A code lies at a position between two designs of neighbouring rates, all of whose
numbers are interpolated. Both ends make frequencies and points from integers by additions, multiplications and shifts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache, lru_cache
from importlib import resources

import numpy as np

from telegrad.kernels.coding.rans import Decoder, Encoder
from telegrad.kernels.threads import kept
from telegrad.kernels.trellis.paths import best_path, machine, nearest
from telegrad.kernels.trellis.streams import decoded_rows

__all__ = [
    *("BETWEEN", "BITS", "EVERY", "STATES"),
    *("Design", "TrellisCode"),
    *("design_code", "designs", "most_positions", "position_at", "trellis_code", "trellis_omega"),
]

STATES = (8, 256)
"""The machines for which there are designs."""

BITS = 15
"""Frequencies add up to 2^15."""

BETWEEN = 256
"""Positions from one design to the next."""

EVERY = 64
"""Positions from one measured code to the next."""

_UNIT = 2.0**-13  # of centroids
_PRECISION = 2.0**10  # of a symbol's bits, so that last digits of a logarithm do not show
_NARROW, _MOST_CELLS = 16, 8192


@dataclass(frozen=True)
class Design:
    """Points k = −`top` … `top`, in class k mod 2: `frequency` and `point`, shape (2 top + 1,), those out of use 0.

    `price`: of a bit, in squared units; `rate` in bits an entry and `omega`, D / (1 − D): on N(0, 1).
    """

    price: float
    rate: float
    omega: float
    frequency: np.ndarray = field(repr=False)
    point: np.ndarray = field(repr=False)

    @property
    def top(self) -> int:
        return len(self.frequency) // 2


@cache
def designs(states: int) -> list[Design]:
    """The designs for a machine, by increasing rates."""
    return [_read(text) for text in _paragraphs(f"designs-{states}.txt")]


def _paragraphs(name: str) -> list[str]:
    """The paragraphs of a file beside this one but the first, which says what they are."""
    text = resources.files("telegrad.kernels.trellis").joinpath(name).read_text(encoding="utf-8")
    return text.strip().split("\n\n")[1:]


def _read(text: str) -> Design:
    """price, rate, omega; frequencies of k = 0, 1, …; centroids of 1, 2, … in units of 2^−13."""
    numbers, frequencies, points = (part.split() for part in text.split(";"))
    frequency = np.array(frequencies, dtype=np.int64)
    point = np.array(["0", *points], dtype=np.int64)
    both = np.concatenate([frequency[:0:-1], frequency]), np.concatenate([-point[:0:-1], point])
    price, rate, omega = map(float, numbers)
    return Design(price, rate, omega, *both)


def _widened(x: np.ndarray, top: int, other: np.ndarray) -> np.ndarray:
    """x for k = −top … top, taken from `other` beyond its own."""
    beyond = top - len(x) // 2
    return np.concatenate([other[:beyond], x, other[len(other) - beyond :]])


@dataclass(frozen=True, eq=False)
class TrellisCode:
    """A code: states of its machine; `frequency`, int64, shape (2, K), each row adding up to 2^15; `point`, float64,
    shape (2 K,), what each row (see paths.py) stands for; `price` of a bit; about `milli` thousandths
    of a bit an entry.
    """

    states: int
    frequency: np.ndarray = field(repr=False)
    point: np.ndarray = field(repr=False)
    price: float
    milli: int

    @property
    def columns(self) -> int:
        """K."""
        return self.frequency.shape[1]

    @kept
    def _number(self) -> np.ndarray:
        """k of each row."""
        top, parity = self.columns - 1, np.arange(2)[:, None]
        return (2 * np.arange(self.columns) - top + (top + parity) % 2).reshape(-1)

    @kept
    def moves(self) -> np.ndarray:
        """after[state, row]: the state that follows where that row is sent, uint8, shape (S, 2 K)."""
        return np.ascontiguousarray(machine(self.states).after[:, self._number >> 1 & 1], dtype=np.uint8)

    @kept
    def encoder(self) -> Encoder:
        return Encoder(self.frequency, BITS)

    @kept
    def _slots(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows of each class's slots, and what a decoder knows of each row."""
        decoder = Decoder(self.frequency, BITS)
        rows = decoder.symbol_of.reshape(2, -1) + np.array([[0], [self.columns]])
        return rows.astype(np.uint8).reshape(-1), decoder.table

    def decode(self, states: np.ndarray, words: np.ndarray, rows: np.ndarray) -> bool:
        """Fill `rows`, uint8, the first of them that of a segment; False where these are not an encoder's work."""
        return decoded_rows(states, words, *self._slots, BITS, self.moves, rows)

    def lanes(self, n: int) -> int:
        """How many lanes the entropy coder has for n entries: their 24 bits each are to be a hundredth of all."""
        return 1 << (max(1, min(8, n * self.milli // 2_400_000)).bit_length() - 1)

    @kept
    def _cells(self) -> tuple[float, float, np.ndarray, np.ndarray]:
        """What `best_path` asks for."""
        used = self.frequency.reshape(-1) > 0
        reach = float(np.abs(self.point[used]).max())
        bits = np.round((BITS - np.log2(np.maximum(self.frequency.reshape(-1), 1))) * _PRECISION) / _PRECISION
        subset = 2 * (self._number & 1) + (self._number >> 1 & 1)
        gaps = np.diff(np.sort(self.point[used]))
        narrow = float(np.median(gaps)) / _NARROW if len(gaps) else 1.0
        # Beyond the outermost points nothing changes but by their prices: 2 more hold that at all rates.
        low, count = -reach - 2.0, int(min(_MOST_CELLS, max(256, (2 * reach + 4) / narrow)))
        inverse = float(np.float32(count / (2 * reach + 4)))
        middle = low + (np.arange(count) + 0.5) / inverse
        cells, rows = np.empty((count, 8), dtype=np.float32), np.empty((4, count), dtype=np.uint8)
        for number in range(4):
            own = np.flatnonzero(used & (subset == number))
            price = self.price * bits[own]
            if not len(own):  # never taken: dearer than all else
                cells[:, number], cells[:, 4 + number], rows[number] = 0.0, 1e6, 0
                continue
            which = nearest(middle, self.point[own], price)
            cells[:, number], cells[:, 4 + number], rows[number] = self.point[own][which], price[which], own[which]
        return low, inverse, cells, rows

    def quantise(self, z: np.ndarray, rows: np.ndarray) -> None:
        """Fill `rows`, uint8, with the best path of the numbers z, one segment."""
        best_path(z, *self._cells, self.states, rows)


def design_code(states: int, one: Design, other: Design, share: int) -> TrellisCode:
    """The code at `share` of 256 from the first design to the second."""
    top, rest = max(one.top, other.top), BETWEEN - share
    frequency = np.zeros((2, top + 1), dtype=np.int64)
    point = np.zeros((2, top + 1))
    near, far = (_widened(own.frequency, top, 0 * other.frequency) for own, other in ((one, other), (other, one)))
    mixed = rest * near + share * far
    low, high = _widened(one.point, top, other.point), _widened(other.point, top, one.point)
    between = (rest * low + share * high) * (_UNIT / BETWEEN)
    for parity in range(2):
        own = slice((top + parity) % 2, None, 2)
        f = np.where(mixed[own] > 0, np.maximum(mixed[own] // BETWEEN, 1), 0)
        # What rounding leaves over goes to the commonest, in the middle, or is taken from it.
        f[len(f) // 2] += (1 << BITS) - f.sum()
        # The outermost points of two designs may lie in either order.
        half = np.maximum.accumulate(between[own][len(f) // 2 :])
        frequency[parity, : len(f)] = f
        point[parity, : len(f)] = np.concatenate([-half[::-1][: len(f) // 2], half])
    price = (rest * one.price + share * other.price) / BETWEEN
    milli = (rest * round(1000 * one.rate) + share * round(1000 * other.rate)) // BETWEEN
    return TrellisCode(states, frequency, point.reshape(-1), price, milli)


@lru_cache(256)
def trellis_code(states: int, position: int) -> TrellisCode:
    """The code at a position from 0 to 256 (the number of designs − 1)."""
    known, (number, share) = designs(states), divmod(position, BETWEEN)
    return design_code(states, known[number], known[min(number + 1, len(known) - 1)], share)


def most_positions(states: int) -> int:
    """The last position."""
    return BETWEEN * (len(designs(states)) - 1)


@cache
def _curve(states: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions, their rates (increasing) and their omegas, as measured."""
    pairs = np.array([pair.split() for pair in _paragraphs(f"curve-{states}.txt")[0].split(";")], dtype=np.float64)
    return EVERY * np.arange(len(pairs)), np.maximum.accumulate(pairs[:, 0]), pairs[:, 1]


def position_at(states: int, rate: float) -> int:
    """The position whose code has about `rate` bits an entry on N(0, 1); the ends for what lies beyond them."""
    positions, rates, _ = _curve(states)
    return round(float(np.interp(rate, rates, positions)))


def trellis_omega(states: int, rate: float | np.ndarray) -> np.ndarray:
    """D / (1 − D) on N(0, 1) at `rate` bits an entry, between measured codes, and clamped to their rates."""
    _, rates, omegas = _curve(states)
    return np.exp(np.interp(np.log(np.clip(rate, rates[0], rates[-1])), np.log(rates), np.log(omegas)))
