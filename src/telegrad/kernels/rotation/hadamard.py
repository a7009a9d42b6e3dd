"""Random rotations that both ends rebuild from a seed: randomised Hadamard transforms, uniform rotations where small.

n entries are cut into blocks of 65536, then one block for each binary digit of what is left, down to 64 (A21): no
padding. The entries of the short blocks are spread evenly over the vector, and among these blocks by a stride near the
golden section of their number: no short block gets the largest entries of a sorted vector. The long blocks share out
the others, neighbours to neighbours, as memory likes it. A block of m >= 64 is rotated by rounds of
H · diag(signs): two, and three below 4096 entries, where the bias that a rotation of so few random signs leaves to
quantisers is largest. The fewer than 64 entries at the end form one block under a uniformly distributed orthogonal
matrix (Diaconis and Shahshahani 1987), so that small tensors suffer no bias at all. By additions and subtractions in a
fixed order, in float32 for numbers of at most 32 bits and in float64 for others.

A round takes the block for a matrix of about √m columns: butterflies between its rows, and then between its columns,
which come in groups of four neighbours: each pass writes what it makes of the first, second, … of all groups to a
quarter of its own, so that the columns have become rows at the end. So every loop runs over adjacent entries, and what
comes out is the transform with its entries in the transposed order; swapping the sides of the matrix undoes it.
"""

from __future__ import annotations

import itertools
import math
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.kernels.coding.scatter import taken
from telegrad.kernels.compilation import Loop
from telegrad.kernels.device import on_gpu, with_gpu_form
from telegrad.kernels.memory import add_times
from telegrad.kernels.random_numbers.uniforms import STRIDE, bits_at, state_at, uniform_bits
from telegrad.kernels.statistics.magnitudes import largest_in, plain
from telegrad.kernels.threads import in_chunks, kept
from telegrad.random import Key

__all__ = ["LARGEST", "SMALLEST", "Rotation", "block_sizes", "rotate", "rotate_back", "rotated_at", "transformed"]

LARGEST = 65536
"""The longest block: a quarter or half of a megabyte, which the caches of one core hold."""
SMALLEST = 64
"""The shortest block for a Hadamard transform; what is shorter is rotated uniformly."""

_SAFE = 4096


