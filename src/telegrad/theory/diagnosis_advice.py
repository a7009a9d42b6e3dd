"""What a diagnosis means, in words: for the number of workers, the learning rate and the compressor."""

from __future__ import annotations

import math
from collections.abc import Sequence

from telegrad.theory.measuring import Measurement
from telegrad.theory.noise_scale import NoiseScale
from telegrad.theory.tails import Tail

__all__ = ["advice_lines"]


def advice_lines(whole: Tail, noise: NoiseScale | None, found: Sequence[Measurement], workers: int) -> list[str]:
    """Sentences on the gradient's tail, its noise, and the compressor of `found` with the least bits to the target, for
    `workers` workers. `noise` None: not known, and taken to dominate.
    """
    if whole.entries < 3 or math.isnan(whole.hill) or math.isnan(whole.decay.rate):
        said = ["The gradient has fewer than three entries that are not zero: nothing can be said of its tail."]
    else:
        said = _tail_advice(whole)
    phi = math.inf if noise is None else noise.phi(workers)
    if noise is None:
        said.append(
            "Fewer than three batches of one size tell no noise scale: noise is taken to dominate, as it does near the "
            "end of training."
        )
    elif math.isinf(phi):
        said.append("Noise hides the gradient in these batches: more or larger batches would tell its scale.")
    else:
        most = max(1, round(noise.examples / noise.batch_size))
        add = "about one worker adds" if most == 1 else f"up to about {most} workers add"
        said.append(
            f"Gradient noise scale {noise.examples:.3g} examples (95 %: {noise.low:.3g} to {noise.high:.3g}): with "
            f"batches of {noise.batch_size}, {add} speed; with {workers}, noise is {phi:.3g} times the gradient "
            f"(`telegrad advise --noise {phi:.3g}`)."
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


def _tail_advice(whole: Tail) -> list[str]:
    fit = whole.decay
    shape = "a light, Gaussian-like tail" if whole.top_share < 0.15 else "a heavy tail"
    return [
        f"The gradient has {shape}: its largest 1 % of entries hold {100 * whole.top_share:.0f} % of the energy "
        f"(Gaussian: 8 %), Hill index {whole.hill:.2f} ± {1.96 * whole.hill_error:.2f}.",
        f"Exponential decay (Assumption 3.5) explains {100 * fit.rate_r2:.0f} % of the variance of log magnitudes, a "
        f"power law {100 * fit.exponent_r2:.0f} %; the fitted rate predicts ω = {fit.omega_by_rate:.3g} for s-Top-k "
        f"at 1 %, and it is {fit.omega:.3g}.",
    ]
