"""EF21: workers send compressed differences to what the server already knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.methods.base import EVERYONE, Round, State, Step
from telegrad.methods.contractive import require_contractive
from telegrad.methods.downlink import Downlink
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.participation import participating, share_of
from telegrad.methods.shift import accumulate, empty_estimate, send_difference
from telegrad.spec import Amount, check_amount, register
from telegrad.wire.code import Code

__all__ = ["EF21"]


@register(
    "ef21",
    example="ef21(topk(k=0.01))",
    source="C5; Richtárik, Sokolov, Fatkhullin 2021; Fatkhullin, Sokolov, Gorbunov, Li, Richtárik 2021",
)
@dataclass(frozen=True)
class EF21(GradientMethod):
    """EF21: error feedback by compressed differences between gradients and their estimates.

    c_i = C(∇f_i(x) − g_i); g_i ← g_i + c_i; the estimate is g ← g + (1/M) Σ c_i = (1/M) Σ g_i (C5.1).

    All g_i start at zero, so the first message is C(∇f_i(x_0)) and no round is idle. Needs a contractive compressor.
    The optimizer's momentum makes it EF21-HB.

    Args:
        compressor: a contractive one, such as topk(k=0.01).
        down: a contractive compressor of what a server sends, of which all ends keep a memory (EF21-BC).
        participation: a count or a fraction of the workers, drawn anew in every step; the others send nothing
            (EF21-PP).

    References:
        Fatkhullin et al., "EF21 with Bells & Whistles: Practical Algorithmic Extensions of Modern Error Feedback",
            2021, https://arxiv.org/abs/2110.03294
        Richtárik, Sokolov and Fatkhullin, "EF21: A New, Simpler, Theoretically Better, and Practically Faster Error
            Feedback", 2021, https://arxiv.org/abs/2106.05203
    """

    compressor: Compressor
    down: Compressor | None = None
    participation: Amount | None = None

    def __post_init__(self) -> None:
        require_contractive(self, self.compressor)
        if self.down is not None:
            require_contractive(self, self.down)
        check_amount(self, "participation", of="the workers")

    def plan(self, step: Step) -> Round:
        return EVERYONE if self.participation is None else participating(self.participation, step)

    def downlink(self) -> Downlink | None:
        return None if self.down is None else Downlink(self.down, memory=True)

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        return {"known": torch.zeros(d, dtype=dtype)}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        code, known = send_difference(self.compressor, gradient, state["known"], step.uplink(rank))
        return code, {"known": known}

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return empty_estimate(d, dtype)

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        return accumulate(codes, state, share_of(len(codes), self.participation, step))