def block_sizes(n: int) -> list[int]:
    """The lengths of the blocks of n entries, in order; 1e5 = 65536 + 32768 + 1024 + 512 + 128 + 32."""
    sizes = [LARGEST] * (n // LARGEST)
    left, size = n % LARGEST, LARGEST // 2
    while size >= SMALLEST:
        if left & size:
            sizes.append(size)
        size //= 2
    return sizes + [left % SMALLEST] * (left % SMALLEST > 0)


def _butterflies_scalar(x: Any, rows: int, width: int) -> None:
    h = 1
    while 2 * h < rows:  # two levels in one pass
        step = h * width
        for low in range(0, rows * width, 4 * step):
            a, b = x[low : low + step], x[low + step : low + 2 * step]
            c, d = x[low + 2 * step : low + 3 * step], x[low + 3 * step : low + 4 * step]
            for j in range(step):
                p, q, r, s = a[j] + b[j], a[j] - b[j], c[j] + d[j], c[j] - d[j]
                a[j], b[j], c[j], d[j] = p + r, q + s, p - r, q - s
        h *= 4
    if h < rows:
        step = h * width
        a, b = x[:step], x[step : 2 * step]
        for j in range(step):
            p, q = a[j] + b[j], a[j] - b[j]
            a[j], b[j] = p, q


def _fours(x: Any, out: Any) -> None:
    """Two levels between the four of each group of neighbours; the group's number is then the low part of a place."""
    quarter = len(x) // 4
    a, b, c, d = out[:quarter], out[quarter : 2 * quarter], out[2 * quarter : 3 * quarter], out[3 * quarter :]
    for j in range(quarter):
        at = np.uint64(4 * j)
        s, t, u, v = x[at], x[at + np.uint64(1)], x[at + np.uint64(2)], x[at + np.uint64(3)]
        a[j], b[j] = (s + t) + (u + v), (s - t) + (u - v)
        c[j], d[j] = (s + t) - (u + v), (s - t) - (u - v)


def _twos(x: Any, out: Any) -> None:
    half = len(x) // 2
    a, b = out[:half], out[half:]
    for j in range(half):
        at = np.uint64(2 * j)
        s, t = x[at], x[at + np.uint64(1)]
        a[j], b[j] = s + t, s - t


def _transform_scalar(x: Any, high: int, low: int, other: Any) -> None:
    _butterflies_scalar(x, high, low)
    left, source, target, away = low, x, other, False
    while left > 1:
        if left > 2:
            _fours(source, target)
        else:
            _twos(source, target)
        left, source, target, away = left >> 2, target, source, not away
    if away:
        x[:] = other


def _butterflies_reference(x: np.ndarray, rows: int, width: int) -> np.ndarray:
    h = 1
    while h < rows:
        pairs = x.reshape(rows // (2 * h), 2, h * width)
        x = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).reshape(-1)
        h *= 2
    return x


def _transform_reference(x: np.ndarray, high: int, low: int, other: np.ndarray) -> None:
    across = _butterflies_reference(x, high, low).reshape(high, low).T.reshape(-1)
    x[:] = _butterflies_reference(across, low, high)


_transform = Loop(_transform_scalar, _transform_reference, uses=[_butterflies_scalar, _fours, _twos])


def transformed(x: np.ndarray, high: int, low: int) -> np.ndarray:
    """Sylvester's matrix times x, of high · low entries (powers of two from 8 on), in the order of the transposed
    matrix; not divided by √n.
    """
    out = x.copy()
    _transform(out, high, low, np.empty_like(x))
    return out


def _flip_scalar(bits: Any, top: int, offset: Any, inner: Any, first: int, drawn: Any) -> None:
    """Random signs, 32 from each number of the stream: bit j of number i to entry j · len(bits) / 32 + i."""
    state = state_at(offset, first)
    for i in range(len(drawn)):
        drawn[i] = bits_at(state, inner) >> np.uint64(21)
        state += STRIDE
    sign = np.uint64(1) << np.uint64(top)
    for j in range(32):
        part, shift = bits[j * len(drawn) : (j + 1) * len(drawn)], np.uint64(top - j)
        for i in range(len(drawn)):
            part[i] ^= (np.uint64(drawn[i]) << shift) & sign


def _flip_reference(
    bits: np.ndarray, top: int, offset: np.uint64, inner: np.uint64, first: int, drawn: np.ndarray
) -> None:
    with np.errstate(over="ignore"):
        drawn[:] = uniform_bits(offset, inner, np.arange(first, first + len(drawn), dtype=np.uint64)) >> np.uint64(21)
    signs = (drawn[None, :] >> np.arange(32, dtype=np.uint32)[:, None]) & np.uint32(1)
    bits ^= signs.reshape(-1).astype(bits.dtype) << bits.dtype.type(top)


def _turn_scalar(
    x: Any, bits: Any, top: int, streams: Any, first: int, one: Any, other: Any, high: int, room: Any
) -> None:
    for i in range(len(x)):
        x[i] = x[i] * one * other
    drawn = np.empty(len(x) // 32, dtype=np.uint32)
    for number in range(len(streams)):
        _flip_scalar(bits, top, streams[number, 0], streams[number, 1], first, drawn)
        _transform_scalar(x, high, len(x) // high, room)
        high = len(x) // high


def _turn_reference(
    x: np.ndarray,
    bits: np.ndarray,
    top: int,
    streams: np.ndarray,
    first: int,
    one: Any,
    other: Any,
    high: int,
    room: np.ndarray,
) -> None:
    x *= one
    x *= other
    for offset, inner in streams:
        _flip_reference(bits, top, offset, inner, first, np.empty(len(x) // 32, dtype=np.uint32))
        _transform_reference(x, high, len(x) // high, room)
        high = len(x) // high


def _turn_back_scalar(x: Any, bits: Any, top: int, streams: Any, first: int, high: int, room: Any) -> None:
    drawn = np.empty(len(x) // 32, dtype=np.uint32)
    for number in range(len(streams) - 1, -1, -1):
        _transform_scalar(x, high, len(x) // high, room)
        _flip_scalar(bits, top, streams[number, 0], streams[number, 1], first, drawn)
        high = len(x) // high


def _turn_back_reference(
    x: np.ndarray, bits: np.ndarray, top: int, streams: np.ndarray, first: int, high: int, room: np.ndarray
) -> None:
    for offset, inner in streams[::-1]:
        _transform_reference(x, high, len(x) // high, room)
        _flip_reference(bits, top, offset, inner, first, np.empty(len(x) // 32, dtype=np.uint32))
        high = len(x) // high


_turn = Loop(_turn_scalar, _turn_reference, uses=[_flip_scalar, _transform_scalar])
_turn_back = Loop(_turn_back_scalar, _turn_back_reference, uses=[_flip_scalar, _transform_scalar])


def _signs_of(x: np.ndarray) -> tuple[np.ndarray, int]:
    """The bits of float32 or float64 numbers, and the place of their signs."""
    return x.view(np.uint32 if x.itemsize == 4 else np.uint64), 8 * x.itemsize - 1


def _gather_scalar(x: Any, first: int, skipped: int, rest: int, out: Any) -> None:
    n, at, done = len(x), first + skipped, 0
    while done < len(out):
        stop = skipped * n // rest if skipped < rest else n
        count = min(stop - at, len(out) - done)
        source, target = x[at : at + count], out[done : done + count]
        for j in range(count):
            target[j] = source[j]
        done, at, skipped = done + count, stop + 1, skipped + 1


def _scatter_scalar(x: Any, scale: float, n: int, first: int, skipped: int, rest: int, base: int, out: Any) -> None:
    at, done = first + skipped, 0
    while done < len(x):
        stop = skipped * n // rest if skipped < rest else n
        count = min(stop - at, len(x) - done)
        source, target = x[done : done + count], out[at - base : at - base + count]
        for j in range(count):
            target[j] = source[j] * scale
        done, at, skipped = done + count, stop + 1, skipped + 1


def _whole_places(n: int, first: int, size: int, rest: int) -> np.ndarray:
    number, places = np.arange(rest), np.arange(first, first + size)
    return places + np.searchsorted(number * n // max(1, rest) - number, places, side="right")


def _gather_reference(x: np.ndarray, first: int, skipped: int, rest: int, out: np.ndarray) -> None:
    out[:] = x[_whole_places(len(x), first, len(out), rest)]


def _scatter_reference(
    x: np.ndarray, scale: float, n: int, first: int, skipped: int, rest: int, base: int, out: np.ndarray
) -> None:
    with np.errstate(over="ignore"):
        out[_whole_places(n, first, len(x), rest) - base] = x.astype(np.float64) * scale


_gather = Loop(_gather_scalar, _gather_reference)
_scatter = Loop(_scatter_scalar, _scatter_reference)


class Rotation:
    """The rotation number `seed` of vectors of n entries, a block at a time."""

    def __init__(self, n: int, seed: int) -> None:
        self.n, self.sizes, self._key = n, block_sizes(n), Key(seed)
        self.starts = [0, *itertools.accumulate(self.sizes[:-1])]
        self._rest = n % LARGEST
        self._held = threading.local()

    @property
    def short_places(self) -> np.ndarray:
        """Where the entries of the short blocks lie, in the order of the blocks."""
        return _short_places(self.n)

    def _places(self, number: int) -> np.ndarray:
        start = self.starts[number] - (self.n - self._rest)
        return self.short_places[start : start + self.sizes[number]]

    def _skipped(self, start: int) -> int:
        """How many entries of short blocks lie before entry number `start` of the long ones."""
        # Number j has ⌊j n / rest⌋ − j long ones before it.
        return min(self._rest, ((start + 1) * self._rest - 1) // (self.n - self._rest) + 1)

    @kept
    def whole_words(self) -> np.ndarray:
        """The words of the keys of the signs that the long blocks' two rounds share, uint64, a row for each."""
        return _words(self._key.fold(block=0), 2)

    def scratch(self, number: int, dtype: np.dtype[Any]) -> np.ndarray:
        """Room for block `number`, this thread's: fresh memory costs more than a pass over it."""
        return self._scratch(self.sizes[number], dtype)[0]

    def _scratch(self, size: int, dtype: np.dtype[Any]) -> tuple[np.ndarray, np.ndarray]:
        held: dict[Any, Any] = self._held.__dict__
        if (size, dtype) not in held:
            held[size, dtype] = np.empty((2, size), dtype=dtype)
        first, second = held[size, dtype]
        return first, second

    def _rounds(self, start: int, size: int) -> tuple[np.ndarray, int]:
        """The words of the keys of each round's signs, and the first of the streams' numbers."""
        if size == LARGEST:
            return self.whole_words, start // 32
        return _words(self._key.fold(block=start).fold(size=size), 2 if size >= _SAFE else 3), 0

    def block(self, x: np.ndarray, number: int, dtype: np.dtype[Any] | None = None) -> tuple[np.ndarray, float]:
        """(Y, c): block `number` of the rotated x is Y / c, in x's precision or `dtype`'s; Y lasts until this thread's
        next call.
        """
        start, size = self.starts[number], self.sizes[number]
        own = self.scratch(number, dtype or x.dtype)
        if size == LARGEST:
            _gather(x, start, self._skipped(start), self._rest, own)
        else:
            own[:] = x[self._places(number)]
        return self.turned(own, number)

    def turned(self, own: np.ndarray, number: int) -> tuple[np.ndarray, float]:
        """`block` of entries that are already taken from their places; they are used up."""
        start, size = self.starts[number], self.sizes[number]
        other = self._scratch(size, own.dtype)[1]
        if size < SMALLEST:
            return _uniformly(own, self._key.fold(block=start), inverse=False), 1.0
        # Brought near 1 by a power of two, in two steps that x's precision holds: nothing overflows or vanishes.
        exponent, (streams, first) = -math.frexp(largest_in(own))[1], self._rounds(start, size)
        factors = (own.dtype.type(2.0**part) for part in (exponent // 2, exponent - exponent // 2))
        _turn(own, *_signs_of(own), streams, first, *factors, _high(size), other)
        return own, float(size) ** (len(streams) / 2) * 2.0**exponent

    def block_back(self, y: np.ndarray, number: int, scale: float, out: np.ndarray) -> None:
        """Write `scale` times the inverse image of y, block `number`, to where its entries belong in `out`; y (which
        may be what `scratch` gave) is used up.
        """
        y, scale = self.turned_back(y, number, scale)
        if self.sizes[number] == LARGEST:
            self._spread(y, scale, number, 0, out)
        else:
            with np.errstate(over="ignore", invalid="ignore"):  # refused later
                out[self._places(number)] = y.astype(np.float64) * scale

    def add_block_back(self, y: np.ndarray, number: int, scale: float, out: np.ndarray, weight: float) -> None:
        """out += weight times what `block_back` writes."""
        y, scale = self.turned_back(y, number, scale)
        if self.sizes[number] == LARGEST:
            start = self.starts[number]
            low, high = (at + self._skipped(at) for at in (start, start + LARGEST - 1))
            # What lies between belongs to the short blocks, and has to stay as it is, whatever its sign.
            window = self._window(high + 1 - low, out.dtype)
            window.fill(math.copysign(0.0, -weight))
            self._spread(y, scale, number, low, window)
            add_times(out[low : high + 1], window, weight)
        else:
            places = self._places(number)
            with np.errstate(over="ignore", invalid="ignore"):
                numbers = (y.astype(np.float64) * scale).astype(out.dtype)
            total = out[places]
            add_times(total, numbers, weight)
            out[places] = total

    def _spread(self, y: np.ndarray, scale: float, number: int, base: int, out: np.ndarray) -> None:
        """A long block times `scale` to its places, the first of `out` being number `base`."""
        # Products are rounded once: in float32 where it holds the scale, else in float64.
        with np.errstate(over="ignore", under="ignore"):
            short = np.float32(scale)
        factor = short if y.itemsize == 4 and float(short) == scale else np.float64(scale)
        start = self.starts[number]
        _scatter(y, factor, self.n, start, self._skipped(start), self._rest, base, out)

    def _window(self, size: int, dtype: np.dtype[Any]) -> np.ndarray:
        """Room for a long block and what lies between its entries, this thread's."""
        held: dict[Any, Any] = self._held.__dict__
        if "window" not in held or len(held["window"]) < size or held["window"].dtype != dtype:
            held["window"] = np.empty(size + self._rest // max(1, self.n // LARGEST), dtype=dtype)
        return held["window"][:size]

    def turned_back(self, y: np.ndarray, number: int, scale: float) -> tuple[np.ndarray, float]:
        """(z, c): `scale` times the inverse image of y, block `number`, is c z; y is used up."""
        start, size = self.starts[number], self.sizes[number]
        if size < SMALLEST:
            return _uniformly(y, self._key.fold(block=start), inverse=True), scale
        (streams, first), other = self._rounds(start, size), self._scratch(size, y.dtype)[1]
        high = _high(size) if len(streams) % 2 == 0 else size // _high(size)
        _turn_back(y, *_signs_of(y), streams, first, high, other)
        return y, scale * float(size) ** (-len(streams) / 2)

    def each_block(self, work: Callable[[int], Any]) -> list[Any]:
        """[work(number) for every block], by all threads."""
        whole = self.n // LARGEST
        parts = in_chunks(
            lambda _, low, high: [work(number) for number in range(low // LARGEST, high // LARGEST)],
            whole * LARGEST,
            LARGEST,
        )
        return [*(done for part in parts for done in part), *map(work, range(whole, len(self.sizes)))]


def _high(size: int) -> int:
    return 1 << (size.bit_length() // 2)


def _words(key: Key, rounds: int) -> np.ndarray:
    return np.array(key.words_of_each("round", rounds), dtype=np.uint64)


@lru_cache(4)
def _short_places(n: int) -> np.ndarray:
    rest = n % LARGEST
    stride = _stride(rest) if len(block_sizes(rest)) > 1 else 1
    return np.arange(rest) * stride % max(1, rest) * n // max(1, rest)


@with_gpu_form("hadamard")
def rotate(v: Tensor, seed: int) -> Tensor:
    """The rotation number `seed` of the flat v, block by block; an isometry. float64, or float32 for shorter floats."""
    x, rotation = plain(v), Rotation(len(v), seed)
    out = np.empty_like(x)

    def work(number: int) -> None:
        y, c = rotation.block(x, number)
        start = rotation.starts[number]
        np.divide(y, y.dtype.type(c), out=out[start : start + len(y)])

    rotation.each_block(work)
    return torch.from_numpy(out).to(v.device)


def rotated_at(v: Tensor, seed: int, index: Tensor) -> Tensor:
    """The entries number `index` (increasing int64, on the CPU) of the rotation of v in float64; on the CPU."""
    if on_gpu(v):
        return taken(rotate(v.double(), seed), index)
    x, rotation, places = plain(v), Rotation(len(v), seed), index.numpy()
    ends, out = np.searchsorted(places, [*rotation.starts, len(v)]), np.empty(len(places))

    def work(number: int) -> None:
        here = slice(ends[number], ends[number + 1])
        if here.start < here.stop:
            y, c = rotation.block(x, number, out.dtype)
            np.divide(y[places[here] - rotation.starts[number]], c, out=out[here])

    rotation.each_block(work)
    return torch.from_numpy(out)


@with_gpu_form("hadamard")
def rotate_back(y: Tensor, seed: int) -> Tensor:
    """The inverse of `rotate`, which is also its transpose."""
    x, rotation = plain(y), Rotation(len(y), seed)
    out = np.empty_like(x)

    def work(number: int) -> None:
        start = rotation.starts[number]
        block = rotation.scratch(number, x.dtype)
        block[:] = x[start : start + len(block)]
        rotation.block_back(block, number, 1.0, out)

    rotation.each_block(work)
    return torch.from_numpy(out).to(y.device)


def _stride(n: int) -> int:
    """Multiples, modulo n, of the first integer from 0.618 n on that is coprime to n go through 0 … n−1."""
    stride = int(0.6180339887498949 * n)
    while math.gcd(stride, n) != 1:
        stride += 1
    return stride


def _summed(a: Any) -> Any:
    """Σ a_i of fewer than 128 numbers in numpy's order: eight interleaved sums."""
    lanes, whole = np.zeros(8), len(a) // 8 * 8
    for i in range(whole):
        lanes[i & 7] += a[i]
    total = ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]))
    for i in range(whole, len(a)):
        total += a[i]
    return total


def _reflect_scalar(x: Any, normals: Any, inverse: bool) -> None:
    n, flip = len(x), np.sign(normals[len(normals) - 1])
    if not inverse:
        x[n - 1] *= flip
    for number in range(n - 1):
        i = number if inverse else n - 2 - number
        first = i * n - i * (i - 1) // 2
        mirror, rest = normals[first : first + n - i].copy(), x[i:]
        mirror /= np.sqrt(_summed(mirror * mirror))
        mirror[0] -= 1.0
        length = _summed(mirror * mirror)
        if length > 0.0:
            factor = 2.0 * _summed(mirror * rest) / length
            for j in range(n - i):
                rest[j] -= mirror[j] * factor
    if inverse:
        x[n - 1] *= flip


def _reflect_reference(x: np.ndarray, normals: np.ndarray, inverse: bool) -> None:
    n = len(x)
    ends = np.cumsum(np.arange(n, 0, -1))
    flip = np.sign(normals[-1])
    order = range(n - 1)
    if not inverse:
        x[-1] *= flip
    for i in order if inverse else reversed(order):
        mirror = normals[ends[i] - (n - i) : ends[i]].copy()
        mirror /= np.sqrt(np.square(mirror).sum())
        mirror[0] -= 1.0
        length = np.square(mirror).sum()
        if length > 0.0:
            with np.errstate(invalid="ignore", over="ignore"):  # infinite entries are refused by whoever asked
                x[i:] -= mirror * (2.0 * (mirror * x[i:]).sum() / length)
    if inverse:
        x[-1] *= flip


_reflect = Loop(_reflect_scalar, _reflect_reference, uses=[_summed])


def _uniformly(v: np.ndarray, key: Key, inverse: bool) -> np.ndarray:
    """A uniform orthogonal matrix as a product of reflections: number i takes e_i to a random direction of the last
    n − i axes.
    """
    x, n = v.astype(np.float64), len(v)
    _reflect(x, key.normal(n * (n + 1) // 2).numpy(), inverse)
    return x
