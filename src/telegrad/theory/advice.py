"""Which compressor and topology to use, with reasons; "do not compress" included."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from telegrad.errors import ConfigError
from telegrad.theory.cost_model import Cluster, Profile, StepCost, TopologyName, all_reduce, break_even, step_cost
from telegrad.theory.ranges import ABOVE_0, COUNT, FROM_0, Range, check

__all__ = ["DO_NOT_COMPRESS", "Advice", "Prediction", "recommend", "step_factor"]

DO_NOT_COMPRESS = "do not compress"
_MARGIN = 0.95  # a gain of less than 5 % is none: predictions are not that good


def step_factor(omega: float, workers: int, noise: float, omega_down: float = 0.0) -> float:
    """How many times more steps compressed SGD needs: (1 + ω_M)((1 + ω/M) + (1 + ω)φ)/(1 + φ).

    From (B7.4) and (C2.2): the second moment of the estimate over that of uncompressed SGD, each at its own best step.
    `omega` of the workers' compressor, `omega_down` of a second compression on the way back; `noise` φ: the variance of
    the mean gradient over ‖∇f‖², that is the gradient noise scale over the batch of all workers. φ = 0: 1 + ω/M;
    φ → ∞: 1 + ω (B7.6). Raises `ConfigError` for values below 0.
    """
    unbounded = Range(infinite=True)
    check(
        omega=(omega, unbounded),
        workers=(workers, COUNT),
        noise=(noise, unbounded),
        omega_down=(omega_down, unbounded),
    )
    if math.isinf(noise):
        return (1 + omega_down) * (1 + omega)
    return (1 + omega_down) * ((1 + omega / workers) + (1 + omega) * noise) / (1 + noise)


@dataclass(frozen=True)
class Prediction:
    """One way to train: its step, how many `steps` and `seconds` it takes to the target, and the bandwidths below which
    it beats uncompressed training: by the time of a step, and by the time to the target (None: never).
    """

    step: StepCost
    omega: float
    factor: float
    steps: float
    seconds: float
    break_even_step: float | None
    break_even: float | None

    @property
    def name(self) -> str:
        """The spec and the topology."""
        return f"{self.step.spec} @ {self.step.topology}"


@dataclass(frozen=True)
class Advice:
    """`choice`: the prediction that is recommended, `compress` whether that is a compressor; `predictions`: all, the
    least time to the target first; `dense`: uncompressed training; `reasons` and `assumptions` in words.
    """

    cluster: Cluster
    choice: Prediction
    compress: bool
    dense: Prediction
    predictions: tuple[Prediction, ...]
    reasons: tuple[str, ...]
    assumptions: tuple[str, ...]


def recommend(
    cluster: Cluster,
    profiles: Sequence[Profile],
    topologies: Sequence[TopologyName] = ("allgather", "two_phase"),
    noise: float = 1.0,
    steps: float = 10_000,
    convert: float | None = None,
) -> Advice:
    """Predict each profile over each topology and recommend one.

    All profiles are of the same d. `noise`: see `step_factor`; `steps`: those that uncompressed training needs to its
    target; `convert`: seconds to convert such a gradient to fp16 and back: an all-reduce in fp16, torch's own hook, is
    then considered too. Biased compressors are left out: with error feedback their number of steps does not follow from
    ω. Raises `ConfigError` without a profile.
    """
    if not profiles:
        raise ConfigError("no compressor to consider: give at least one profile")
    check(steps=(steps, ABOVE_0), noise=(noise, Range(infinite=True)))
    if convert is not None:
        check(convert=(convert, FROM_0))
    d = profiles[0].d

    def dense_cost(there: Cluster) -> StepCost:
        return all_reduce(there, d)

    def predict(cost: Callable[[Cluster], StepCost], omega: float, factor: float) -> Prediction:
        step = cost(cluster)
        return Prediction(
            step,
            omega,
            factor,
            steps * factor,
            steps * factor * step.seconds,
            break_even(lambda there: cost(there).seconds, lambda there: dense_cost(there).seconds, cluster),
            break_even(lambda there: factor * cost(there).seconds, lambda there: dense_cost(there).seconds, cluster),
        )

    dense = predict(dense_cost, 0.0, 1.0)
    found = [dense]
    if convert is not None:
        found.append(predict(lambda there: all_reduce(there, d, 16.0, convert, "fp16"), 0.0, 1.0))
    for profile in profiles:
        for topology in topologies if profile.unbiased else ():
            senders = math.ceil(cluster.workers / cluster.node) if topology == "hierarchical" else cluster.workers
            second = profile.omega if topology == "two_phase" else 0.0
            factor = step_factor(profile.omega, senders, noise, second)
            found.append(predict(partial(step_cost, profile=profile, topology=topology), profile.omega, factor))
    found.sort(key=lambda one: one.seconds)
    best = found[0]
    compress = best.seconds < _MARGIN * dense.seconds
    choice = best if compress else dense
    biased = [profile.spec for profile in profiles if not profile.unbiased]
    reasons = (*_reasons(choice, best, dense, compress), *(f"{spec} is biased and left out" for spec in biased))
    return Advice(cluster, choice, compress, dense, tuple(found), reasons, _assumptions(cluster, noise, steps))


def _reasons(choice: Prediction, best: Prediction, dense: Prediction, compress: bool) -> tuple[str, ...]:
    share = dense.step.transfer / dense.step.seconds if dense.step.seconds else 0.0
    said = [f"uncompressed, {100 * share:.0f} % of a step's {_time(dense.step.seconds)} is communication"]
    if compress:
        said.append(
            f"{choice.name} sends {dense.step.sent / max(choice.step.sent, 1e-300):.3g} times fewer bytes, and its "
            f"step takes {_time(choice.step.seconds)}"
        )
        said.append(
            f"its ω = {choice.omega:.3g} costs {choice.factor:.3g} times the steps; to the target it takes "
            f"{_time(choice.seconds)} instead of {_time(dense.seconds)}"
        )
        if choice.break_even is not None and math.isfinite(choice.break_even):
            said.append(f"it pays below {choice.break_even / 1e6:.3g} Mbit/s")
    elif best is dense:
        said.append("every compressor costs more, in encoding, decoding and extra steps, than it saves")
    else:
        said.append(f"the best alternative, {best.name}, would save less than 5 %, which is within the model's error")
    return tuple(said)


def _time(seconds: float) -> str:
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min"), (1.0, "s"), (1e-3, "ms")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def _assumptions(cluster: Cluster, noise: float, steps: float) -> tuple[str, ...]:
    said = [
        f"{cluster.workers} workers, {cluster.bandwidth / 1e6:g} Mbit/s each way, of which {cluster.efficiency:.0%} is "
        f"payload; latency {_time(cluster.latency) if cluster.latency else '0 s'}; compute {_time(cluster.compute)} "
        f"a step, {cluster.overlap:.0%} of it beside communication",
        "links are full duplex and do not share a bottleneck beyond the worker's own; all workers are alike and none "
        "is waited for longer",
        f"{steps:g} steps uncompressed; gradient noise of the whole batch {noise:g} times the gradient (φ); each "
        "method at its own best step size, as in (B7.4)",
    ]
    if math.isfinite(cluster.memory_bandwidth):
        said.append(
            f"a processor copies {cluster.memory_bandwidth / 1e9:.3g} Gbit/s, into new memory "
            f"{cluster.fresh_bandwidth / 1e9:.3g} Gbit/s, and {cluster.sharing:g} workers share one"
        )
    if cluster.workers > 256:
        said.append(
            "extrapolated beyond what was measured: an all-to-all among so many workers is taken to cost two "
            "latencies, and every worker to answer"
        )
    return tuple(said)
