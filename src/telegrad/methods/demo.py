"""DeMo: the largest cosine coefficients of a decaying momentum, and steps by signs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.dct import DCT
from telegrad.methods.base import State, Step
from telegrad.methods.gradient_method import GradientMethod
from telegrad.spec import check_that, register
from telegrad.wire.code import Code
from telegrad.wire.values.cosine import Cosine, cosines

__all__ = ["DeMo"]


@register("demo", example="demo(chunk=64, k=8)", source="A22; Peng, Quesnelle, Kingma 2024")
@dataclass(frozen=True)
class DeMo(GradientMethod):
    """DeMo: decoupled momentum, of which the largest cosine coefficients are sent.

    δ_i ← β δ_i + γ g_i; the k largest coefficients q_i of δ_i in the cosine basis of each chunk are sent, and leave
    δ_i; the estimate is the sign of what the coefficients, each averaged over the workers that sent it, stand for
    (A22.1).

    γ is the learning rate, `decay` is β. Meant for plain SGD, whose step is then γ sign(…), and `granularity=tensor`
    as in the paper; chunks are those of the flat vector.

    Args:
        chunk: entries of a chunk.
        k: coefficients sent of each chunk.
        decay: β in [0, 1).

    References:
        Peng, Quesnelle and Kingma, "DeMo: Decoupled Momentum Optimization", 2024, https://arxiv.org/abs/2411.19870
    """

    chunk: int = 64
    k: int = 8
    decay: float = 0.999

    def __post_init__(self) -> None:
        self._compressor()
        check_that(0 <= self.decay <= 1, self, "decay", "a number in [0, 1] is allowed")

    def _compressor(self) -> DCT:
        return DCT(self.chunk, self.k)

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        return {"momentum": torch.zeros(d, dtype=dtype)}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        momentum = self.decay * state["momentum"] + step.lr * gradient
        code = self._compressor().encode(momentum, step.uplink(rank))
        left = momentum.clone()
        code.add_to(left, -1.0)
        return code, {"momentum": left}

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return {}

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        d, dtype = codes[0].numel, codes[0].dtype
        sums, senders = torch.zeros(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
        for term in (term for code in codes for term in code.terms):
            assert isinstance(term.values, Cosine)
            numbers, places = term.values.values.numbers().double(), term.values.positions.indices()
            for out, added in ((sums, numbers), (senders, torch.ones_like(numbers))):
                out += added if places is None else torch.zeros_like(out).index_add_(0, places.long(), added)
        mean = cosines(sums / senders.clamp(min=1), self.chunk, inverse=True)
        return mean.sign().to(torch.float64 if dtype == torch.float64 else torch.float32), state
