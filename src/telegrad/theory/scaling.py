"""Scaling rules: new hyperparameters that keep the performance of a tuned run when workers, batch or bits change.

Both runs keep the stationary loss, and with it the trade between speed and noise. With learning rate η, batch B of a
worker, N workers and ω of their compressor:

    sgd     ησ²(1 + ω)/(NB) stays                   (D4.1–D4.3)
    sign    ησ/(ℓN√B) stays                         (D4.4, D4.5)
    switch  ησv(1 + ω)/B of SGD = η/(ℓ√B) of signs  (D4.6), σ the noise scale of a coordinate, v its law's variance
    adamw   η√((1 + ω)/(NB)) and (1 − β)/η² stay    (Malladi, Lyu, Panigrahi, Arora, NeurIPS 2022)

With momentum β η stands for η/(1 − β). The number of steps keeps the time ηλ·steps, in which both make the same way.

Tried on logistic regression (docs/theory-scaling.md), where the rules keep the loss curve: SGD without momentum and
with β = .9, from one to the other, signs with batches of 32, and AdamW without weight decay; more workers, larger
batches and stronger compression. There is no rule for signs with momentum, nor between AdamW and the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from telegrad.errors import ConfigError
from telegrad.theory.noise_laws import Gaussian, NoiseLaw
from telegrad.theory.ranges import ABOVE_0, FROM_0, FROM_1, Range, check, check_all

__all__ = ["Optimizer", "Rescaled", "Run", "rescale"]

Optimizer = Literal["sgd", "sign", "adamw"]
Free = Literal["lr", "batch_size", "workers"]


@dataclass(frozen=True)
class Run:
    """A training run: `lr`, `batch_size` of a worker, `workers`, `omega` of their compressor (of the gradients near the
    end of training, see `telegrad diagnose`), `optimizer`, `steps`, `momentum` (SGD's β, or AdamW's β₁), `beta2`.

    optimizer "sign": x ← x − (η/N)Σ sign(g_i). Raises `ConfigError` for values out of range.
    """

    lr: float
    batch_size: float
    workers: float
    omega: float = 0.0
    optimizer: Optimizer = "sgd"
    steps: float = 1000
    momentum: float = 0.0
    beta2: float = 0.999

    def __post_init__(self) -> None:
        average = Range(high=1, open_high=True)
        check_all(
            vars(self),
            {
                **dict.fromkeys(("lr", "steps"), ABOVE_0),
                **dict.fromkeys(("batch_size", "workers"), FROM_1),
                "omega": FROM_0,
                **dict.fromkeys(("momentum", "beta2"), average),
            },
        )
        if self.optimizer not in ("sgd", "sign", "adamw"):
            raise ConfigError(f"optimizer={self.optimizer!r}: sgd, sign or adamw is allowed")


@dataclass(frozen=True)
class Rescaled:
    """`run`: the new hyperparameters; `rule`: the rule in words, with its number; `warnings`: where it may fail."""

    run: Run
    rule: str
    warnings: tuple[str, ...]


def rescale(
    old: Run,
    new: Run,
    free: Free = "lr",
    noise: float | None = None,
    new_noise: float | None = None,
    law: NoiseLaw | None = None,
    smoothness: float | None = None,
) -> Rescaled:
    """`new` with its `free` value, its steps and AdamW's averages set so that it performs as the tuned run `old`.

    `free`: what may change: "lr", "batch_size" or "workers". `noise`: σ, the scale of a coordinate's gradient noise for
    one example; needed between "sgd" and "sign" (Σσ_j²/Σσ_j where coordinates differ), `new_noise` where it changes;
    `law` of the noise at scale 1 (default: Gaussian, of which σ is the standard deviation). `smoothness` L: to check
    stability. Raises `ConfigError` where the rule needs what is not given, and where there is no rule: between AdamW
    and the others, for signs with momentum, for AdamW under other noise, and for anything but signs where the law has
    no variance.
    """
    law = Gaussian() if law is None else law
    _check_kinds(old, new, law)
    if (old.optimizer == "adamw") != (new.optimizer == "adamw"):
        raise ConfigError("no rule leads from adamw to another optimizer or back: tune the learning rate anew")
    for run in (old, new):
        if run.optimizer == "sign" and run.momentum:
            raise ConfigError(
                f"momentum={run.momentum:g}: there is no rule for signs with momentum; write momentum=0, or tune anew"
            )
    if free not in ("lr", "batch_size", "workers"):
        raise ConfigError(f"free={free!r}: lr, batch_size or workers is allowed")
    for name, value in (("noise", noise), ("new_noise", new_noise), ("smoothness", smoothness)):
        if value is not None:
            check(**{name: (value, ABOVE_0)})
    if new_noise is not None and noise is None:
        raise ConfigError(f"new_noise={new_noise:g}: the noise of the tuned run is needed beside it (--noise)")
    if new_noise not in (None, noise) and new.optimizer == "adamw":
        raise ConfigError(f"new_noise={new_noise:g}: there is no rule for adamw under other noise; tune anew")
    if smoothness is not None and old.optimizer == "sgd":
        most = 2 * (1 + old.momentum) / (smoothness * (1 + old.omega / old.workers))
        if old.lr >= most:
            raise ConfigError(
                f"lr={old.lr:g}: the tuned run is unstable at smoothness={smoothness:g}: below {most:.3g} is allowed"
            )
    after = noise if new_noise is None else new_noise
    if old.optimizer != new.optimizer and noise is None:
        raise ConfigError(
            "between sgd and sign the rule needs noise: the scale of a coordinate's gradient noise, above 0"
        )
    before, after = 1.0 if noise is None else noise, 1.0 if after is None else after
    try:
        run = _solved(new, free, _level(old, before, law), after, law)
        slower = _speed(old, before, law) / _speed(run, after, law)
        run = replace(run, steps=max(1.0, old.steps * slower))
    except (ZeroDivisionError, OverflowError):
        raise ConfigError("the tuned and the new values are too far apart to compute with in float64") from None
    if run.optimizer == "adamw":
        run = replace(run, momentum=_average(old.momentum, slower), beta2=_average(old.beta2, slower))
    return Rescaled(run, _rule(old, run), tuple(_warnings(old, run, smoothness)))


def _check_kinds(old: Run, new: Run, law: NoiseLaw) -> None:
    for run, name in ((old, "old"), (new, "new")):
        if not isinstance(run, Run):
            raise ConfigError(f"{name} is of type {type(run).__name__}: a Run is wanted, such as Run(0.1, 32, 8)")
    if not isinstance(law, NoiseLaw):
        raise ConfigError(f"law is of type {type(law).__name__}: a law such as Gaussian() or StudentT(3.0) is wanted")
    if math.isinf(law.variance) and not old.optimizer == new.optimizer == "sign":
        raise ConfigError(f"{law} has no variance: only sign keeps its loss under such noise, and has a rule")


def _level(run: Run, noise: float, law: NoiseLaw) -> float:
    """What stays: the stationary loss, up to factors that stay anyway; of AdamW the square root of it."""
    lr = run.lr / (1 - run.momentum) if run.optimizer != "adamw" else run.lr
    if run.optimizer == "sign":
        return lr * noise / (law.slope * run.workers * math.sqrt(run.batch_size))
    ratio = (1 + run.omega) / (run.workers * run.batch_size)
    return lr * math.sqrt(ratio) if run.optimizer == "adamw" else lr * noise**2 * law.variance * ratio


def _solved(new: Run, free: Free, goal: float, noise: float, law: NoiseLaw) -> Run:
    if free == "lr":
        return replace(new, lr=new.lr * goal / _level(new, noise, law))
    # The level falls as workers^-1 and batch^-1, or as their square roots.
    power = -1.0 if new.optimizer == "sgd" or (new.optimizer == "sign" and free == "workers") else -0.5
    value = getattr(new, free) * (goal / _level(new, noise, law)) ** (1 / power)
    if value < 1 - 1e-9:
        raise ConfigError(f"{free} would have to be {value:.3g}, below 1: let lr be free")
    return replace(new, **{free: max(1.0, value)})


def _speed(run: Run, noise: float, law: NoiseLaw) -> float:
    """Way made in a step, over the curvature: η of SGD, ηℓ√B/σ of signs (phase 3), η² of AdamW (whose averages and
    learning rate follow one clock).
    """
    if run.optimizer == "adamw":
        return run.lr**2
    lr = run.lr / (1 - run.momentum)
    return lr * law.slope * math.sqrt(run.batch_size) / noise if run.optimizer == "sign" else lr


def _average(beta: float, slower: float) -> float:
    return max(0.0, 1 - (1 - beta) / slower)


def _rule(old: Run, new: Run) -> str:
    if old.optimizer == "adamw":
        return "η ∝ √(NB/(1 + ω)), steps and 1/(1 − β) ∝ (1 + ω)/(NB) (Malladi et al. 2022, with ω as in D4.2)"
    if old.optimizer != new.optimizer:
        return "η of signs = η of SGD · ℓσ(1 + ω)/√B at equal N and B (D4.6)"
    if new.optimizer == "sign":
        return "η ∝ N√B ℓ/σ: the batch enters by its square root, compression not at all (D4.4, D4.5)"
    return "η ∝ NB/(1 + ω), steps ∝ 1/η (D4.1–D4.3)"


def _warnings(old: Run, new: Run, smoothness: float | None) -> list[str]:
    said = []
    if new.optimizer == "sgd":
        growth = new.lr * (1 + new.omega / new.workers) / (old.lr * (1 + old.omega / old.workers))
        if smoothness is not None and new.lr * smoothness * (1 + new.omega / new.workers) >= 2:
            said.append("unstable: ηL(1 + ω/N) is 2 or more; raise batch_size or workers less, or use a smaller lr")
        elif smoothness is None and old.optimizer == "sgd" and growth > 4:
            said.append(
                f"ηL(1 + ω/N) grows {growth:.3g} times: the rule holds while it stays well below 2; pass smoothness"
            )
    if new.optimizer == "adamw" and min(new.momentum, new.beta2) == 0.0 and old.momentum:
        said.append("an average would have to be shorter than a step: the rule does not reach so far")
    if new.optimizer == "sign" and old.optimizer == "sign" and new.lr > 10 * old.lr:
        said.append("each coordinate moves by the learning rate in a step: far from the optimum that is too much")
    return said
