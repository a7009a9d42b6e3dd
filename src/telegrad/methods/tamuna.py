"""TAMUNA: CompressedScaffnew where only a cohort takes part in a round, with as many local steps as all draw alike."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.errors import SpecError
from telegrad.methods.base import Round, State
from telegrad.methods.masks import ByOwners, mask_of, masked_message, variance_factor
from telegrad.methods.oracle_method import Broadcast, Descent, Oracle, OracleStep, Upload
from telegrad.spec import check_that, register

__all__ = ["TAMUNA"]


@register(
    "tamuna",
    example="tamuna(probability=0.2, cohort=2, owners=2)",
    source="C16; Condat, Agarský, Malinovsky, Richtárik 2023",
)
@dataclass(frozen=True)
class TAMUNA(ByOwners):
    """TAMUNA: local steps, partial participation, and every entry sent by a few random workers only.

    In each round a cohort of c workers, drawn uniformly, starts at x̄ and makes L steps x_i ← x_i − γ (∇f_i(x_i) −
    h_i), L geometric with mean 1/p and the same for all; every entry is sent by s of them, x̄ is the mean over these,
    and h_i ← h_i + (p χ/γ) q_i ⊙ (x̄ − x_i) in the cohort (C16.1). The others do nothing.

    `cohort` is c, `owners` is s, from 2 to c; χ = n(s − 1)/(s(n − 1)) with all n workers. γ is the learning rate. The
    new x̄ is sent to all workers, so that whoever is drawn next has it.

    Args:
        probability: p: a round has 1/p local steps in the mean.
        cohort: c, the workers that take part.
        owners: s, those that send an entry, 2 to c.

    References:
        Condat et al., "TAMUNA: Doubly Accelerated Federated Learning with Local Training, Compression, and Partial
            Participation", 2023, https://arxiv.org/abs/2302.09832
    """

    probability: float
    cohort: int
    owners: int = 2

    takes_downlink = False
    moves_by_itself = True
    needs = "takes steps of its own on a cohort of the workers"

    def __post_init__(self) -> None:
        check_that(1e-6 <= self.probability <= 1, self, "probability", "a number from 1e-6 to 1 is allowed")
        check_that(self.cohort >= 2, self, "cohort", "a number of workers from 2 is allowed")
        allowed = f"a number from 2 to cohort={self.cohort} is allowed"
        check_that(2 <= self.owners <= self.cohort, self, "owners", allowed)

    def plan(self, step: OracleStep) -> Round:
        if self.cohort > step.workers:
            raise SpecError(f"{self}: there are {step.workers} workers; lower cohort")
        return Round(cohort=step.drawn_cohort(self.cohort), local_steps=step.geometric(self.probability))

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        moved = x
        for number in range(step.round.local_steps):
            if number:
                oracle.next_sample()
            moved = moved - step.lr * (oracle.gradient(moved) - state["control"])
        message = masked_message(moved, self._place(step), self.cohort, self.owners, step)
        return Upload((message,)), {"control": state["control"], "moved": moved}

    def update(
        self, x: Tensor, broadcast: Broadcast | None, state: State, step: OracleStep, optimizer: Descent
    ) -> tuple[Tensor, State]:
        assert broadcast is not None
        assert step.rank is not None
        mean = broadcast.vector
        if not step.round.has(step.rank):
            return mean, state
        mask = mask_of(self._place(step), self.cohort, self.owners, step)
        return mean, self.corrected(mean, state, mask, variance_factor(step.workers, self.owners), step)

    def _place(self, step: OracleStep) -> int:
        assert step.round.cohort is not None
        assert step.rank is not None
        return step.round.cohort.index(step.rank)
