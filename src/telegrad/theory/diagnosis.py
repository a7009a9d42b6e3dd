"""What a model's own gradients mean for compression: tails, noise, ω of the catalogue, MLMC's levels, and advice."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from telegrad.errors import DataError, InputError
from telegrad.mlmc.estimator import MLMC
from telegrad.mlmc.probabilities import level_probabilities
from telegrad.random import Key
from telegrad.spec import build
from telegrad.theory.measuring import Measurement, expected_bits, measure
from telegrad.theory.noise_scale import NoiseScale, noise_scale
from telegrad.theory.ranges import COUNT, check
from telegrad.theory.tails import Tail, tail

__all__ = ["LADDERS", "SPECS", "Diagnosis", "LevelLaw", "Loss", "diagnose", "diagnose_gradients", "level_law"]

SPECS = (
    *(f"auto(bits={bits})" for bits in (0.05, 0.2, 1.0)),
    *(f"importance(k={k})" for k in (0.001, 0.01, 0.1)),
    *(f"mlmc(stopk(s={s}, values=sign))" for s in (0.001, 0.01, 0.1)),
    *(f"mlmc(stopk(s={s}))" for s in (0.001, 0.01, 0.1)),
    *(f"randk(k={k})" for k in (0.001, 0.01, 0.1)),
    "eden(bits=1)",
    "mlmc(fixed_point, probabilities=cost)",
    "qsgd(levels=16)",
    "topk(k=0.01)",
)
"""What is measured where no spec is given: five families at three budgets or so, and four single points."""

LADDERS = ("mlmc(stopk(s=0.01))", "mlmc(fixed_point)", "mlmc(floating_point)", "mlmc(rtn)")
"""Whose level probabilities are shown."""

Loss = Callable[[nn.Module, Any, Any], Tensor]


@dataclass(frozen=True)
class LevelLaw:
    """An MLMC compressor's levels on one gradient: `probabilities` p_1 … p_L, and their mean level Σ l·p_l."""

    spec: str
    probabilities: tuple[float, ...]
    mean: float


@dataclass(frozen=True)
class Diagnosis:
    """`layers`: the tail of each parameter's gradient by name; `whole`: of all of them joined; `noise`: the gradient
    noise scale, None for fewer than three batches; `measurements`: bits and ω of compressors on the joined gradient,
    predicted and measured, in the order of bits; `levels`; `magnitudes`: sorted magnitudes at ranks `ranks` (from 0);
    `advice` in words.
    """

    layers: dict[str, Tail]
    whole: Tail
    noise: NoiseScale | None
    measurements: tuple[Measurement, ...]
    levels: tuple[LevelLaw, ...]
    ranks: tuple[int, ...]
    magnitudes: tuple[float, ...]
    advice: tuple[str, ...]


def diagnose(
    model: nn.Module,
    batches: Iterable[tuple[Any, Any]],
    loss: Loss | None = None,
    specs: Sequence[str] = SPECS,
    workers: int = 8,
    repeats: int = 5,
    seed: int = 0,
) -> Diagnosis:
    """Look at the gradients of a model: their tails, their noise, what each compressor costs and loses on them.

    The model is left as it was, buffers and gradients included.

    Args:
        model: whose gradients are looked at, of all parameters that require them.
        batches: pairs (inputs, targets), each what one worker has in a step. Tails, levels and ω are those of the first
            batch's gradient; the noise scale needs three batches and is worth ten.
        loss: loss(model, inputs, targets), mean over the batch; None: cross-entropy of model(inputs).
        specs: the compressors to measure.
        workers: the number M of workers, for the advice.
        repeats: how often each random compressor is drawn.
        seed: of these draws.

    Returns:
        A `Diagnosis`: tails by layer, the noise scale, bits and ω of each compressor, level laws, advice in words.

    Raises:
        DataError: there is no batch, or what is given as one is no pair.
        InputError: the model is none, or none of its parameters requires a gradient; a gradient is not finite.
        ConfigError: `workers` or `repeats` below 1.
        SpecError: a spec is wrong.

    Example:
        >>> model = torch.nn.Linear(20, 2)
        >>> batches = [(torch.randn(8, 20), torch.randint(2, (8,))) for _ in range(3)]
        >>> diagnosis = tg.diagnose(model, batches, specs=["topk(k=0.1)"])
        >>> [measured.spec for measured in diagnosis.measurements], len(diagnosis.layers)
        (['topk(k=0.1)'], 2)
    """
    check(workers=(workers, COUNT), repeats=(repeats, COUNT))
    if not isinstance(model, nn.Module):
        raise InputError(f"model is of type {type(model).__name__}: a torch.nn.Module is wanted")
    measure_loss = loss or _cross_entropy
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise InputError("no parameter of this model requires a gradient: there is nothing to look at")
    gradients: list[dict[str, Tensor]] = []
    sizes = []
    with _unchanged(model):
        for inputs, targets in _pairs(batches):
            value = measure_loss(model, inputs, targets)
            found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            pairs = zip(parameters.items(), found, strict=True)
            gradients.append({name: torch.zeros_like(p) if g is None else g.detach() for (name, p), g in pairs})
            sizes.append(len(targets))
    if not gradients:
        raise DataError("no batch: diagnose(model, batches) takes batches of (inputs, targets)")
    if len(set(sizes)) > 1:  # a last batch may be short
        gradients = [gradient for gradient, size in zip(gradients, sizes, strict=True) if size == sizes[0]]
    return diagnose_gradients(gradients, sizes[0], specs, workers, repeats, seed)


