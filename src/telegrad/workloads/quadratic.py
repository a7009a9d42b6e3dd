"""A synthetic quadratic: every constant is known in closed form, and no data is needed.

f(x) = (1/n) Σ_j f_j(x), f_j(x) = ½ (x − b_j)ᵀ diag(a_j) (x − b_j), one example j a pair of rows a_j > 0 and b_j.
With ā = mean_j a_j, f is ½ (x − x*)ᵀ diag(ā) (x − x*) + f* where x* = mean_j(a_j b_j) / ā (entry by entry).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.workloads.base import LoadedTask, Split, Task, Workload

__all__ = ["Quadratic", "QuadraticTask"]


class _Point(nn.Module):
    """The one parameter `x` of shape (d,), zero at first; maps (…, d) centres b to x − b."""

    def __init__(self, d: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(d, dtype=dtype))

    def forward(self, centres: Tensor) -> Tensor:
        return self.x - centres


@dataclass(frozen=True, eq=False)
class QuadraticTask(LoadedTask):
    """The quadratic with its examples: inputs (n, 2d), row j is (a_j, b_j); targets (n,), all zero and unused.

    `train`, `validation` and `test` are one and the same split: an objective has nothing to generalise to, and the gap
    to its minimum is what is of interest. This is the one workload whose splits overlap.
    """

    noise: float
    classes: int | None = None
    metric: ClassVar[str] = "gap"
    higher_is_better: ClassVar[bool] = False

    def model(self, key: Key) -> nn.Module:
        """x = 0, whatever the key."""
        return _Point(self.train.inputs.shape[1] // 2, self.train.inputs.dtype)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """mean_j ½ (x − b_j)ᵀ diag(a_j) (x − b_j) over the batch."""
        curvatures, centres = inputs.chunk(2, dim=-1)
        return (curvatures * model(centres).square()).sum(dim=-1).mean() / 2

    def augment(self, inputs: Tensor, key: Key) -> Tensor:
        """Gradient noise: b_j becomes b_j + noise · z / a_j, with its own standard normal z of shape (d,).

        So the gradient a_j (x − b_j) of each example gets −noise · z: unbiased, with variance d · noise² at every x.
        The value of the loss goes up by ½ noise² Σ_k 1/a_jk in expectation; the score knows nothing of the noise.
        """
        if self.noise == 0:
            return inputs
        curvatures, centres = inputs.chunk(2, dim=-1)
        z = key.normal(centres.numel()).view(centres.shape).to(centres)
        return torch.cat([curvatures, centres + self.noise * z / curvatures], dim=-1)

    @torch.no_grad()
    def score(self, model: nn.Module, split: Split) -> float:
        """f(x) − f* on the split, from its closed form, so that no digits cancel near the minimum; in float64."""
        offset = model(self.minimiser(split).to(next(model.parameters()))).double().cpu()
        return float((split.inputs.double().chunk(2, dim=1)[0].mean(dim=0) * offset.square()).sum()) / 2

    def minimiser(self, split: Split) -> Tensor:
        """x* = mean_j(a_j b_j) / mean_j a_j of a split or a worker's part of it, shape (d,), float64."""
        curvatures, centres = split.inputs.double().chunk(2, dim=1)
        return (curvatures * centres).mean(dim=0) / curvatures.mean(dim=0)

    def minimum(self, split: Split) -> float:
        """f* = f(x*) = mean_j ½ (x* − b_j)ᵀ diag(a_j) (x* − b_j)."""
        curvatures, centres = split.inputs.double().chunk(2, dim=1)
        return float((curvatures * (self.minimiser(split) - centres).square()).sum(dim=1).mean()) / 2

    def smoothness(self, split: Split) -> float:
        """L = max_k ā_k, the Hessian's largest eigenvalue."""
        return float(split.inputs.double().chunk(2, dim=1)[0].mean(dim=0).max())

    def strong_convexity(self, split: Split) -> float:
        """mu = min_k ā_k, the Hessian's least eigenvalue."""
        return float(split.inputs.double().chunk(2, dim=1)[0].mean(dim=0).min())

    def curvature(self, rows: Tensor | None = None) -> tuple[float, float]:
        """L and mu of the training split, or of its `rows`: a worker's."""
        split = self.train if rows is None else self.train.rows(rows)
        return self.smoothness(split), self.strong_convexity(split)


@register("quadratic", example="quadratic(d=32, condition=100)", source="telegrad's own")
@dataclass(frozen=True)
class Quadratic(Workload):
    """A diagonal quadratic of `d` variables, the mean over `examples` of their own quadratics.

    Needs no folder: `data` is ignored. `key` draws c, z and u.

    Args:
        d: variables.
        examples: quadratics whose mean is f.
        condition: the curvatures run geometrically from 1 down to 1 / `condition` (L = 1, mu = 1 / `condition`).
        spread: how far apart the examples' minimisers lie: b_j = c + spread · z_j with a common c and standard normal
            z_j. At 0 all examples agree; with as many examples as workers it is the heterogeneity between workers.
        curvature_spread: a_jk is a_k (1 + curvature_spread · u_jk) with u uniform on [−1, 1), so that the examples'
            Hessians differ too; L and mu then move a little, and the task's methods say where to.
        noise: standard deviation per entry of fresh gradient noise in training (see `QuadraticTask.augment`).
        dtype: of the variables.
    """

    d: int = 32
    examples: int = 1024
    condition: float = 10.0
    spread: float = 1.0
    curvature_spread: float = 0.0
    noise: float = 0.0
    dtype: Literal["float32", "float64"] = "float32"

    def __post_init__(self) -> None:
        infinity = float("inf")
        check_that(self.d >= 1, self, "d", "an integer from 1 is allowed")
        check_that(self.examples >= 1, self, "examples", "an integer from 1 is allowed")
        check_that(1 <= self.condition < infinity, self, "condition", "a number from 1 is allowed")
        check_that(0 <= self.spread < infinity, self, "spread", "a number from 0 is allowed")
        check_that(0 <= self.curvature_spread < 1, self, "curvature_spread", "a number from 0 and below 1 is allowed")
        check_that(0 <= self.noise < infinity, self, "noise", "a number from 0 is allowed")
        check_that(self.dtype in ("float32", "float64"), self, "dtype", "float32 or float64 is allowed")

    def load(self, data: Path | None, key: Key) -> Task:
        """Draw the examples."""
        shape = (self.examples, self.d)
        size = self.examples * self.d
        exponents = torch.arange(self.d, dtype=torch.float64) / max(self.d - 1, 1)
        stretch = 1 + self.curvature_spread * (2 * key.fold(name="curvatures").uniform(size).view(shape) - 1)
        common = key.fold(name="common").normal(self.d)
        centres = common + self.spread * key.fold(name="centres").normal(size).view(shape)
        inputs = torch.cat([self.condition**-exponents * stretch, centres], dim=1).to(getattr(torch, self.dtype))
        split = Split(inputs, torch.zeros(self.examples, dtype=inputs.dtype))
        return QuadraticTask(train=split, validation=split, test=split, noise=self.noise)
