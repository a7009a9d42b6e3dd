"""Bits and error of compressors on one vector, from messages that were really packed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import DataError, InputError, SpecError
from telegrad.mlmc.estimator import MLMC
from telegrad.mlmc.probabilities import level_probabilities
from telegrad.random import Key
from telegrad.spec import build
from telegrad.theory.ranges import COUNT, check
from telegrad.theory.vectors import flat_vector
from telegrad.wire.message import pack

__all__ = ["Measurement", "expected_bits", "measure", "measure_all"]


@dataclass(frozen=True)
class Measurement:
    """One compressor on one vector.

    `bits`: mean length of the packed message; `bits_per_coordinate`: that over d; `omega`: mean ‖C(x) − x‖² / ‖x‖²
    over the repeats, `error` its standard error; `predicted`: variance(x) / ‖x‖²;
    `bound`: omega(d), the worst case over all vectors (1 − alpha(d) for a biased compressor).
    """

    spec: str
    unbiased: bool
    repeats: int
    bits: float
    bits_per_coordinate: float
    omega: float
    error: float
    predicted: float
    bound: float


def measure(spec: str | Compressor, x: Tensor, key: Key, repeats: int) -> Measurement:
    """Encode, pack and decode `x` (flat, not zero) under `repeats` keys, one if the compressor draws nothing.

    Raises `DataError` for a zero or empty x, `InputError` for one that is not finite or whose square is not,
    `ConfigError` for repeats below 1.
    """
    compressor: Compressor = build(spec, "compressor")
    check(repeats=(repeats, COUNT))
    x = _something(x)
    energy, count = float(x.double().square().sum()), repeats if compressor.random else 1
    if not 0 < energy < math.inf:
        raise InputError(
            f"the vector's squares sum to {energy} in float64: multiply it, for example by 1/v.abs().max()"
        )
    bits, errors = [], []
    for repeat in range(count):
        code = compressor.encode(x, key.fold(repeat=repeat))
        bits.append(8 * len(pack(code)))
        rest = x.double().clone()
        code.add_to(rest, -1.0)
        errors.append(float(rest.square().sum()) / energy)
    mean = math.fsum(errors) / count
    spread = math.sqrt(math.fsum((e - mean) ** 2 for e in errors) / (count - 1)) if count > 1 else 0.0
    d = len(x)
    bound = compressor.omega(d) if compressor.unbiased else 1 - compressor.alpha(d)
    mean_bits = math.fsum(bits) / count
    return Measurement(
        str(compressor),
        compressor.unbiased,
        count,
        mean_bits,
        mean_bits / d,
        mean,
        spread / math.sqrt(count),
        compressor.variance(x) / energy,
        bound,
    )


def measure_all(specs: Sequence[str], x: Tensor, key: Key, repeats: int) -> list[Measurement]:
    """`measure` for every spec, in the order of bits. Raises what `measure` raises, and `SpecError` naming the spec
    that does not fit x.
    """
    _something(x)
    found = []
    for spec in specs:
        try:
            found.append(measure(spec, x, key, repeats))
        except SpecError as error:
            raise SpecError(f"{spec}: {error}") from None
    return sorted(found, key=lambda one: one.bits)


def _something(x: Tensor) -> Tensor:
    flat = flat_vector(x, "the vector")
    if not bool(flat.any()):
        raise DataError("the vector is empty or zero: there is nothing to compress")
    return flat


def expected_bits(compressor: Compressor, x: Tensor, mean: float) -> float:
    """The expected bits of a message for the flat, non-zero `x`, from the `mean` of a few: for MLMC over one level at
    least Σ p_l K_l, since a few messages seldom hold the rare long ones (K_l are estimates, within a tenth or so).
    """
    if not isinstance(compressor, MLMC) or compressor.base or compressor.draws != 1 or compressor.weight is not None:
        return mean
    levels = compressor.ladder.levels(x)
    return max(mean, float((level_probabilities(levels, compressor.probabilities) * levels.costs()).sum()))
