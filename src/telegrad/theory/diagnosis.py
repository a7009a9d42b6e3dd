"""What a model's own gradients mean for compression: tails, noise, ω of the catalogue, MLMC's levels, and advice."""

from __future__ import annotations

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
from telegrad.theory.diagnosis_advice import advice_lines
from telegrad.theory.measuring import Measurement, expected_bits, measure
from telegrad.theory.noise_scale import NoiseScale, noise_scale
from telegrad.theory.ranges import COUNT, check
from telegrad.theory.tails import Tail, tail
from telegrad.theory.vectors import flat_vector

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
    if loss is not None and not callable(loss):
        raise InputError(f"loss is of type {type(loss).__name__}: a function loss(model, inputs, targets) is wanted")
    measure_loss = loss or _cross_entropy
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise InputError("no parameter of this model requires a gradient: there is nothing to look at")
    gradients: list[dict[str, Tensor]] = []
    sizes = []
    with _unchanged(model), torch.enable_grad():
        for inputs, targets in _pairs(batches):
            value = _checked_loss(measure_loss(model, inputs, targets))
            found = torch.autograd.grad(value, list(parameters.values()), allow_unused=True)
            pairs = zip(parameters.items(), found, strict=True)
            gradients.append({name: torch.zeros_like(p) if g is None else g.detach() for (name, p), g in pairs})
            sizes.append(_size(targets))
    if not gradients:
        raise DataError("no batch: diagnose(model, batches) takes batches of (inputs, targets)")
    usual = max(sizes, key=sizes.count)  # a last batch may be short
    gradients = [gradient for gradient, size in zip(gradients, sizes, strict=True) if size == usual]
    return diagnose_gradients(gradients, usual, specs, workers, repeats, seed)


def diagnose_gradients(
    gradients: Sequence[dict[str, Tensor]],
    batch_size: int,
    specs: Sequence[str] = SPECS,
    workers: int = 8,
    repeats: int = 5,
    seed: int = 0,
) -> Diagnosis:
    """As `diagnose`, from gradients by name, one dict a batch of `batch_size` examples. Raises `DataError` for a zero
    gradient, `InputError` for what is no dict of finite tensors, or not of the same names as the first, `ConfigError`
    for numbers below 1.
    """
    check(batch_size=(batch_size, COUNT), workers=(workers, COUNT), repeats=(repeats, COUNT))
    if isinstance(specs, str) or not isinstance(specs, Sequence) or not specs:
        raise InputError(f"specs={specs!r}: a list of specs, at least one, is wanted, such as ['qsgd']")
    if not gradients:
        raise DataError("no gradient: one dict of tensors a batch is wanted")
    flat = _joined(gradients)
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
        tuple(advice_lines(whole, noise, found, workers)),
    )


def _checked_loss(value: Any) -> Tensor:
    wanted = "loss(model, inputs, targets) must give one number that depends on the model, a tensor with a gradient"
    if not isinstance(value, Tensor):
        raise InputError(f"the loss is of type {type(value).__name__}: {wanted}")
    if value.numel() != 1 or not value.requires_grad:
        kind = "without a gradient" if value.numel() == 1 else f"of shape {tuple(value.shape)}"
        raise InputError(f"the loss is a tensor {kind}: {wanted}")
    return value


def _size(targets: Any) -> int:
    try:
        return len(targets)
    except TypeError:
        raise DataError(
            f"targets of type {type(targets).__name__} have no length: they are one for each example of the batch"
        ) from None


def _joined(gradients: Sequence[dict[str, Tensor]]) -> list[Tensor]:
    """Each batch's gradient as one flat float32 vector."""
    for number, one in enumerate(gradients, 1):
        if not isinstance(one, dict) or not one:
            raise InputError(f"batch {number}: a dict of tensors by name, at least one, is wanted")
        if one.keys() != gradients[0].keys():
            raise InputError(f"batch {number}: gradients of other names than the first batch's: one model is wanted")
    return [
        torch.cat([_flat(g, name, number).float().cpu() for name, g in one.items()])
        for number, one in enumerate(gradients, 1)
    ]


def _flat(gradient: Tensor, name: str, number: int) -> Tensor:
    try:
        return flat_vector(gradient, f"batch {number}: the gradient of {name}")
    except InputError as error:
        cure = "; where training diverged, lower the learning rate" if "infinity" in str(error) else ""
        raise InputError(f"{error}{cure}") from None


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
