"""EF14: classical error feedback."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import NonFiniteError
from telegrad.methods.base import State, Step, mean_of, require_finite
from telegrad.methods.contractive import require_contractive
from telegrad.methods.gradient_method import GradientMethod
from telegrad.spec import check_that, register
from telegrad.wire.code import Code

__all__ = ["EF14"]


@register(
    "ef14", example="ef14(topk(k=0.01))", source="C4; Seide et al. 2014; Stich et al. 2018; Karimireddy et al. 2019"
)
@dataclass(frozen=True)
class EF14(GradientMethod):
    """EF14: classical error feedback, which adds what compression left out to the next step.

    p_i = e_i + γ g_i; send c_i = C(p_i); e_i ← p_i − c_i; x ← x − (1/M) Σ c_i (C4.1), γ the current learning rate.

    The step size is inside the memory, so a schedule may change it. The estimate handed to the optimizer is (1/M) Σ c_i
    / γ: plain SGD then makes just the move above, and x_t − (1/M) Σ e_i is SGD's own iterate (C4.2). In a step with γ =
    0 nothing is sent. Needs a contractive compressor.

    Args:
        compressor: a contractive one, such as topk(k=0.01).
        decay: p_i = decay · e_i + γ g_i, so that the memory fades.
        momentum: β, after decompression: m ← β m + (1/M) Σ c_i / γ, and the estimate is that mean plus m. So PowerSGD
            is trained with in its paper: `ef14(powersgd(rank=2, start=last), momentum=0.9)`, under plain SGD and
            granularity=tensor.

    References:
        Karimireddy et al., "Error Feedback Fixes SignSGD and other Gradient Compression Schemes", 2019,
            https://arxiv.org/abs/1901.09847
        Seide et al., "1-Bit Stochastic Gradient Descent and its Application to Data-Parallel Distributed Training of
            Speech DNNs", 2014,
            https://doi.org/10.21437/Interspeech.2014-274
        Stich, Cordonnier and Jaggi, "Sparsified SGD with Memory", 2018, https://arxiv.org/abs/1809.07599
        Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
            2019, https://arxiv.org/abs/1905.13727
    """

    compressor: Compressor
    decay: float = 1.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        require_contractive(self, self.compressor)
        check_that(0 < self.decay <= 1, self, "decay", "a number in (0, 1] is allowed")
        check_that(0 <= self.momentum < 1, self, "momentum", "a weight of the old momentum in [0, 1) is allowed")

    def worker_init(self, d: int, dtype: torch.dtype) -> State:
        return {"error": torch.zeros(d, dtype=dtype)}

    def worker_step(self, gradient: Tensor, state: State, rank: int, step: Step) -> tuple[Code, State]:
        if step.lr == 0.0:
            if not bool(gradient.isfinite().all()):
                raise NonFiniteError("the gradient holds NaN or infinity")
            return Code(tuple(gradient.shape), gradient.dtype), state
        error = state["error"] if self.decay == 1.0 else self.decay * state["error"]
        pending = error + step.lr * gradient
        code = self.compressor.encode(pending, step.uplink(rank))
        return code, {"error": pending - code.decode()}

    def server_init(self, d: int, dtype: torch.dtype) -> State:
        return {"momentum": torch.zeros(d, dtype=dtype)} if self.momentum else {}

    def server_step(self, codes: Sequence[Code], state: State, step: Step) -> tuple[Tensor, State]:
        mean = mean_of(codes, 1 / step.lr if step.lr else 0.0, step.workspace)
        if not self.momentum:
            return mean, state
        momentum = self.momentum * state["momentum"] + mean
        estimate = mean + momentum
        require_finite(estimate.to(codes[0].dtype))
        return estimate, {"momentum": momentum}
