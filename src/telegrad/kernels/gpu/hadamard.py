"""Random rotations on a GPU: the long blocks as matrices of 256 by 256, by the additions that the CPU does.

A round is two launches. A program takes some adjacent columns of a block, all 256 rows of them, through the butterflies
between the rows; the first launch stores its columns as rows, so that the second finds the other half of the transform
in columns again. Which numbers are added to which is the transform's own, so that no order is left to choose. The
blocks shorter than 65536 entries, fewer entries than that in all, are rotated on the CPU.
"""

import math

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from telegrad.kernels.gpu.launching import BLOCK, launch
from telegrad.kernels.gpu.uniforms import uniform_bits
from telegrad.kernels.rotation.blocks import LARGEST
from telegrad.kernels.rotation.hadamard import Rotation
from telegrad.kernels.statistics.magnitudes import plain

__all__ = ["rotate", "rotate_back"]

_SIDE = tl.constexpr(256)
_WIDTH = 32  # columns of a program: whole lines of memory


@triton.jit
def _place(j, n, rest):  # type: ignore[no-untyped-def]
    """Where entry number j of the long blocks lies among n, of which `rest` belong to short ones."""
    return j + tl.minimum(((j + 1) * rest - 1) // (n - rest) + 1, rest)


@triton.jit(do_not_specialize=["rest"])
def _gather(x, n: tl.int64, rest: tl.int64, out, largest, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    program = tl.program_id(0).to(tl.int64)
    j = program * BLOCK + tl.arange(0, BLOCK)
    entry = tl.load(x + _place(j, n, rest))
    tl.store(out + j, entry)
    tl.store(largest + program, tl.max(tl.abs(entry)))


@triton.jit(do_not_specialize=["rest"])
def _scatter(y, n: tl.int64, rest: tl.int64, out, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    j = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + _place(j, n, rest), tl.load(y + j))


@triton.jit
def _butterfly(x, STEP: tl.constexpr, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    pairs = tl.reshape(x, (_SIDE * WIDTH // (2 * STEP), 2, STEP))
    a, b = tl.split(tl.permute(pairs, (0, 2, 1)))
    return tl.reshape(tl.permute(tl.join(a + b, a - b), (0, 2, 1)), (_SIDE, WIDTH))


@triton.jit
def _butterflies(x, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    for level in tl.static_range(8):
        x = _butterfly(x, (1 << level) * WIDTH, WIDTH)
    return x


@triton.jit
def _flipped(x, offset, inner, block, column, WIDTH: tl.constexpr):  # type: ignore[no-untyped-def]
    """Random signs, 32 from each number of the stream: bit j of number i to entry 2048 j + i of the block."""
    number = block * 2048 + tl.arange(0, 8)[:, None] * _SIDE + column
    drawn = uniform_bits(offset, inner, number) >> 21
    signs = (drawn[None, :, :] >> tl.arange(0, 32)[:, None, None].to(tl.uint64)) & 1
    signs = tl.reshape(signs, (_SIDE, WIDTH))
    # By its bit: 0 − x would make no −0.
    if x.dtype == tl.float64:
        flipped = (x.to(tl.int64, bitcast=True) ^ (signs.to(tl.int64) << 63)).to(tl.float64, bitcast=True)
    else:
        flipped = (x.to(tl.int32, bitcast=True) ^ (signs.to(tl.int32) << 31)).to(tl.float32, bitcast=True)
    return flipped


@triton.jit(do_not_specialize=["offset", "inner"])
def _half(  # type: ignore[no-untyped-def]
    x, out, factors, offset: tl.uint64, inner: tl.uint64,
    SCALED: tl.constexpr, FLIP_FIRST: tl.constexpr, FLIP_LAST: tl.constexpr, DIVIDED: tl.constexpr,
    TRANSPOSED: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Half a round of some columns of a block. `factors`: two to bring its entries near 1, and what to divide by."""
    program = tl.program_id(0).to(tl.int64)
    tiles = _SIDE // WIDTH
    block, tile = program // tiles, program % tiles
    row, column = tl.arange(0, _SIDE)[:, None], tile * WIDTH + tl.arange(0, WIDTH)[None, :]
    start = block * (_SIDE * _SIDE)
    entry = tl.load(x + start + row * _SIDE + column)
    if SCALED:
        entry = entry * tl.load(factors + 3 * block) * tl.load(factors + 3 * block + 1)
    if FLIP_FIRST:
        entry = _flipped(entry, offset, inner, block, column, WIDTH)
    entry = _butterflies(entry, WIDTH)
    if FLIP_LAST:
        entry = _flipped(entry, offset, inner, block, column, WIDTH)
    if DIVIDED:
        divisor = tl.load(factors + 3 * block + 2)
        # Triton's own division of float32 numbers is not rounded to the nearest.
        entry = entry / divisor if entry.dtype == tl.float64 else tl.math.div_rn(entry, divisor)
    if TRANSPOSED:
        tl.store(out + start + column * _SIDE + row, entry)
    else:
        tl.store(out + start + row * _SIDE + column, entry)


def _start(x: Tensor, out: Tensor, factors: Tensor, stream: tuple[int, int], **what: bool) -> None:
    flags = {flag: what.get(flag, False) for flag in ("SCALED", "FLIP_FIRST", "FLIP_LAST", "DIVIDED", "TRANSPOSED")}
    width = _WIDTH * 4 // x.element_size()
    launch(_half, len(x) // (_SIDE.value * width), x, out, factors, *stream, **flags, WIDTH=width)


def _factors(rows: list[tuple[float, float, float]], like: Tensor) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).to(like.dtype).to(like.device)


def rotate(v: Tensor, seed: int) -> Tensor:
    """The form of `telegrad.kernels.rotation.hadamard.rotate`, on v's device."""
    x = _wide(v)
    n, rotation = len(x), Rotation(len(x), seed)
    whole, out = n - n % LARGEST, torch.empty_like(x)
    if whole:
        room, largest = torch.empty((2, whole), dtype=x.dtype, device=x.device), x.new_empty(whole // BLOCK)
        launch(_gather, whole // BLOCK, x, n, n - whole, room[0], largest, BLOCK=BLOCK)
        exponents = [-math.frexp(peak)[1] for peak in largest.view(-1, LARGEST // BLOCK).amax(1).tolist()]
        rows = [(2.0 ** (e // 2), 2.0 ** (e - e // 2), float(LARGEST) * 2.0**e) for e in exponents]
        factors, streams = _factors(rows, x), rotation.whole_words.tolist()
        _start(room[0], room[1], factors, streams[0], SCALED=True, FLIP_FIRST=True, TRANSPOSED=True)
        _start(room[1], room[1], factors, streams[0])
        _start(room[1], room[0], factors, streams[1], FLIP_FIRST=True, TRANSPOSED=True)
        _start(room[0], out[:whole], factors, streams[1], DIVIDED=True)
    if n > whole:
        short = plain(x[torch.from_numpy(rotation.short_places).to(x.device)])
        for number in range(whole // LARGEST, len(rotation.sizes)):
            at = slice(rotation.starts[number] - whole, rotation.starts[number] - whole + rotation.sizes[number])
            y, c = rotation.turned(short[at].copy(), number)
            short[at] = y / y.dtype.type(c)
        out[whole:] = torch.from_numpy(short).to(x.device)
    return out


def rotate_back(y: Tensor, seed: int) -> Tensor:
    """The form of `telegrad.kernels.rotation.hadamard.rotate_back`, on y's device."""
    x = _wide(y)
    n, rotation = len(x), Rotation(len(x), seed)
    whole, out = n - n % LARGEST, torch.empty_like(x)
    if whole:
        room, streams = torch.empty((2, whole), dtype=x.dtype, device=x.device), rotation.whole_words.tolist()
        factors = _factors([(1.0, 1.0, float(LARGEST))] * (whole // LARGEST), x)
        _start(x[:whole], room[0], factors, streams[1], TRANSPOSED=True)
        _start(room[0], room[0], factors, streams[1], FLIP_LAST=True)
        _start(room[0], room[1], factors, streams[0], TRANSPOSED=True)
        _start(room[1], room[1], factors, streams[0], FLIP_LAST=True, DIVIDED=True)
        launch(_scatter, whole // BLOCK, room[1], n, n - whole, out, BLOCK=BLOCK)
    if n > whole:
        short = plain(x[whole:]).copy()
        for number in range(whole // LARGEST, len(rotation.sizes)):
            at = slice(rotation.starts[number] - whole, rotation.starts[number] - whole + rotation.sizes[number])
            turned, scale = rotation.turned_back(short[at].copy(), number, 1.0)
            short[at] = turned.astype(np.float64) * scale
        out[torch.from_numpy(rotation.short_places).to(x.device)] = torch.from_numpy(short).to(x.device)
    return out


def _wide(v: Tensor) -> Tensor:
    return (v.float() if v.element_size() == 2 else v).contiguous()
