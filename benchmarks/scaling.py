"""The scaling rules on real data: changes to a tuned run, by the rule and naively. docs/theory-scaling.md.

    nice python benchmarks/scaling.py --data DIR --out benchmarks/results/scaling.json --figures docs/images

DIR holds libsvm/german.numer_scale. Logistic regression on its 1,000 examples; minibatches with replacement; 64 seeds
at once; the loss is f(x) − f* over all examples. Less than half a minute of processor time.
"""

from __future__ import annotations

import argparse
import bz2
import json
import math
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize
from sklearn.datasets import load_svmlight_file

from telegrad.lab.runner import provenance
from telegrad.random import Key
from telegrad.theory.noise_laws import Gaussian
from telegrad.theory.scaling import Run, rescale

SEEDS, RIDGE, POINTS = 64, 0.02, 40


class Problem:
    """Logistic regression, y·a row by row, with its minimum and its gradient noise there."""

    def __init__(self, file: Path) -> None:
        with bz2.open(file) if file.suffix == ".bz2" else file.open("rb") as handle:
            rows, labels = load_svmlight_file(handle)
        self.rows = np.c_[rows.toarray(), np.ones(len(labels))] * labels[:, None]
        self.best = minimize(
            lambda x: float(self.loss(x[None])[0]), np.zeros(self.rows.shape[1]), jac=lambda x: self.full(x[None])[0],
            tol=1e-14, options={"gtol": 1e-10},
        ).x  # fmt: skip
        self.least = float(self.loss(self.best[None])[0])
        each = -self.rows / (1 + np.exp(self.rows @ self.best))[:, None]
        self.noise = each.std(axis=0)  # of one example's gradient, coordinate by coordinate
        self.smoothness = float(np.linalg.eigvalsh(self.rows.T @ self.rows / len(self.rows))[-1]) / 4 + RIDGE

    def loss(self, x: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, -(x @ self.rows.T)).mean(axis=1) + RIDGE / 2 * (x**2).sum(axis=1)

    def full(self, x: np.ndarray) -> np.ndarray:
        return -(1 / (1 + np.exp(x @ self.rows.T))) @ self.rows / len(self.rows) + RIDGE * x

    def batch(self, x: np.ndarray, size: int, generator: np.random.Generator) -> np.ndarray:
        """A worker's minibatch gradients, one a seed."""
        chosen = self.rows[generator.integers(len(self.rows), size=(len(x), size))]
        weight = 1 / (1 + np.exp((chosen @ x[:, :, None])[:, :, 0]))
        return -(weight[:, None, :] @ chosen)[:, 0] / size + RIDGE * x


class Optimizer:
    """x by torch's SGD with momentum, by signs, or by AdamW without decay (bias corrected), for all seeds."""

    def __init__(self, run: Run, shape: tuple[int, int]) -> None:
        self.run, self.count = run, 0
        self.first, self.second = np.zeros(shape), np.zeros(shape)

    def step(self, g: np.ndarray) -> np.ndarray:
        """What is added to x for the workers' mean gradient g."""
        run = self.run
        self.count += 1
        if run.optimizer != "adamw":
            self.first = run.momentum * self.first + g
            return -run.lr * self.first
        self.first = run.momentum * self.first + (1 - run.momentum) * g
        self.second = run.beta2 * self.second + (1 - run.beta2) * g**2
        mean, square = self.first / (1 - run.momentum**self.count), self.second / (1 - run.beta2**self.count)
        return -run.lr * mean / (np.sqrt(square) + 1e-12)


