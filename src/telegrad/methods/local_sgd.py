"""Local SGD (FedAvg): several steps on each worker, then the compressed change of its model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import NonFiniteError
from telegrad.methods.base import Contents, Round, State
from telegrad.methods.oracle_method import Broadcast, Oracle, OracleMethod, OracleStep, Upload
from telegrad.methods.participation import Participation, check_participation, drawn_round, inclusion
from telegrad.methods.unbiased import require_unbiased
from telegrad.spec import check_that, register

__all__ = ["LocalSGD"]


@register(
    "local_sgd",
    example="local_sgd(mlmc(stopk(s=0.01)), local_lr=0.1, local_steps=4)",
    source="C13, C20; McMahan, Moore, Ramage, Hampson, Agüera y Arcas, AISTATS 2017; with mlmc(…) telegrad's own",
)
@dataclass(frozen=True)
class LocalSGD(OracleMethod):
    """Local SGD: several steps on each worker, whose differences are sent compressed.

    From x worker i takes H steps y ← y − η ∇f_i(y, ξ) and sends C_i(x − y) (C20.1); the mean of what arrives is the
    gradient of the run's optimizer: with plain SGD at learning rate 1 this is FedAvg (C13).

    `local_lr` is η, `local_steps` is H; with `fewest_steps` every worker draws its own H from there to H in each round.

    Needs an unbiased compressor: an identity, a quantiser, MLMC (C20). Where data differ between workers, many local
    steps end elsewhere (C13.1).

    Args:
        compressor: an unbiased one, such as mlmc(stopk(s=0.01)).
        local_lr: η, of the local steps.
        local_steps: H, at most.
        fewest_steps: the least H that a worker may draw; none: H for all.
        participation: who takes part, a count m or a fraction (uniformly drawn), or with `sampling=independent` a
            probability for each worker by itself, or a tuple with one of its own for each; means are unbiased either
            way (E7).
        sampling: uniform or independent.
        weighted: by the number of a worker's examples, which it sends along.

    References:
        McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", 2017,
            https://arxiv.org/abs/1602.05629
    """

    compressor: Compressor
    local_lr: float
    local_steps: int = 4
    fewest_steps: int | None = None
    participation: Participation = None
    sampling: str = "uniform"
    weighted: bool = False

    needs = "takes steps of its own on each worker"
    instead = "sgd(mlmc(stopk(s=0.01)))"

    def __post_init__(self) -> None:
        require_unbiased(self, self.compressor)
        check_that(self.local_lr > 0, self, "local_lr", "a learning rate above 0 is allowed")
        check_that(self.local_steps >= 1, self, "local_steps", "a number of steps from 1 is allowed")
        fewest = self.fewest_steps
        allowed = f"a number of steps from 1 to local_steps={self.local_steps} is allowed"
        check_that(fewest is None or 1 <= fewest <= self.local_steps, self, "fewest_steps", allowed)
        check_participation(self, self.participation, self.sampling)
        check_that(not (self.weighted and self.sampling != "uniform"), self, "weighted", "with sampling=uniform only")

    def plan(self, step: OracleStep) -> Round:
        drawn = drawn_round(self.participation, self.sampling, step, local_steps=self.local_steps)
        return replace(drawn, upload=Contents(numbers=int(self.weighted)))

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        moved = x
        for number in range(self._steps_of(step)):
            if number:
                oracle.next_sample()
            moved = moved - self.local_lr * oracle.gradient(moved)
        sent = step.upload(self.compressor, x - moved)
        return Upload(sent.messages, (float(oracle.count),) if self.weighted else ()), state

    def server_step(self, uploads: Mapping[int, Upload], state: State, step: OracleStep) -> tuple[Broadcast, State]:
        if self.weighted:
            whole = sum(upload.numbers[0] for upload in uploads.values())
            if not 0 < whole < math.inf:
                raise NonFiniteError(f"the workers' numbers of examples add up to {whole}")
            weights = {rank: upload.numbers[0] / whole for rank, upload in uploads.items()}
        else:
            weights = {rank: inclusion(rank, self.participation, self.sampling, step) for rank in uploads}
        out = step.zeros()
        for rank, upload in uploads.items():
            upload.messages[0].add_to(out, weights[rank])
        return step.broadcast(out), state

    def _steps_of(self, step: OracleStep) -> int:
        if self.fewest_steps is None:
            return self.local_steps
        choices = self.local_steps - self.fewest_steps + 1
        return self.fewest_steps + int(choices * step.common.fold(draw="steps", worker=step.rank or 0).number())
