"""The error at a fixed number of samples against the number of workers: docs/theory-parallelism.md.

    nice python benchmarks/parallelism.py --out benchmarks/results/parallelism.json --figures docs/images

M from 1 to 4096 for uncompressed SGD, Rand-k, MLMC and EF21-SGDM, each at the best of its rates (and EF21-SGDM of
its momenta). Five minutes of processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from telegrad.lab.runner import provenance
from telegrad.random import Key
from telegrad.theory.parallelism import (
    MethodName,
    Problem,
    ef21_sgd2m_error,
    ef21_sgdm_error,
    limit,
    sgd_error,
    train,
)

SEEDS = 6
METHODS: tuple[MethodName, ...] = ("sgd", "mlmc", "randk", "ef21_sgdm")
MOMENTA = (0.03, 0.2, 1.0)


def quadratic() -> tuple[Problem, float]:
    """½Σλ_jx_j², λ_j = j⁻², started so that λ_jx_j² = j⁻³: gradient descent's error falls like 1/T, as in the bound's
    worst case. Noise of variance 1 in all.
    """
    d = 64
    j = np.arange(1, d + 1.0)
    curvature, start, scale = j**-2, j**-0.5, 1 / math.sqrt(d)

    def draw(x: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        return (curvature * x)[:, None, :] + scale * generator.standard_normal((len(x), count, d))

    return Problem(start, draw, lambda x: (curvature * x**2).sum(axis=-1) / 2), 1.0


def _examples(
    loss: Callable[[np.ndarray], np.ndarray], full: Callable[[np.ndarray], np.ndarray], d: int, L: float
) -> float:
    """f* by Newton-like descent: many steps of accelerated gradient descent."""
    x = y = np.zeros((1, d))
    t = 1.0
    for _ in range(20_000):
        fresh = y - full(y) / L
        again = (1 + math.sqrt(1 + 4 * t * t)) / 2
        y, x, t = fresh + (t - 1) / again * (fresh - x), fresh, again
    return float(loss(x)[0])


def logistic() -> tuple[Problem, float]:
    """Logistic regression on scikit-learn's breast cancer data, one example a worker and step."""
    from sklearn.datasets import load_breast_cancer

    data, target = load_breast_cancer(return_X_y=True)
    rows = np.c_[(data - data.mean(axis=0)) / data.std(axis=0), np.ones(len(data))] * (2.0 * target - 1)[:, None]
    ridge, d = 1e-3, rows.shape[1]
    smooth = float(np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1]) / 4 + ridge

    def loss(x: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, -(x @ rows.T)).mean(axis=-1) + ridge / 2 * (x**2).sum(axis=-1)

    def full(x: np.ndarray) -> np.ndarray:
        return -(1 / (1 + np.exp(x @ rows.T))) @ rows / len(rows) + ridge * x

    def draw(x: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        chosen = rows[generator.integers(len(rows), size=(len(x), count))]
        weight = 1 / (1 + np.exp((chosen @ x[:, :, None])[:, :, 0]))
        return -weight[:, :, None] * chosen + ridge * x[:, None, :]

    least = _examples(loss, full, d, smooth)
    return Problem(np.zeros(d), draw, lambda x: loss(x) - least), smooth


def digits() -> tuple[Problem, float]:
    """Softmax regression on scikit-learn's digits (650 weights), one example a worker and step."""
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    rows, onehot = np.c_[data / 16, np.ones(len(data))], np.eye(10)[target]
    ridge, d = 1e-3, rows.shape[1] * 10
    smooth = float(np.linalg.eigvalsh(rows.T @ rows / len(rows))[-1]) / 2 + ridge

    def chances(x: np.ndarray, inputs: np.ndarray) -> np.ndarray:
        scores = inputs @ x.reshape(len(x), -1, 10)
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        return scores / scores.sum(axis=-1, keepdims=True)

    def loss(x: np.ndarray) -> np.ndarray:
        p = (chances(x, rows[None]) * onehot).sum(axis=-1)
        return -np.log(np.maximum(p, 1e-300)).mean(axis=-1) + ridge / 2 * (x**2).sum(axis=-1)

    def full(x: np.ndarray) -> np.ndarray:
        error = (chances(x, rows[None]) - onehot) / len(rows)
        return (rows.T @ error).reshape(len(x), -1) + ridge * x

    def draw(x: np.ndarray, count: int, generator: np.random.Generator) -> np.ndarray:
        index = generator.integers(len(rows), size=(len(x), count))
        inputs = rows[index]
        error = chances(x, inputs) - onehot[index]
        return (inputs[..., None] * error[..., None, :]).reshape(len(x), count, -1) + ridge * x[:, None, :]

    least = _examples(loss, full, d, smooth)
    return Problem(np.zeros(d), draw, lambda x: loss(x) - least), smooth


PROBLEMS = {"quadratic": quadratic, "logistic": logistic, "digits": digits}
GRIDS: dict[str, tuple[tuple[int, ...], int, int]] = {  # samples; steps of log4 M; k
    "quadratic": ((2**8, 2**10, 2**12, 2**14), 4, 4),
    "logistic": ((2**8, 2**10, 2**12), 4, 3),
    "digits": ((2**9, 2**11, 2**12), 8, 65),
}


def best(problem: Problem, smooth: float, method: MethodName, workers: int, samples: int, k: int) -> np.ndarray:
    """The least loss of each seed at the learning rate (and momentum) with the least mean, (SEEDS,)."""
    rates = 1.6 / smooth * 2.0 ** -np.arange(0, 11)
    lrs, found = np.repeat(rates, SEEDS), []
    for momentum in MOMENTA if method == "ef21_sgdm" else (1.0,):
        key = Key(0).fold(method=method, workers=workers, samples=samples, momentum=str(momentum))
        steps = max(1, samples // workers)
        found.append(train(problem, method, workers, steps, lrs, key, k, momentum, chunk=32).reshape(-1, SEEDS))
    table = np.concatenate(found)
    return table[np.argmin(table.mean(axis=1))]


def knee(workers: list[int], errors: np.ndarray) -> float:
    """The number of workers at which the error doubles its least value over M, interpolated in log-log."""
    goal = math.log(2 * errors.min())
    x, y = np.log(workers), np.log(errors)
    for i in range(int(np.argmin(errors)), len(x) - 1):
        if y[i + 1] > goal:
            return float(np.exp(x[i] + (goal - y[i]) / (y[i + 1] - y[i]) * (x[i + 1] - x[i])))
    return math.inf


def predictions() -> dict[str, float]:
    """d log M*/d log N of the guarantees, between N = 10¹⁴ and 10¹⁷."""
    known = {"L": 1.0, "gap": 1.0, "sigma2": 1.0}
    laws: dict[str, Callable[[float, float], float]] = {
        "MLMC-SGD": lambda n, m: sgd_error(n, m, 10.0, **known),
        "EF21-SGDM": lambda n, m: ef21_sgdm_error(n, m, 0.1, **known),
        "EF21-SGD2M": lambda n, m: ef21_sgd2m_error(n, m, 0.1, **known),
    }
    found = {}
    for name, law in laws.items():
        ends = [limit(lambda m, n=n, law=law: law(n, m), law(n, 1e-9)) for n in (1e14, 1e17)]
        found[name] = math.log(ends[1] / ends[0]) / math.log(1e3)
    return found


def row(problem: Problem, smooth: float, name: str, method: MethodName, samples: int) -> dict[str, Any]:
    """Errors and knees of a method at a number of samples."""
    _, base, k = GRIDS[name]
    workers = [base**i for i in range(13) if base**i <= min(4096, samples)]
    errors = np.array([best(problem, smooth, method, m, samples, k) for m in workers])
    # Single runs are too noisy: each time the mean over all seeds but one.
    found = np.array([knee(workers, np.delete(errors, s, axis=1).mean(axis=1)) for s in range(SEEDS)])
    print(name, method, samples, [f"{e:.3g}" for e in errors.mean(axis=1)], [f"{v:.3g}" for v in found], flush=True)
    knees = [v if math.isfinite(v) else None for v in found]
    known = {"problem": name, "method": method, "samples": samples, "workers": workers, "k": k}
    return known | {"errors": errors.tolist(), "knees": knees}


def slope(rows: list[dict[str, Any]]) -> tuple[float, float] | None:
    """The exponent of M* in N, and half its 95 % interval; None from fewer than two finite ones."""
    fits = [(one["samples"], one["knees"]) for one in rows if None not in one["knees"]]
    if len(fits) < 2:
        return None
    x = np.log([samples for samples, _ in fits])
    each = [float(np.polyfit(x, np.log([v[s] for _, v in fits]), 1)[0]) for s in range(SEEDS)]
    spread = (SEEDS - 1) / SEEDS * sum((one - np.mean(each)) ** 2 for one in each)  # jackknife
    return float(np.mean(each)), 2.571 * math.sqrt(spread)  # Student's t, five degrees of freedom, 95 %


def drawn(rows: list[dict[str, Any]]) -> tuple[Figure, list[dict[str, Any]]]:
    """The figure, and the slopes in it."""
    figure, slopes = Figure(figsize=(12, 7), dpi=110, layout="constrained"), []
    top, bottom = figure.subplots(2, 3)
    for column, name in enumerate(PROBLEMS):
        for number, method in enumerate(METHODS):
            own = sorted(
                (one for one in rows if (one["problem"], one["method"]) == (name, method)),
                key=lambda one: one["samples"],
            )
            if not own:
                continue
            last, color = own[-1], f"C{number}"
            errors, workers = np.array(last["errors"]), last["workers"]
            spread = 2 * errors.std(axis=1, ddof=1) / math.sqrt(SEEDS)
            top[column].errorbar(workers, errors.mean(axis=1), spread, fmt="o-", color=color, label=method)
            title = f"{name}, {last['samples']} samples"
            top[column].set(xscale="log", yscale="log", title=title, xlabel="workers M")
            found = slope(own)
            if found is None:
                continue
            slopes.append({"problem": name, "method": method, "slope": found[0], "error": found[1]})
            label = f"{method}: N^({found[0]:.2f} ± {found[1]:.2f})"
            finite = [one for one in own if None not in one["knees"]]
            samples, knees = [one["samples"] for one in finite], [float(np.mean(one["knees"])) for one in finite]
            bottom[column].plot(samples, knees, "o-", color=color, label=label)
            bottom[column].set(xscale="log", yscale="log", xlabel="samples N", ylabel="M* where the error doubles")
            bottom[column].set_xticks(samples, [f"{n:,}" for n in samples])
            bottom[column].xaxis.set_minor_locator(NullLocator())
            print("slope", name, label, flush=True)
    for axes in (*top, *bottom):
        if axes.has_data():
            axes.legend(fontsize=8)
        else:
            axes.axis("off")
    top[0].set_ylabel("f − f*")
    return figure, slopes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figures", type=Path, default=Path("docs"))
    parser.add_argument("--add", action="store_true", help="keep the rows of --out, and measure those that are missing")
    options = parser.parse_args()
    before: dict[str, Any] = {}
    if options.add:
        before = json.loads(options.out.read_text(encoding="utf-8"))
    rows = list(before.get("rows", []))
    known = {(one["problem"], one["method"], one["samples"]) for one in rows}
    for name, make in PROBLEMS.items():
        missing = [
            (method, samples)
            for method in METHODS
            for samples in GRIDS[name][0]
            if (name, method, samples) not in known
        ]
        if missing:
            problem, smooth = make()
            rows += [row(problem, smooth, name, method, samples) for method, samples in missing]
    figure, slopes = drawn(rows)
    figure.savefig(options.figures / "theory-parallelism.png", metadata={"Software": None})
    report = {
        "command": "python " + " ".join(sys.argv),
        **provenance(),
        "processor_seconds": time.process_time() + before.get("processor_seconds", 0.0),
        "predicted_exponents": predictions(),
        "slopes": slopes,
        "rows": rows,
    }
    print(report["predicted_exponents"])
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
