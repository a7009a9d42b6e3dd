"""Which way to exchange gradients takes the least time to a target, from what was measured; uncompressed included."""

from __future__ import annotations

import ast
import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from telegrad.errors import ConfigError
from telegrad.spec import Registered, build, check_that, register
from telegrad.theory.advice import step_factor
from telegrad.theory.cost_model import Cluster, Profile, TopologyName, all_reduce, step_cost

__all__ = [
    "CANDIDATES",
    "HALF",
    "PLAIN",
    "QUICK",
    "TRIAL",
    "WARM",
    "Automatic",
    "Choice",
    "Option",
    "Way",
    "automatic",
    "decide",
    "steps_needed",
]

QUICK = (
    *("mlmc(stopk(s=0.01, values=sign))", "importance(k=0.003)", "importance(k=0.01)", "importance(k=0.1)"),
    *("eden(bits=1)", "eden(bits=4)"),
)
"""Codes that are quick to encode, and so to measure: what the first look considers beside all-reduces."""
CANDIDATES = ("auto(bits=0.03)", "auto(bits=0.1)", "auto(bits=0.3)", "auto(bits=1.0)", "auto(bits=3.0)", *QUICK)
"""What later looks consider: the portfolio at several budgets, too. All are unbiased and without memory, so that a
change costs nothing.
"""
TOPOLOGIES: tuple[TopologyName, ...] = ("allgather", "two_phase")
WARM, TRIAL = 3, 3
"""Steps of a trial that are not timed, since loops are loaded and buckets move, and those that are."""
_MARGIN = 0.95  # a gain of less than 5 % over plain DDP is none
_WORTH_A_TRIAL = 2.0  # plain DDP is tried unless it is predicted to take longer by this factor
_WORTH_SEEING = 4.0  # what noise costs is seen unless the six steps of that trial take longer than plain DDP's by this
_MOST_TRIALS = 3


@register("auto", example="auto(patience=1.5)", source="the cost model of docs/theory-costs.md on measured numbers")
@dataclass(frozen=True)
class Automatic(Registered):
    """The exchange of least time to a target on the link that there is: `telegrad.ddp.register(model, "auto")`.

    What counts is the time of a step times the steps that it needs. How many more those are follows from what the
    noise of a few steps cost (see `telegrad.runtime.noise_cost`). Where that cannot be told, as for Adam, guarantees
    stand in: 1 + ω/M times those of plain DDP where gradients have no noise, up to 1 + ω where noise is all they have
    (see `telegrad.theory.advice.step_factor`). `patience`: how many times more steps compression may cost at most,
    whatever time that saves. `every`: steps after which all is measured again, or more: measuring takes at most a
    hundredth of the time.

    Raises `SpecError` for values out of range. Example: `register(model, "auto(patience=1.2, every=500)")`.
    """

    kind: ClassVar[str] = "rule"
    patience: float = 10.0
    every: int = 1000

    def __post_init__(self) -> None:
        check_that(1 <= self.patience < math.inf, self, "patience", "a number from 1 is allowed")
        least = WARM + TRIAL
        check_that(self.every >= least, self, "every", f"a number of steps from {least} is allowed")


