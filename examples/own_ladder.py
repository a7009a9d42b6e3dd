"""A ladder of your own, made unbiased by MLMC, and compared with Top-k under the same bits.

python examples/own_ladder.py

The ladder halves: level 1 is the largest half of what is left, level 2 the largest half of the rest, and so on, so that
a vector of d entries has about log2(d) levels.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

import telegrad as tg
from telegrad.mlmc import Levels
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats


@tg.register("doubling", example="doubling(first=8)", source="an example")
@dataclass(frozen=True)
class Doubling(tg.Ladder):
    """Blocks of the sorted entries that double in length: `first`, 2 · first, 4 · first, …"""

    first: int = 8
    values = "fp32"

    def omega(self, d, adaptive):
        """A bound: (Σ‖r_l‖)² ≤ L Σ‖r_l‖² for L adaptive levels; the largest 1/p_l for fixed ones, p_l ∝ 2^−l."""
        levels = len(_edges(d, self.first)) - 1
        return levels - 1 if adaptive else 2**levels - 2

    def levels(self, v):
        return _Blocks(v, self.first)


def _edges(d, first):
    edges = [0]
    while edges[-1] < d:
        edges.append(min(d, edges[-1] + first * 2 ** (len(edges) - 1)))
    return edges


class _Blocks(Levels):
    orthogonal = True

    def __init__(self, v, first):
        edges = _edges(len(v), first)
        order = v.abs().argsort(descending=True, stable=True)
        self.v, self.blocks = v.double(), [order[a:b].sort().values for a, b in pairwise(edges)]

    def norms(self):
        return torch.stack([self.v[block].norm() for block in self.blocks])

    def costs(self):
        return torch.tensor([128.0 + 40 * len(block) for block in self.blocks], dtype=torch.float64)

    def fixed_probabilities(self):
        weights = 2.0 ** -torch.arange(1, len(self.blocks) + 1, dtype=torch.float64)
        return weights / weights.sum()

    def base(self):
        return ()

    def residual(self, level):
        block = self.blocks[level - 1]
        return (Term(IndexSet(len(self.v), block), Floats(self.v[block])),)


def main():
    gradient = torch.randn(4096, generator=torch.Generator().manual_seed(0)) ** 3
    compressor = tg.compressor("mlmc(doubling(first=16))")
    print(f"unbiased: {compressor.unbiased}; ω = {compressor.variance(gradient) / gradient.square().sum():.2f}")
    for workers in (1, 16, 256):
        codes = [compressor.encode(gradient, tg.Key(0).fold(rank=rank)) for rank in range(workers)]
        mean = sum(code.decode() for code in codes) / workers
        bits = sum(code.nbits for code in codes) / workers / len(gradient)
        error = (mean - gradient).square().sum() / gradient.square().sum()
        print(f"{workers:4} workers: {bits:.2f} bits an entry, squared error of their mean {error:.3f} ‖g‖²")


if __name__ == "__main__":
    main()
