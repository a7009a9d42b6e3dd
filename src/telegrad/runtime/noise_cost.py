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
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from telegrad.runtime.exchange import Exchange

__all__ = ["FollowedSteps", "Watch", "cost_of_noise", "persistence"]

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


class FollowedSteps:
    """Sees what noise costs over so many `steps`, which lie one behind the other.

    `harm`: q in the end; None before it was seen, NaN where that cannot be told.
    """

    def __init__(self, parameters: Mapping[str, Tensor], steps: int) -> None:
        self._parameters, self._steps = list(parameters.values()), steps
        self.harm: float | None = None
        self._watch: Watch | None = None
        self._views: dict[Tensor, Tensor] = {}
        self._square = math.nan
        self.costs = [math.nan] * (steps - 1)
        """q of this rank, step by step."""

    @property
    def going(self) -> bool:
        """Whether steps are followed, or were, and nothing is concluded yet."""
        return self._watch is not None

    def begin(self, exchange: Exchange, views: Mapping[Tensor, Tensor]) -> None:
        """Follow the step whose gradients lie in `views`, by parameter, and those that come."""
        self._watch, exchange.errors = Watch(self._parameters), {}
        self.begin_step(0, exchange)
        self._views = dict(views)

    def begin_step(self, place: int, exchange: Exchange) -> None:
        """The step at this place begins: the last one's errors are known, and how they lie to its gradients."""
        if self._watch is None:
            return
        if place > 1:
            workers = exchange.transport.workers
            self.costs[place - 2] = -workers * exchange.along / self._square if self._square else 0.0
        self._square, exchange.along = exchange.error[0], 0.0
        if place == self._steps:
            exchange.errors, self._views = None, {}
        self._watch.begin()

    def add(self, views: Mapping[Tensor, Tensor]) -> None:
        """More gradients of this step, where the estimates will be."""
        self._views.update(views)

    def end_step(self) -> None:
        """The estimates of the step are there."""
        if self._watch is not None:
            self._watch.end(self._views)

    def persistence(self) -> float:
        """The optimizer's momentum; NaN where no steps were followed."""
        return self._watch.persistence() if self._watch is not None else math.nan

    def conclude(self, costs: Sequence[float], beta: float) -> None:
        """What noise costs, from the ranks' q's."""
        self.harm, self._watch = cost_of_noise(costs, beta), None

    def forget(self, exchange: Exchange) -> None:
        """Begin anew, with nothing known."""
        self.harm, self._watch, exchange.errors, self._views = None, None, None, {}


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