def train(problem: Problem, run: Run, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """f − f* of every seed at 40 points of the run: (points, seeds), and the steps of the points."""
    generator = Key(seed).generator()
    x = np.zeros((SEEDS, problem.rows.shape[1]))
    counts = sorted({max(1, round(run.steps * k / POINTS)) for k in range(1, POINTS + 1)})
    keep, found, optimizer = 1 / (1 + run.omega), [], Optimizer(run, x.shape)
    for step in range(1, counts[-1] + 1):
        total = np.zeros_like(x)
        for _ in range(round(run.workers)):
            g = problem.batch(x, round(run.batch_size), generator)
            if run.optimizer == "sign":
                g = np.sign(g)
            elif run.omega:
                g = np.where(generator.random(x.shape) < keep, g / keep, 0.0)
            total += g
        x += optimizer.step(total / round(run.workers))
        if step in counts:
            found.append(problem.loss(x) - problem.least)
    return np.array(found), np.array(counts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figures", type=Path, default=Path("docs"))
    options = parser.parse_args()
    found = [options.data / "libsvm" / f"german.numer_scale{end}" for end in ("", ".bz2")]
    problem = Problem(next(file for file in found if file.is_file()))
    sigma = float((problem.noise**2).sum() / problem.noise.sum())
    plain = Run(lr=0.06, batch_size=4, workers=4, steps=1600)
    sparse = replace(plain, omega=1.0)
    slow, large = replace(plain, lr=0.03, steps=3200), replace(plain, lr=0.12, batch_size=32, steps=800)
    heavy = replace(plain, lr=0.006, momentum=0.9)
    adam = replace(plain, optimizer="adamw", lr=0.01, momentum=0.9, beta2=0.99)
    changes = [
        ("twice the workers", plain, replace(plain, workers=8), "lr"),
        ("eight times the batch", slow, replace(slow, batch_size=32), "lr"),
        ("half the bits (ω 1 → 3)", sparse, replace(sparse, omega=3.0), "lr"),
        ("compress (ω = 3), more workers", plain, replace(plain, omega=3.0), "workers"),
        ("compress (ω = 3), larger batch", plain, replace(plain, omega=3.0), "batch_size"),
        ("switch to signs, batch 32", large, replace(large, optimizer="sign"), "lr"),
        ("the same with batch 4", plain, replace(plain, optimizer="sign"), "lr"),
        ("momentum .9 instead of 0", plain, replace(plain, momentum=0.9), "lr"),
        ("momentum .9, twice the workers", heavy, replace(heavy, workers=8), "lr"),
        ("momentum .9, compress (ω = 3)", heavy, replace(heavy, omega=3.0), "lr"),
        ("AdamW, twice the workers", adam, replace(adam, workers=8), "lr"),
        ("AdamW, four times the batch", adam, replace(adam, batch_size=16), "lr"),
        ("AdamW, compress (ω = 3)", adam, replace(adam, omega=3.0), "lr"),
        ("AdamW, ω = 3, more workers", adam, replace(adam, omega=3.0), "workers"),
    ]
    print(f"L = {problem.smoothness:.2f}, f* = {problem.least:.4f}, noise scale {sigma:.3f}")
    figure = Figure(figsize=(13, 11), dpi=110, layout="constrained")
    rows: list[dict[str, Any]] = []
    for number, (axes, (name, old, new, free)) in enumerate(zip(figure.subplots(4, 4).flat, changes, strict=False)):
        scaled = rescale(old, new, free, noise=sigma, smoothness=problem.smoothness).run
        # Naive: the same learning rate, batch, workers and steps as before.
        naive = replace(new, lr=old.lr, steps=old.steps)
        curves = {}
        for label, run in (("tuned", old), ("rule", scaled), ("naive", naive)):
            curves[label] = train(problem, run, 10 * number + len(curves))
        row: dict[str, Any] = {"change": name, "tuned": vars(old), "rule": vars(scaled), "naive": vars(naive)}
        base = curves["tuned"][0]
        row["start"] = float(math.log(2) - problem.least)
        for label in ("rule", "naive"):
            other = curves[label][0]
            end = slice(len(base) * 3 // 4, None)
            ratios = other[end].mean(axis=0).mean() / base[end].mean(axis=0).mean()
            errors = [c[end].mean(axis=0).std(ddof=1) / c[end].mean() / math.sqrt(SEEDS) for c in (other, base)]
            count = min(len(other), len(base))
            row[f"{label}_final_ratio"] = float(ratios)
            row[f"{label}_final_error"] = float(ratios * math.hypot(*errors))
            row[f"{label}_curve_distance"] = float(
                np.exp(np.abs(np.log(other[:count].mean(axis=1) / base[:count].mean(axis=1))).mean())
            )
        rows.append(row)
        print(
            f"{name:34} rule {row['rule_final_ratio']:.3f} ± {1.96 * row['rule_final_error']:.3f} "
            f"(curve {row['rule_curve_distance']:.2f}), naive {row['naive_final_ratio']:.3f} "
            f"(curve {row['naive_curve_distance']:.2f}); lr {scaled.lr:.4g} B {scaled.batch_size:.3g} "
            f"N {scaled.workers:.3g} steps {scaled.steps:.0f}", flush=True,
        )  # fmt: skip
        for label, style in (("tuned", "k-"), ("rule", "C2--"), ("naive", "C3:")):
            losses, counts = curves[label]
            axes.plot(counts / counts[-1], losses.mean(axis=1), style, label=label)
        axes.set(yscale="log", title=name, xlabel="share of the run")
        axes.title.set_fontsize(9)
        axes.legend(fontsize=8)
    for axes in figure.axes[len(changes) :]:
        axes.axis("off")
    figure.savefig(options.figures / "theory-scaling.png", metadata={"Software": None})
    if options.out:
        report = {
            "command": "python " + " ".join(sys.argv),
            **provenance(),
            "processor_seconds": time.process_time(),
            "seeds": SEEDS,
            "noise_scale": sigma,
            "smoothness": problem.smoothness,
            "slope": Gaussian().slope,
            "rows": rows,
        }
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
