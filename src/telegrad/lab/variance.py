"""Error against bits: what compressors make of one vector, from messages that were really packed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from telegrad.compressors.base import Compressor
from telegrad.errors import DataError, SpecError
from telegrad.random import Key
from telegrad.spec import build
from telegrad.wire.message import pack

__all__ = ["DEFAULT_SPECS", "Measurement", "as_json", "measure", "measure_all", "plot", "rate_distortion"]

DEFAULT_SPECS = (
    *(f"topk(k={k})" for k in (0.001, 0.01, 0.1)),
    *(f"randk(k={k})" for k in (0.001, 0.01, 0.1)),
    *(f"importance(k={k})" for k in (0.001, 0.01, 0.1, 0.3)),
    *(f"mlmc(stopk(s={s}))" for s in (0.001, 0.01, 0.1)),
    *(f"mlmc(stopk(s={s}, values=log))" for s in (0.001, 0.01, 0.1)),
    *(f"mlmc(stopk(s={s}, values=sign))" for s in (0.001, 0.01, 0.1)),
    *(f"qsgd(levels={levels})" for levels in (16, 64, 256, 1024)),
    "mlmc(fixed_point)",
    "mlmc(fixed_point, probabilities=cost)",
    "mlmc(floating_point)",
    "mlmc(rtn, probabilities=cost)",
    "sign",
    "rtn(level=4)",
)
"""What is measured where no spec is given."""


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
    """Encode, pack and decode `x` (flat, not zero) under `repeats` keys, one if the compressor draws nothing."""
    compressor: Compressor = build(spec, "compressor")
    energy, count = float(x.double().square().sum()), repeats if compressor.random else 1
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
    """`measure` for every spec, in the order of bits. Raises `SpecError` naming the spec that does not fit x."""
    if x.numel() == 0 or not bool(x.any()):
        raise DataError("the vector is empty or zero: there is nothing to compress")
    found = []
    for spec in specs:
        try:
            found.append(measure(spec, x, key, repeats))
        except SpecError as error:
            raise SpecError(f"{spec}: {error}") from None
    return sorted(found, key=lambda one: one.bits)


def rate_distortion(bits_per_coordinate: float) -> float:
    """D / (1 − D) with D = 4^−R: the least omega at R bits a coordinate of any unbiased code of Gaussian entries
    (B14).
    """
    return 1 / (4.0**bits_per_coordinate - 1)


def plot(measurements: Sequence[Measurement], title: str, path: Path) -> None:
    """omega against bits a coordinate on logarithmic axes, one mark a compressor and a line a family, as a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5.4), dpi=150, layout="constrained")
    colours = matplotlib.colormaps["tab20"]
    families: dict[str, list[Measurement]] = {}
    for one in measurements:
        families.setdefault(_family(one.spec), []).append(one)
    for number, (family, members) in enumerate(families.items()):
        shown = [(m.bits_per_coordinate, m.omega) for m in members if m.omega > 0]
        unbiased = members[0].unbiased
        axes.plot(
            *zip(*shown, strict=True) if shown else ([], []),
            marker="osD^vP*X<>"[number % 10],
            linestyle="-" if unbiased else ":",
            color=colours(number % 20),
            label=family if unbiased else f"{family} (biased)",
        )
    rates = torch.logspace(
        math.log10(min(m.bits_per_coordinate for m in measurements)),
        math.log10(max(m.bits_per_coordinate for m in measurements)),
        200,
        dtype=torch.float64,
    )
    axes.plot(rates, [rate_distortion(float(r)) for r in rates], color="black", linewidth=1, linestyle="--")
    axes.annotate(
        "Gaussian rate-distortion",
        (float(rates[60]), rate_distortion(float(rates[60]))),
        fontsize=8,
        ha="right",
        va="top",
    )
    axes.set(
        xscale="log", yscale="log", xlabel="measured bits a coordinate", ylabel="ω = E‖C(x) − x‖² / ‖x‖²", title=title
    )
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(fontsize=7, loc="best")
    figure.savefig(path)
    pyplot.close(figure)


def _family(spec: str) -> str:
    """The spec without its numbers: what one line of the plot stands for."""
    return re.sub(r"\w+=[\d.e+-]+(, )?", "", spec).replace("()", "").replace(", )", ")")


def as_json(measurements: Sequence[Measurement], vector: str, d: int) -> dict[str, Any]:
    """What `telegrad variance --json` writes."""
    rows = [
        {k: (None if isinstance(v, float) and not math.isfinite(v) else v) for k, v in asdict(m).items()}
        for m in measurements
    ]
    return {"vector": vector, "d": d, "results": rows}
