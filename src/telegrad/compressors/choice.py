"""Compressors that pass every tensor to one of two others, by its size, its name or the step."""

from __future__ import annotations

import fnmatch
from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Compressor, Encoded
from telegrad.random import Key
from telegrad.spec import check_that, register

__all__ = ["Policy", "Warmup"]


class _Choice(Compressor):
    """Its constants are the worse of those that may be chosen for d entries."""

    @abstractmethod
    def _candidates(self, d: int) -> tuple[Compressor, ...]:
        """Those that a tensor of d entries may meet."""

    @abstractmethod
    def _chosen(self, d: int) -> Compressor:
        """The one for a tensor of d entries in this context."""

    def omega(self, d: int) -> float:
        return max(one.omega(d) for one in self._candidates(d)) if self.unbiased else float("inf")

    def alpha(self, d: int) -> float:
        return min(one.alpha(d) for one in self._candidates(d))

    def eta(self, d: int) -> float:
        return max(one.eta(d) for one in self._candidates(d))

    def spread(self, d: int) -> float:
        return max(one.spread(d) for one in self._candidates(d))

    def _encode(self, v: Tensor, key: Key) -> Encoded:
        return self._chosen(len(v))._encode(v, key)

    def _mean(self, v: Tensor) -> Tensor:
        return self._chosen(len(v))._mean(v)

    def _variance(self, v: Tensor) -> float:
        return self._chosen(len(v))._variance(v)


@register(
    "policy",
    example="policy(identity, randk(k=0.1), below=16)",
    source="small tensors as they are: Vogels et al. 2019",
)
@dataclass(frozen=True)
class Policy(_Choice):
    """A policy: small or named tensors go through one compressor, all others through another.

    Tensors of fewer than `below` entries, and those whose name fits the shell pattern `named`, go through `special`,
    all others through `default`.

    A tensor has a name where every tensor is a piece; by itself, `encode` takes what its key was folded with as
    "piece". Policies nest: the default may be a policy. Constants are the worse of those that d entries can meet;
    `variance` is that of a tensor without a name.

    Args:
        special: the compressor of small or named tensors.
        default: that of all others.
        below: tensors of fewer entries are small; 0: none is.
        named: a shell pattern of names, such as '*bias*'; none: no name fits.

    References:
        Vogels, Karimireddy and Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed Optimization",
            2019, https://arxiv.org/abs/1905.13727
    """

    special: Compressor
    default: Compressor
    below: int = 0
    named: str = ""

    def __post_init__(self) -> None:
        check_that(self.below >= 0, self, "below", "a number of entries from 0 is allowed")

    @property
    def looks_at(self) -> frozenset[str]:
        return frozenset({"name"} if self.named else ())

    @property
    def unbiased(self) -> bool:
        return self.special.unbiased and self.default.unbiased

    @property
    def exact(self) -> bool:
        return self.special.exact and self.default.exact

    @property
    def random(self) -> bool:
        return self.special.random or self.default.random

    def _candidates(self, d: int) -> tuple[Compressor, ...]:
        if d < self.below:
            return (self.special,)
        return (self.special, self.default) if self.named else (self.default,)

    def _chosen(self, d: int) -> Compressor:
        name = self.context.name
        fits = bool(self.named and name) and fnmatch.fnmatchcase(name, self.named)
        return self.special if d < self.below or fits else self.default


@register("warmup", example="warmup(identity, randk(k=0.1), steps=100)", source="Lin et al., ICLR 2018 (DGC)")
@dataclass(frozen=True)
class Warmup(_Choice):
    """A schedule: one compressor for the first steps, another one from there on.

    `first` in the steps 0 … `steps` − 1, `then` from there on and where no step is known.

    By itself, `encode` takes what its key was folded with as "step". Constants are the worse of the two; `variance` is
    that after the warm-up. A longer schedule is a warm-up of warm-ups.

    Args:
        first: the compressor of the first steps.
        then: the one from there on.
        steps: how many steps are the first ones.

    References:
        Lin et al., "Deep Gradient Compression: Reducing the Communication Bandwidth for Distributed Training", 2018,
            https://arxiv.org/abs/1712.01887
    """

    first: Compressor
    then: Compressor
    steps: int

    looks_at = frozenset({"step"})

    def __post_init__(self) -> None:
        check_that(self.steps >= 1, self, "steps", "a number of steps from 1 is allowed")

    @property
    def unbiased(self) -> bool:
        return self.first.unbiased and self.then.unbiased

    @property
    def exact(self) -> bool:
        return self.first.exact and self.then.exact

    @property
    def random(self) -> bool:
        return self.first.random or self.then.random

    def _candidates(self, d: int) -> tuple[Compressor, ...]:
        return self.first, self.then

    def _chosen(self, d: int) -> Compressor:
        step = self.context.step
        return self.first if isinstance(step, int) and step < self.steps else self.then
