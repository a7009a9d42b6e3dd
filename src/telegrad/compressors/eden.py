"""EDEN: a random rotation makes every vector look Gaussian, and a quantiser made for that law does the rest."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from telegrad.compressors.base import Encoded, Unbiased
from telegrad.compressors.normalised import Normalised
from telegrad.compressors.rotated_coder import RotatedCoder
from telegrad.kernels.quantising.gaussian_cells import lloyd_max_omega
from telegrad.kernels.selection.by_rank import SMALL
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.wire.code import Term
from telegrad.wire.positions import All, Positions, Subset
from telegrad.wire.values import LloydMaxCells

__all__ = ["Eden"]


@register(
    "eden",
    example="eden(bits=0.5, coder=entropy)",
    source="A21; A28; Vargaftik et al. 2021 (DRIVE) and 2022 (EDEN); Marcellin and Fischer 1990",
)
@dataclass(frozen=True)
class Eden(Unbiased):
    """EDEN: a random rotation and a quantiser of its nearly normal entries, scaled to be unbiased; DRIVE at one bit.

    C(x) = Rᵀ (S_b q_b): y = R x, rotated block by block; q_b cells of y_b √n_b / ‖x_b‖; S_b = ‖x_b‖² / ⟨q_b, y_b⟩.

    The scale S makes ⟨C(x), x⟩ = ‖x‖² for every draw (A21.3). `coder=fixed`: Lloyd-Max centroids of N(0, 1); bits=1 is
    DRIVE; between whole bits a share of the entries gets one bit more; below 1 a random subset of the entries is sent,
    times d/k. `coder=entropy`: a uniform quantiser with a dead zone, its symbols entropy coded so that the whole
    message has `bits` a coordinate (A21.5).

    `coder=trellis`: the path of least error and bits through a machine of `states` (A28), up to 6 bits; 256 states save
    another 6 to 10 % of the error and take some ten times as long to encode.

    omega and `variance` are a prediction, D / (1 − D) with D the quantiser's distortion of N(0, 1): .571, .133, .0358
    at 1, 2, 3 fixed bits (A21.4); .536, .0977, .0228 entropy coded, at the rate that a message of so many entries has
    for symbols; .384, .0747, .0177 with a trellis of 8 states, .357, .0704, .0167 of 256, for large d. Unbiased exactly
    under a uniform rotation, which the last d mod 64 entries have; under the rounds of Hadamard transforms of all
    others up to ‖bias‖² of about 1e-5 ‖x‖² for most x. One bit leaves up to 7e-5 where one entry is far larger than all
    others, and 1e-3 where these are only 64; two nearly equal entries among 64 leave 2e-3. So `exact` is false, and
    methods treat it as unbiased.

    Args:
        bits: bits a coordinate: of the symbols (fixed), or of the whole message (entropy, trellis).
        coder: fixed, entropy or trellis.
        states: of the trellis: 8 or 256.

    References:
        Marcellin and Fischer, "Trellis Coded Quantization of Memoryless and Gauss–Markov Sources", 1990,
            https://doi.org/10.1109/26.46532
        Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", 2021, https://arxiv.org/abs/2105.08339
        Vargaftik et al., "EDEN: Communication-Efficient and Robust Distributed Mean Estimation for Federated Learning",
            2022, https://arxiv.org/abs/2108.08842
    """

    bits: float = 1.0
    coder: Literal["fixed", "entropy", "trellis"] = "fixed"
    states: Literal[8, 256] = 8

    exact = False

    def __post_init__(self) -> None:
        most = 8 if self.coder == "fixed" else self._coder.most
        check_that(0 < self.bits <= most, self, "bits", f"bits a coordinate above 0 and up to {most:g} are allowed")
        if self.coder != "trellis":
            check_that(self.states == 8, self, "states", "with coder=trellis another number is allowed")

    @property
    def _coder(self) -> RotatedCoder:
        assert self.coder != "fixed"
        return RotatedCoder(self.coder, self.states)

    def omega(self, d: int) -> float:
        if self.coder != "fixed":
            return float(self._coder.omega(self.bits * d, d))
        return (
            lloyd_max_omega(self.bits)
            if self.bits >= 1
            else lloyd_max_omega(1) * d / self._kept(d) + d / self._kept(d) - 1
        )

    def _kept(self, d: int) -> int:
        return min(d, max(1, round(self.bits * d)))

    def checks(self, v: Tensor) -> bool:
        # Every entry goes into a block whose energy is looked at; float64 may have to be scaled first.
        return self.coder == "fixed" and self.bits >= 1 and v.numel() >= SMALL and v.dtype != torch.float64

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        d = len(v)
        if self.coder != "fixed":
            return Encoded((self._coder.term(v, self.bits * d, v.dtype, key),))
        positions: Positions = All(d)
        x, factor = v, 1.0
        if self.bits < 1:
            positions = Subset(d, self._kept(d), key.fold(role="subset").to_int())
            x, factor = v[positions.indices().to(v.device)], d / positions.n
        bits = max(1, int(self.bits))
        share = round((self.bits - bits) * 65536) if self.bits > 1 else 0
        vector, cells = Normalised(x, key), LloydMaxCells.blank(len(x), bits, share)
        rotation = vector.rotation
        matches = rotation.each_block(lambda number: cells.quantise(rotation.starts[number], vector.block(number)))
        values = vector.carried(All(len(x)), cells, matches).scaled(factor)
        return Encoded((Term(positions, values.rounded(v.dtype, key)),))

    def _variance(self, v: Tensor) -> float:
        return self.omega(len(v)) * float(v.double().square().sum())