def automatic(spec: Any) -> Automatic | None:
    """The rule that `spec` asks for; None where it is a method or a compressor, as `auto(bits=1)` is."""
    if isinstance(spec, Automatic):
        return spec
    if not isinstance(spec, str):
        return None
    try:
        node = ast.parse(spec.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # whoever builds a method of it explains
    call = node if isinstance(node, ast.Call) else None
    name = call.func if call else node
    if not (isinstance(name, ast.Name) and name.id == "auto"):
        return None
    own = {field.name for field in fields(Automatic)}
    given = {keyword.arg for keyword in call.keywords} if call else set()
    meant = {name for name in given if name in own or (name and difflib.get_close_matches(name, own, cutoff=0.7))}
    if call and (call.args or (given and not meant)):
        return None
    rule: Automatic = build(spec, "rule")
    return rule


@dataclass(frozen=True)
class Way:
    """A compressor's spec and a topology; `PLAIN` is DDP's own all-reduce, `HALF` one in bfloat16."""

    spec: str
    topology: str

    def __str__(self) -> str:
        return "no compression" if self == PLAIN else f"{self.spec} over {self.topology}"


PLAIN = Way("none", "all-reduce")
HALF = Way("stochastic rounding to bfloat16", "all-reduce")


@dataclass(frozen=True)
class Option:
    """A way with the `seconds` of a step, predicted or `measured`, and how many times more steps it needs."""

    way: Way
    seconds: float
    factor: float
    measured: bool

    @property
    def to_target(self) -> float:
        """Seconds to the target for each step of uncompressed training."""
        return self.seconds * self.factor


@dataclass(frozen=True)
class Choice:
    """What is used and why; `settled`: whether it is there to stay until the next look, or on trial. `options`: all
    that patience allows, the least time to the target first.
    """

    way: Way
    settled: bool
    reason: str
    options: tuple[Option, ...] = ()


def decide(
    cluster: Cluster,
    profiles: Sequence[Profile],
    entries: int,
    nbytes: int,
    patience: float,
    measured: Mapping[Way, float],
    noise: float = 0.0,
    halving: float = math.inf,
    harm: float | None = math.nan,
) -> Choice:
    """The way with the least time to a target among plain DDP, its all-reduce in bfloat16, and `profiles` over two
    topologies.

    `entries`, `nbytes`: of a gradient; `noise`: the variance of the ranks' mean gradient over the square of what it is
    the mean of; `halving`: seconds to round a gradient to bfloat16 and back, infinite where that cannot be done;
    `measured`: seconds a step of the ways that were tried, which count in place of predictions; `harm`: what noise
    costs, see `steps_needed`, None where that is not known yet: where any compressor's step is quicker, the quickest
    that keeps within patience by its bound is on trial then. What is chosen and was not tried is on trial; plain DDP
    goes first where it may be the best, that is unless it is predicted to take more than twice as long. Compression
    must save 5 %. A pure function: ranks with the same numbers choose alike. Raises `ConfigError` for a patience below
    1.
    """
    if not patience >= 1:
        raise ConfigError(f"patience={patience}: a number from 1 is allowed")
    options = [_plain(cluster, entries, nbytes, measured)]
    if math.isfinite(halving):
        predicted = all_reduce(cluster, entries, 16.0, halving).seconds
        options.append(Option(HALF, measured.get(HALF, predicted), 1.0, HALF in measured))
    quickest = math.inf
    for profile in profiles:
        for topology in TOPOLOGIES:
            way = Way(profile.spec, topology)
            second = profile.omega if topology == "two_phase" else 0.0
            bound = step_factor(profile.omega, cluster.workers, noise, second)
            factor = steps_needed(bound, noise, math.nan if harm is None else harm)
            if not math.isfinite(profile.encode + profile.decode + profile.bits):
                continue
            seconds = measured.get(way, step_cost(cluster, profile, topology).seconds)
            quickest = min(quickest, seconds)
            if factor <= patience:
                options.append(Option(way, seconds, factor, way in measured))
    plain, compressors = options[0], [option for option in options if option.way not in (PLAIN, HALF)]
    tried = [option for option in options[1:] if option.measured]
    if len(tried) >= _MOST_TRIALS:
        options = [plain, *tried]
    options.sort(key=lambda option: option.to_target)
    best = options[0]
    if harm is None and compressors and quickest <= _MARGIN * min(best.to_target, plain.seconds):
        first = min(compressors, key=lambda option: option.seconds)
        if first.seconds <= _WORTH_SEEING * plain.seconds:
            reason = f"{first.way} is tried, to see what its noise costs: a step is predicted to take"
            return Choice(first.way, False, f"{reason} {_time(first.seconds)}", tuple(options))
    if not plain.measured and plain.to_target <= _WORTH_A_TRIAL * best.to_target:
        reason = f"plain DDP is predicted to take {_time(plain.seconds)} a step, and is tried first"
        return Choice(PLAIN, False, reason, tuple(options))
    chosen = best if best.to_target <= _MARGIN * plain.to_target else plain
    return Choice(chosen.way, chosen.measured, _reason(chosen, options, plain, cluster), tuple(options))


def steps_needed(bound: float, noise: float, harm: float) -> float:
    """How many times the steps of plain DDP a compressor needs: 1/(1 − q W/2), where `harm` is q, what noise was seen
    to cost (`telegrad.runtime.noise_cost`), and W = (bound − 1)(1 + noise) the squared error of the mean over its own
    square. The `bound` of guarantees where q is NaN or noise is all there is. Infinity where half of the progress is
    lost: not far from that, training diverges.
    """
    if math.isnan(harm) or math.isinf(noise):
        return bound
    lost = harm * (bound - 1) * (1 + noise) / 2
    return 1 / (1 - lost) if lost < 0.5 else math.inf


def _plain(cluster: Cluster, entries: int, nbytes: int, measured: Mapping[Way, float]) -> Option:
    predicted = all_reduce(cluster, entries, 8 * nbytes / entries).seconds
    return Option(PLAIN, measured.get(PLAIN, predicted), 1.0, PLAIN in measured)


def _reason(chosen: Option, options: Sequence[Option], plain: Option, cluster: Cluster) -> str:
    link = f"the link carries {cluster.bandwidth / 1e6:.3g} Mbit/s with {_time(cluster.latency)} latency"
    if chosen is plain:
        said = f"no compression: a step takes {_time(plain.seconds)}{_how(plain)}"
        other = next((option for option in options if option is not plain), None)
        if other is None:
            return f"{said}; {link}; no compressor needs so few more steps as patience allows"
        said += f", the best compressor, {other.way}, {_time(other.seconds)}{_how(other)}"
        return f"{said} and {other.factor:.3g} times the steps; {link}"
    return (
        f"{chosen.way}: a step takes {_time(chosen.seconds)}{_how(chosen)} instead of {_time(plain.seconds)}"
        f"{_how(plain)}, and it needs at most {chosen.factor:.3g} times the steps; {link}"
    )


def _how(option: Option) -> str:
    return " (measured)" if option.measured else " (predicted)"


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
