"""Error against bits: what compressors make of one vector, from messages that were really packed."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from telegrad.theory.measuring import Measurement, measure, measure_all

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
