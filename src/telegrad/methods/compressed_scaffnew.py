"""CompressedScaffnew: local steps with control vectors, and now and then a mean in which each worker sends a share."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from telegrad.errors import SpecError
from telegrad.methods.base import Round, State
from telegrad.methods.masks import ByOwners, mask_of, masked_message, variance_factor
from telegrad.methods.oracle_method import Broadcast, Descent, Oracle, OracleStep, Upload
from telegrad.spec import check_that, register

__all__ = ["CompressedScaffnew"]


@register(
    "compressed_scaffnew",
    example="compressed_scaffnew(probability=0.2, owners=2)",
    source="C15; Condat, Agarský, Richtárik 2022",
)
@dataclass(frozen=True)
class CompressedScaffnew(ByOwners):
    """CompressedScaffnew: Scaffnew in which every entry is sent by a few random workers only.

    As `scaffnew`, but where x̂_i are sent, every entry is sent by s random workers only, by a mask that all draw
    alike: x̄ is the mean over them, x_i ← x̄, h_i ← h_i + (p χ/γ) q_i ⊙ (x̄ − x̂_i) (C15.1). γ is the learning rate.

    `owners` is s, from 2 to the number of workers, where it is `scaffnew`. `chi` is χ, by default the largest that the
    theory allows, n(s − 1)/(s(n − 1)). A good p is √(n/(s κ)), κ the condition number of the f_i (C15.3).

    Args:
        probability: p, of a round with communication.
        owners: s, the workers that send an entry.
        chi: χ; none: the largest that the theory allows.

    References:
        Condat, Agarský and Richtárik, "Provably Doubly Accelerated Federated Learning: The First Theoretically
            Successful Combination of Local Training and Communication Compression", 2022,
            https://arxiv.org/abs/2210.13277
    """

    probability: float
    owners: int = 2
    chi: float | None = None

    iterates = "own"
    takes_downlink = False
    moves_by_itself = True
    needs = "moves a model of its own on each worker"

    def __post_init__(self) -> None:
        check_that(0 < self.probability <= 1, self, "probability", "a number in (0, 1] is allowed")
        check_that(self.owners >= 2, self, "owners", "a number of workers from 2 is allowed")
        check_that(self.chi is None or 0 < self.chi <= 1, self, "chi", "a number in (0, 1] is allowed")

    def plan(self, step: OracleStep) -> Round:
        if self.owners > step.workers:
            raise SpecError(f"{self}: of {step.workers} workers 2 to {step.workers} can own an entry; lower owners")
        return Round(sends=step.coin(self.probability))

    def worker_step(self, oracle: Oracle, x: Tensor, state: State, step: OracleStep) -> tuple[Upload | None, State]:
        assert step.rank is not None
        moved, upload = x - step.lr * (oracle.gradient(x) - state["control"]), None
        if step.round.sends:
            upload = Upload((masked_message(moved, step.rank, step.workers, self.owners, step),))
        return upload, {"control": state["control"], "moved": moved}

    def update(
        self, x: Tensor, broadcast: Broadcast | None, state: State, step: OracleStep, optimizer: Descent
    ) -> tuple[Tensor, State]:
        if broadcast is None:
            return state["moved"], state
        assert step.rank is not None
        mean, chi = broadcast.vector, self.chi or variance_factor(step.workers, self.owners)
        mask = mask_of(step.rank, step.workers, self.owners, step)
        return mean, self.corrected(mean, state, mask, chi, step)
