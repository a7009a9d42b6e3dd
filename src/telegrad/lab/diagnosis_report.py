"""A diagnosis as one HTML page that needs nothing else, and as figures for machines."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import math
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from telegrad.lab.tables import number
from telegrad.theory.diagnosis import Diagnosis

__all__ = ["diagnosis_json", "diagnosis_page", "write_diagnosis"]

_MOST_LAYERS = 100


def write_diagnosis(diagnosis: Diagnosis, path: Path | str, title: str = "A model's gradients") -> None:
    """Write the page. Example: `write_diagnosis(telegrad.diagnose(model, loader), "diagnosis.html")`."""
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(diagnosis_page(diagnosis, title), encoding="utf-8")


def diagnosis_page(diagnosis: Diagnosis, title: str) -> str:
    """The page's text, styled as the report of a comparison; plots are inlined, and nothing is fetched."""
    style = resources.files("telegrad.lab").joinpath("report.css").read_text(encoding="utf-8")
    whole, said = diagnosis.whole, "".join(f"<li>{_text(line)}</li>" for line in diagnosis.advice)
    sections = [
        ("What it means", f"<ul class='reading'>{said}</ul>"),
        ("Magnitudes", _image(_magnitudes, diagnosis, "Sorted magnitudes of the gradient, and two fitted laws")),
        ("Bits and error of compressors", _image(_errors, diagnosis, "ω against bits") + _measured(diagnosis)),
        ("Levels of MLMC", _image(_levels, diagnosis, "Probability of each level") + _level_table(diagnosis)),
        ("Layers", _layers(diagnosis)),
    ]  # fmt: skip
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections)
    batches = "" if diagnosis.noise is None else f" · {diagnosis.noise.batches} batches of {diagnosis.noise.batch_size}"
    return (
        "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><link rel='icon' href='data:,'>"
        f"<meta name='color-scheme' content='light dark'><title>{_text(title)}</title><style>\n{style}\n</style></head>"
        f"<body><main><header><p class='brand'>telegrad</p><h1>{_text(title)}</h1>"
        f"<p class='setting'>{whole.entries:,} entries in {len(diagnosis.layers)} tensors{batches}</p></header>"
        f"<dl class='tiles'>{_tiles(diagnosis)}</dl>{body}</main></body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _tiles(diagnosis: Diagnosis) -> str:
    whole, noise = diagnosis.whole, diagnosis.noise
    tiles = [
        ("Energy in the largest 1 %", f"{100 * whole.top_share:.0f} %", "8 % of Gaussian entries"),
        ("Hill index", f"{number(whole.hill)} ± {number(1.96 * whole.hill_error, 2)}", "of the largest 1 %, 95 %"),
    ]
    if noise is not None:
        scale = "hidden" if math.isinf(noise.examples) else f"{number(noise.examples)} examples"
        tiles.append(("Gradient noise scale", scale, f"95 %: {number(noise.low)} to {number(noise.high)}"))
    return "".join(
        f"<div class='tile'><dt>{_text(a)}</dt><dd>{_text(b)}<small>{_text(c)}</small></dd></div>" for a, b, c in tiles
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th scope='col'>{_text(one)}</th>" for one in heads)
    body = "".join(
        f"<tr><th scope='row'>{_text(row[0])}</th>" + "".join(f"<td>{_text(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in rows
    )
    return f"<div class='scroll' tabindex='0'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


def _measured(diagnosis: Diagnosis) -> str:
    rows = [
        (
            one.spec + ("" if one.unbiased else " (biased)"),
            *(number(one.bits_per_coordinate), number(one.predicted), f"{number(one.omega)} ± {number(one.error, 2)}"),
            *(number(one.bound), number((1 + one.predicted) * one.bits_per_coordinate)),
        )
        for one in diagnosis.measurements
    ]
    return _table(
        ("Compressor", "Bits a coordinate", "ω predicted", "ω measured", "Worst case", "(1 + ω) · bits"), rows
    )


def _level_table(diagnosis: Diagnosis) -> str:
    rows = [(law.spec, str(len(law.probabilities)), number(law.mean)) for law in diagnosis.levels]
    return _table(("MLMC", "Levels", "Mean level"), rows)


def _layers(diagnosis: Diagnosis) -> str:
    rows = [
        (
            name,
            *(f"{one.entries:,}", number(one.norm), f"{number(one.hill)} ± {number(1.96 * one.hill_error, 2)}"),
            *(f"{100 * one.top_share:.0f} %", number(one.kurtosis), number(one.decay.rate), number(one.decay.rate_r2)),
            *(number(one.decay.exponent_r2), number(one.decay.omega), number(one.decay.omega_by_rate)),
        )
        for name, one in list(diagnosis.layers.items())[:_MOST_LAYERS]
    ]
    heads = (
        *("Tensor", "Entries", "Norm", "Hill index (95 %)", "Energy in top 1 %", "Kurtosis", "Decay rate r"),
        *("R² of it", "R² of a power law", "ω of s-Top-k, 1 %", "ω by r"),
    )
    more = len(diagnosis.layers) - _MOST_LAYERS
    return _table(heads, rows) + (f"<p class='hint'>and {more} more tensors</p>" if more > 0 else "")


def _image(draw: Any, diagnosis: Diagnosis, text: str) -> str:
    figure = Figure(figsize=(8, 3.8), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    draw(axes, diagnosis)
    axes.grid(alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"<p><img alt='{_text(text)}' style='max-width:100%' src='data:image/png;base64,{data}'></p>"


def _magnitudes(axes: Axes, diagnosis: Diagnosis) -> None:
    shown = [(rank + 1, m) for rank, m in zip(diagnosis.ranks, diagnosis.magnitudes, strict=True) if m > 0]
    ranks, values = [rank for rank, _ in shown], [value for _, value in shown]
    fit = diagnosis.whole.decay
    axes.plot(ranks, values, "k.", markersize=4, label="gradient")
    middle = len(ranks) * 3 // 4
    for label, law in (
        (f"exponential, r = {number(fit.rate)}", lambda j: math.exp(-fit.rate * j / 2)),
        (f"power law, exponent {number(fit.exponent)}", lambda j: j**-fit.exponent),
    ):
        scale = values[middle] / max(law(ranks[middle]), 1e-300)
        curve = [(j, scale * law(j)) for j in ranks if scale * law(j) > values[-1] / 10]
        axes.plot([j for j, _ in curve], [y for _, y in curve], "-", linewidth=1, label=label)
    axes.set(xscale="log", yscale="log", xlabel="rank", ylabel="magnitude")
    axes.legend(fontsize=8)


def _errors(axes: Axes, diagnosis: Diagnosis) -> None:
    axes.set(xlabel="bits a coordinate", ylabel="ω")
    if not any(one.predicted > 0 for one in diagnosis.measurements):  # nothing to draw on a scale of logarithms
        return
    for unbiased, marker in ((True, "o"), (False, "x")):
        rows = [one for one in diagnosis.measurements if one.unbiased == unbiased and one.predicted > 0]
        axes.plot([one.bits_per_coordinate for one in rows], [one.predicted for one in rows], f"C0{marker}")
    for one in diagnosis.measurements:
        if one.predicted > 0:
            at = (one.bits_per_coordinate, one.predicted)
            axes.annotate(one.spec, at, fontsize=6, xytext=(4, 2), textcoords="offset points")
    axes.set(xscale="log", yscale="log")


def _levels(axes: Axes, diagnosis: Diagnosis) -> None:
    for law in diagnosis.levels:
        axes.plot(range(1, len(law.probabilities) + 1), law.probabilities, ".-", markersize=3, label=law.spec)
    axes.set(yscale="log", xlabel="level", ylabel="probability", ylim=(1e-6, 1.2))
    axes.legend(fontsize=8)


def diagnosis_json(diagnosis: Diagnosis) -> dict[str, Any]:
    """All figures; infinite and undefined ones as null."""
    return _plain(dataclasses.asdict(diagnosis))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
