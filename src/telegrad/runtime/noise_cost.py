"""What the errors of compressed messages cost in progress, from a few steps that were taken with them.

A step of SGD moves the parameters by −η(g + e), where e is the error of the mean estimate: of mean zero, and
independent of the gradients. It gains η‖g‖² to first order, and e takes ½ η² eᵀHe of it. The next gradient shows that:
E[e·g'] = −η E[eᵀHe]. Rank m needs only its own messages' errors e_m, of which e is the mean, and its own next gradient:

    q = −M Σ_m e_m·g'_m / Σ_m ‖e_m‖²,    share of the progress that is lost = q W / 2,

W = E‖e‖²/‖g‖². An optimizer with momentum β moves on along e, by 1/(1 − β) times as much in the end. Which β it has
shows in how the parameters move; of one whose moves are not a gradient's and the last move's, as Adam's are not,
nothing is said. Errors of directions that curve little cost little: that is why training bears far more noise than
guarantees promise.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

__all__ = ["Watch", "cost_of_noise", "persistence"]

_SAMPLE = 1 << 15  # entries of the parameters that are followed
_UNEXPLAINED = 0.02  # of a move's squared norm, at most, is of neither the gradient nor the last move


class Watch:
    """Follows some of the parameters, and the estimates of their gradients, over a few steps."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = list(parameters)
        self._stride = max(1, sum(map(Tensor.numel, self._parameters)) // _SAMPLE)
        self._points: list[Tensor] = []
        self._gradients: list[Tensor] = []

    def begin(self) -> None:
        """A step begins: where the parameters are."""
        self._points.append(self._sampled(self._parameters))

    def end(self, estimates: dict[Tensor, Tensor]) -> None:
        """The estimates of the step, by parameter."""
        self._gradients.append(self._sampled([estimates[one] for one in self._parameters]))

    def persistence(self) -> float:
        """The optimizer's momentum, see `persistence`."""
        moves = [after - before for before, after in zip(self._points, self._points[1:], strict=False)]
        gradients = self._gradients[: len(moves)]
        if len(gradients) < 2 or len(gradients) < len(moves):
            return math.nan
        return persistence(moves[-1], gradients[-1], moves[-2])

    def _sampled(self, tensors: Sequence[Tensor]) -> Tensor:
        return torch.cat([one.detach().reshape(-1)[:: self._stride] for one in tensors]).double().cpu()


def persistence(move: Tensor, gradient: Tensor, before: Tensor) -> float:
    """β in move = −η gradient + β before, by least squares, from 0; NaN where these do not explain the move, or where
    nothing moves.
    """
    columns = torch.stack([gradient, before], dim=1)
    square = float(move.square().sum())
    if not (square > 0 and math.isfinite(square) and bool(columns.isfinite().all())):
        return math.nan
    found = torch.linalg.lstsq(columns, move[:, None]).solution if bool(before.any()) else None
    if found is None:
        slope = float(gradient @ move) / max(float(gradient.square().sum()), 1e-300)
        found = torch.tensor([[slope], [0.0]], dtype=torch.float64)
    rest = float((move - (columns @ found)[:, 0]).square().sum())
    slope, beta = found[:, 0].tolist()
    return max(beta, 0.0) if rest <= _UNEXPLAINED * square and slope < 0 and beta < 1 else math.nan


def cost_of_noise(figures: Sequence[float], beta: float) -> float:
    """q from the ranks' and steps' own q's, with momentum, and two standard errors above it; from 0; NaN for none."""
    told = [figure for figure in figures if math.isfinite(figure)]
    if len(told) < 2 or not math.isfinite(beta):
        return math.nan
    error = statistics.stdev(told) / math.sqrt(len(told))
    return max(statistics.mean(told) + 2 * error, 0.0) / (1 - beta)
