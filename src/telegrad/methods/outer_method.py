"""The contract of an outer method: workers move models of their own, and send what that comes to now and then."""

from __future__ import annotations

from abc import ABC
from dataclasses import dataclass

from telegrad.compressors.base import Compressor
from telegrad.errors import SpecError
from telegrad.methods.base import Method
from telegrad.methods.contractive import require_contractive
from telegrad.methods.feedback import Feedback
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.outer_optimizer import OuterNesterov, OuterOptimizer
from telegrad.methods.sgd import SGD
from telegrad.spec import check_that

__all__ = ["OuterMethod"]

_NESTEROV = OuterNesterov()


@dataclass(frozen=True)
class OuterMethod(Method, ABC):
    """Every worker makes `every` steps of an optimizer of its own on a model of its own, θ_i; sends C(θ − θ_i), what
    that comes to; and an outer optimizer moves the global parameters θ, alike on all ranks, by the mean:

        Δ = (1/M) Σ C_i(θ − θ_i);  θ ← outer(θ, Δ);  θ_i ← θ + alpha (θ_i − θ).

    The inner optimizer is the user's: any of torch's. Its state stays with its worker.

    `compressor`: unbiased, or contractive with `feedback`. `fragments`: the model in P parts of whole parameters, about
    equally large, of which one is sent every H/P steps, so that each is sent every H and traffic is even. `delay`: how
    many steps the workers compute while a fragment travels, below H/P; what they do meanwhile is lost where `alpha` is
    0. `feedback`: error memory, none or ef(decay=…).
    """

    compressor: Compressor
    optimizer: OuterOptimizer = _NESTEROV
    every: int = 30
    fragments: int = 1
    delay: int = 0
    alpha: float = 0.0
    feedback: Feedback | None = None

    needs = "lets each worker's own optimizer move a model of its own (in a script: telegrad.outer.register)"
    instead = "sgd(mlmc(stopk(s=0.01)))"

    def __post_init__(self) -> None:
        check_that(self.every >= 1, self, "every", "a number of steps from 1 is allowed")
        check_that(1 <= self.fragments <= self.every, self, "fragments", f"1 to every={self.every} are allowed")
        apart = self.every // self.fragments
        check_that(
            0 <= self.delay < apart,
            self,
            "delay",
            f"0 to {apart - 1} steps are allowed: a fragment leaves every {apart}",
        )
        check_that(0 <= self.alpha < 1, self, "alpha", "a number in [0, 1) is allowed")
        if self.feedback is not None:
            require_contractive(self, self.compressor, "unbiased ones go without feedback")
        elif not self.compressor.unbiased and not self.allow_unsupported:
            raise SpecError(
                f"{self.spec_name}: {self.compressor} is biased, and what it leaves out would be lost: write "
                f"feedback=ef(decay=0.95), or make it unbiased by mlmc(…) or induced(…). For example `{self.example}`; "
                "to explore without theory, write allow_unsupported=true"
            )

    @property
    def exchanged(self) -> GradientMethod:
        """The method by which the differences are exchanged, as if they were gradients at a learning rate of 1."""
        unsupported = self.allow_unsupported
        if self.feedback is None:
            return SGD(self.compressor, allow_unsupported=unsupported)
        return self.feedback.around(self.compressor, unsupported)

    def leaves_after(self, step: int) -> int | None:
        """The fragment that is sent after inner step number `step`, counted from 1; None for none."""
        place = step % self.every
        leaving = (p for p in range(self.fragments) if (p + 1) * self.every // self.fragments % self.every == place)
        return next(leaving, None)