def diagnose_gradients(
    gradients: Sequence[dict[str, Tensor]],
    batch_size: int,
    specs: Sequence[str] = SPECS,
    workers: int = 8,
    repeats: int = 5,
    seed: int = 0,
) -> Diagnosis:
    """As `diagnose`, from gradients by name, one dict a batch of `batch_size` examples. Raises `DataError` for a zero
    gradient, `InputError` for one that is not finite, `ConfigError` for numbers below 1.
    """
    check(batch_size=(batch_size, COUNT), workers=(workers, COUNT), repeats=(repeats, COUNT))
    if not gradients:
        raise DataError("no gradient: one dict of tensors a batch is wanted")
    flat = [torch.cat([g.detach().reshape(-1).float().cpu() for g in one.values()]) for one in gradients]
    first, key = flat[0], Key(seed)
    if not bool(first.any()):
        raise DataError("the first batch's gradient is zero: there is nothing to compress")
    layers = {name: tail(g) for name, g in gradients[0].items() if g.numel()}
    whole = tail(first)
    noise = noise_scale(flat, batch_size) if len(flat) >= 3 else None
    found = sorted((_measured(spec, first, key, repeats) for spec in specs), key=lambda one: one.bits)
    laws = tuple(level_law(spec, first) for spec in LADDERS)
    ordered = first.double().abs().sort(descending=True).values
    ranks = sorted({min(len(ordered) - 1, round(len(ordered) ** (i / 200)) - 1) for i in range(201)})
    return Diagnosis(
        layers,
        whole,
        noise,
        tuple(found),
        laws,
        tuple(ranks),
        tuple(ordered[ranks].tolist()),
        tuple(_advice(whole, noise, found, workers)),
    )


def _pairs(batches: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
    wanted = "diagnose(model, batches) takes batches of (inputs, targets)"
    if not isinstance(batches, Iterable):
        raise DataError(f"batches is of type {type(batches).__name__}: {wanted}")
    for batch in batches:
        if not isinstance(batch, (tuple, list)) or len(batch) != 2:
            raise DataError(f"a batch of type {type(batch).__name__} that is no pair: {wanted}")
        yield batch[0], batch[1]


def _measured(spec: str, v: Tensor, key: Key, repeats: int) -> Measurement:
    """`measure`, with the expected bits of an MLMC message where they are more than the mean of a few."""
    one = measure(spec, v, key, repeats)
    bits = expected_bits(build(spec, "compressor"), v, one.bits)
    return replace(one, bits=bits, bits_per_coordinate=bits / len(v))


def level_law(spec: str, v: Tensor) -> LevelLaw:
    """The level probabilities of an MLMC compressor with one draw and no base, on a flat non-zero vector."""
    compressor = build(spec, "compressor")
    if not isinstance(compressor, MLMC):
        raise DataError(f"{spec} has no levels: an mlmc(…) is wanted")
    p = level_probabilities(compressor.ladder.levels(v), compressor.probabilities)
    number = torch.arange(1, len(p) + 1, dtype=torch.float64)
    return LevelLaw(str(compressor), tuple(p.tolist()), float((number * p).sum()))


def _cross_entropy(model: nn.Module, inputs: Any, targets: Any) -> Tensor:
    return nn.functional.cross_entropy(model(inputs), targets)


@contextmanager
def _unchanged(model: nn.Module) -> Any:
    """Puts buffers back, which batch normalisation changes in every forward pass."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(kept[name])


def _advice(whole: Tail, noise: NoiseScale | None, found: Sequence[Measurement], workers: int) -> list[str]:
    fit = whole.decay
    shape = "a light, Gaussian-like tail" if whole.top_share < 0.15 else "a heavy tail"
    said = [
        f"The gradient has {shape}: its largest 1 % of entries hold {100 * whole.top_share:.0f} % of the energy "
        f"(Gaussian: 8 %), Hill index {whole.hill:.2f} ± {1.96 * whole.hill_error:.2f}.",
        f"Exponential decay (Assumption 3.5) explains {100 * fit.rate_r2:.0f} % of the variance of log magnitudes, a "
        f"power law {100 * fit.exponent_r2:.0f} %; the fitted rate predicts ω = {fit.omega_by_rate:.3g} for s-Top-k "
        f"at 1 %, and it is {fit.omega:.3g}.",
    ]
    phi = math.inf if noise is None else noise.phi(workers)
    if noise is not None and math.isinf(phi):
        said.append("Noise hides the gradient in these batches: more or larger batches would tell its scale.")
    elif noise is not None:
        most = max(1, round(noise.examples / noise.batch_size))
        said.append(
            f"Gradient noise scale {noise.examples:.3g} examples (95 %: {noise.low:.3g} to {noise.high:.3g}): with "
            f"batches of {noise.batch_size}, up to about {most} workers add speed; with {workers}, noise is {phi:.3g} "
            f"times the gradient (`telegrad advise --noise {phi:.3g}`)."
        )
    noisy = phi > 1
    weight = 1.0 if noisy else float(workers)
    unbiased = [one for one in found if one.unbiased]
    if unbiased:
        best = min(unbiased, key=lambda one: (weight + one.predicted) * one.bits)
        slower = 1 + best.predicted if noisy else 1 + best.predicted / workers
        said.append(
            f"{'Noise' if noisy else 'The gradient'} dominates, so (c + ω) · bits decides, c = {weight:g}: of the "
            f"unbiased compressors measured, {best.spec} has the least, with {best.bits_per_coordinate:.3g} bits a "
            f"coordinate and ω = {best.predicted:.3g}. At the same batch its learning rate is up to {slower:.3g} times "
            "smaller than uncompressed training's."
        )
    return said
