"""The pictures of docs/how-mlmc-works.md, drawn by the library: `python docs/_site/figures.py`."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor

import telegrad as tg
from telegrad.mlmc import Levels
from telegrad.spec import build

IMAGES = Path(__file__).parents[1] / "images"
KEY = tg.Key(seed=7)


def gradient(d: int) -> Tensor:
    """A peaky vector: a few large entries, many small ones."""
    noise = torch.from_numpy(KEY.generator().standard_normal(d))
    return noise.sign() * noise.abs() ** 2


def levels_of(spec: str, v: Tensor) -> Levels:
    return build(spec, "ladder").levels(v)


def residual(levels: Levels, number: int, d: int) -> Tensor:
    out = torch.zeros(d, dtype=torch.float64)
    for term in levels.residual(number):
        term.add_to(out, 1.0)
    return out


def draw_levels(d: int = 24, s: int = 4) -> None:
    """One vector, cut into the levels of s-Top-k, and how often each level is drawn."""
    v = gradient(d)
    levels = levels_of(f"stopk(s={s})", v)
    norms = levels.norms()
    colours = plt.get_cmap("viridis")(torch.linspace(0, 0.9, len(norms)).numpy())
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), width_ratios=(2, 1), layout="constrained")
    for number, colour in enumerate(colours, 1):
        part = residual(levels, number, d)
        places = part.nonzero().squeeze(1)
        left.bar(places.numpy(), part[places].numpy(), color=colour, label=f"level {number}")
    left.set(title=f"a vector of {d} entries, in levels of {s} entries by size", xlabel="entry", ylabel="value")
    left.axhline(0, color="black", linewidth=0.5)
    right.bar(range(1, len(norms) + 1), (norms / norms.sum()).numpy(), color=colours)
    right.set(title="how often each is sent", xlabel="level", ylabel="probability")
    figure.savefig(IMAGES / "mlmc-levels.png", dpi=130)
    plt.close(figure)


def draw_means(d: int = 24, s: int = 4) -> None:
    """One message, and means over 10 and 1,000 messages: they approach the vector."""
    v, compressor = gradient(d), tg.compressor(f"mlmc(stopk(s={s}))")
    messages = torch.stack([compressor.encode(v, KEY.fold(step=i)).decode() for i in range(1000)])
    figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True, layout="constrained")
    for axis, count in zip(axes, (1, 10, 1000), strict=True):
        axis.bar(range(d), messages[:count].mean(0).numpy(), color="tab:green", label="mean of messages")
        axis.plot(range(d), v.numpy(), "k_", markersize=7, label="the vector")
        axis.set(title=f"{count} message{'s' if count > 1 else ''}", xlabel="entry")
    axes[0].legend(fontsize=8)
    figure.savefig(IMAGES / "mlmc-means.png", dpi=130)
    plt.close(figure)


def draw_workers(d: int = 10_000) -> None:
    """The error of the mean over M workers that hold the same vector, at about the same bits."""
    v = gradient(d)
    figure, axis = plt.subplots(figsize=(5.5, 3.4), layout="constrained")
    counts = [1, 4, 16, 64, 256]
    for spec, style in (
        ("mlmc(stopk(s=0.01))", "o-"),
        ("mlmc(stopk(s=0.01), workers=256)", "v-"),
        ("topk(k=0.01)", "s--"),
    ):
        compressor = tg.compressor(spec)
        errors = []
        for count in counts:
            total = torch.zeros(d, dtype=torch.float64)
            for rank in range(count):
                compressor.encode(v, KEY.fold(rank=rank)).add_to(total, 1 / count)
            errors.append(float((total - v).square().sum() / v.square().sum()))
        axis.loglog(counts, errors, style, label=spec)
    axis.set(xlabel="workers", ylabel="squared error of their mean, of ‖v‖²", title="same vector on all workers")
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(IMAGES / "mlmc-workers.png", dpi=130)
    plt.close(figure)


def draw_ladders(d: int = 24) -> None:
    """The same vector at the first levels of four ladders."""
    v = gradient(d)
    ladders = ["stopk(s=4)", "fixed_point", "floating_point", "rtn"]
    figure, axes = plt.subplots(1, 4, figsize=(11, 2.6), sharey=True, layout="constrained")
    for axis, spec in zip(axes, ladders, strict=True):
        levels = levels_of(spec, v)
        known = torch.zeros(d, dtype=torch.float64)
        for term in levels.base():
            term.add_to(known, 1.0)
        axis.plot(v.numpy(), "k_", markersize=7)
        for number, width in ((1, 0.9), (2, 0.6), (3, 0.3)):
            known = known + residual(levels, number, d)
            axis.bar(range(d), known.numpy(), width=width, alpha=0.45, label=f"level {number}")
        axis.set(title=spec, xlabel="entry")
    axes[0].legend(fontsize=8)
    figure.savefig(IMAGES / "mlmc-ladders.png", dpi=130)
    plt.close(figure)


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for draw in (draw_levels, draw_means, draw_workers, draw_ladders):
        draw()
