"""Random rotations that both ends rebuild from a seed: randomised Hadamard transforms, uniform rotations where small.

n entries are cut into blocks of 65536, then one block for each binary digit of what is left, down to 64 (A21): no
padding. Which entries share a block is settled by a fixed stride near the golden section of n: neighbours part, so
that no short block gets the largest entries of a sorted vector. A block of m >= 64 is rotated by rounds of
H · diag(signs): two, and three below 4096 entries, where the bias that a rotation of so few random signs leaves to
quantisers is largest. The fewer than 64 entries at the end form one block under a uniformly distributed orthogonal
matrix (Diaconis and Shahshahani 1987), so that small tensors suffer no bias at all. All in float64, by additions and
subtractions in a fixed order.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from telegrad.random import Key

__all__ = ["LARGEST", "SMALLEST", "block_sizes", "hadamard", "rotate", "rotate_back"]

LARGEST = 65536
"""The longest block: half a megabyte, which the caches of one core hold."""
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


def hadamard(x: Tensor) -> Tensor:
    """The orthonormal Walsh-Hadamard transform of every row of x, shape (rows, 2^m); it is its own inverse.

    A row is a matrix of about √n columns: butterflies between its rows, transposed, once more. So the innermost loop
    runs over many adjacent entries in every pass.
    """
    count, n = x.shape
    high = 1 << (n.bit_length() // 2)
    y = _butterflies(x.reshape(count, high, n // high).clone())
    y = _butterflies(y.transpose(1, 2).contiguous()).transpose(1, 2)
    return y.reshape(count, n) / n**0.5


def _butterflies(x: Tensor) -> Tensor:
    """Transform axis 1 of the contiguous (count, r, c) tensor x, in place."""
    count, r, c = x.shape
    h = 1
    while h < r:
        pairs = x.view(count, r // (2 * h), 2, h * c)
        upper, lower = pairs[:, :, 0], pairs[:, :, 1]
        difference = upper - lower
        upper += lower
        lower.copy_(difference)
        h *= 2
    return x


def rotate(v: Tensor, seed: int) -> Tensor:
    """The rotation number `seed` of the flat float64 v, block by block; an isometry."""
    return _each_block(v, seed, inverse=False)


def rotate_back(y: Tensor, seed: int) -> Tensor:
    """The inverse of `rotate`, which is also its transpose."""
    return _each_block(y, seed, inverse=True)


def _each_block(v: Tensor, seed: int, inverse: bool) -> Tensor:
    n, key, parts = len(v), Key(seed), []
    spread = _spread(n).to(v.device) if len(block_sizes(n)) > 1 else None
    if spread is not None and not inverse:
        v = v[spread]
    whole = n // LARGEST * LARGEST
    if whole:
        parts.append(_mixed(v[:whole].view(-1, LARGEST), key.fold(block=0), inverse).reshape(-1))
    at = whole
    for size in block_sizes(n - whole):
        block, block_key = v[at : at + size], key.fold(block=at)
        if size < SMALLEST:
            parts.append(_uniformly(block, block_key, inverse))
        else:
            parts.append(_mixed(block[None], block_key.fold(size=size), inverse)[0])
        at += size
    out = torch.cat(parts) if parts else v.clone()
    if spread is not None and inverse:
        return torch.empty_like(out).index_copy_(0, spread, out)
    return out


def _spread(n: int) -> Tensor:
    """A permutation of 0 … n−1: multiples, modulo n, of the first integer from 0.618 n on that is coprime to n."""
    stride = int(0.6180339887498949 * n)
    while math.gcd(stride, n) != 1:
        stride += 1
    return torch.arange(n, dtype=torch.int64).mul_(stride).remainder_(n)


def _mixed(x: Tensor, key: Key, inverse: bool) -> Tensor:
    """Rounds of H · diag(signs) on every row."""
    rounds = range(2 if x.shape[1] >= _SAFE else 3)
    for number in reversed(rounds) if inverse else rounds:
        signs = _signs(key.fold(round=number), x.numel()).to(x.device).view(x.shape)
        x = hadamard(x) * signs if inverse else hadamard(x * signs)
    return x


def _signs(key: Key, n: int) -> Tensor:
    """n fair signs, 16 from each number of the stream."""
    words = key.integers((n + 15) // 16, 1 << 16).numpy().astype("<u2")
    bits = np.unpackbits(words.view(np.uint8), count=n)
    return torch.from_numpy(1.0 - 2.0 * bits)


def _uniformly(v: Tensor, key: Key, inverse: bool) -> Tensor:
    """A uniform orthogonal matrix as a product of reflections: number i takes e_i to a random direction of the last
    n − i axes.
    """
    x, n = v.detach().cpu().numpy().astype(np.float64), len(v)
    normals = key.normal(n * (n + 1) // 2).numpy()
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
    return torch.from_numpy(x).to(v.device)
