"""SDEs beside the algorithms that they stand for: the figures and verdicts of docs/theory-sde.md.

    nice python benchmarks/sde.py --out benchmarks/results/sde.json --figures docs/images

Seeds are fixed; less than a minute of processor time.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from telegrad.lab.runner import provenance
from telegrad.random import Key
from telegrad.theory import stationary
from telegrad.theory.noise_laws import Gaussian, NoiseLaw, StudentT
from telegrad.theory.sde import SDE, Setting, dcsgd, dsgd, dsign, iterate, solve, with_curvature

Field = Callable[[np.ndarray], np.ndarray]
MAKE = {"dsgd": dsgd, "dcsgd": dcsgd, "dsign": dsign}


def quadratic() -> tuple[Field, Field, np.ndarray]:
    """Gradient, loss and start of ½Σλ_jx_j², 20 curvatures from .2 to 2."""
    curvature = np.linspace(0.2, 2.0, 20)
    return lambda x: curvature * x, lambda x: (curvature * x**2).sum(axis=-1) / 2, np.full(20, 1.5)


def logistic() -> tuple[Field, Field, np.ndarray]:
    """Regularised logistic regression on scikit-learn's breast cancer data: 569 examples, 31 weights."""
    from sklearn.datasets import load_breast_cancer

    data, target = load_breast_cancer(return_X_y=True)
    data = np.c_[(data - data.mean(axis=0)) / data.std(axis=0), np.ones(len(data))]
    data, ridge = data * (2.0 * target - 1)[:, None], 0.02

    def gradient(x: np.ndarray) -> np.ndarray:
        return -(1 / (1 + np.exp(x @ data.T))) @ data / len(data) + ridge * x

    def loss(x: np.ndarray) -> np.ndarray:
        return np.logaddexp(0, -(x @ data.T)).mean(axis=-1) + ridge * (x**2).sum(axis=-1) / 2

    return gradient, loss, np.zeros(data.shape[1])


def network() -> tuple[Field, Field, np.ndarray]:
    """A network of one hidden layer (65 - 10 - 10, 750 weights) on 300 of scikit-learn digits."""
    from sklearn.datasets import load_digits

    data, target = load_digits(return_X_y=True)
    data, onehot = np.c_[data[:300] / 16, np.ones(300)], np.eye(10)[target[:300]]
    inputs, hidden = data.shape[1], 10

    def parts(x: np.ndarray) -> tuple[np.ndarray, ...]:
        first = x[:, : inputs * hidden].reshape(-1, inputs, hidden)
        second = x[:, inputs * hidden :].reshape(-1, hidden, 10)
        inner = np.tanh(data @ first)
        scores = inner @ second
        scores = scores - scores.max(axis=-1, keepdims=True)
        chances = np.exp(scores)
        return first, second, inner, scores, chances / chances.sum(axis=-1, keepdims=True)

    def gradient(x: np.ndarray) -> np.ndarray:
        _, second, inner, _, chances = parts(x)
        error = (chances - onehot) / len(data)
        back = (error @ second.transpose(0, 2, 1)) * (1 - inner**2)
        return np.concatenate(
            [(data.T @ back).reshape(len(x), -1), (inner.transpose(0, 2, 1) @ error).reshape(len(x), -1)], axis=1
        )

    def loss(x: np.ndarray) -> np.ndarray:
        chances = parts(x)[-1]
        return -np.log((chances * onehot).sum(axis=-1)).mean(axis=-1)

    start = Key(0).fold(name="network").normal(inputs * hidden + hidden * 10).numpy() * 0.3
    return gradient, loss, start


PROBLEMS = {"quadratic": quadratic, "logistic": logistic, "network": network}


def bands(figures: Path) -> list[dict[str, Any]]:
    """The loss of the algorithm and of its SDE over time, with the SDE's 95 % band, on three problems."""
    cases = [
        ("dsgd", "DSGD, Gaussian", {}),
        ("dcsgd", "DCSGD, ω = 7, Gaussian", {"omega": 7.0}),
        ("dsign", "DSignSGD, Gaussian", {}),
        ("dsign", "DSignSGD, Cauchy", {"noise": StudentT(1.0)}),
    ]
    replicas = {"quadratic": 200, "logistic": 100, "network": 40}
    scale = {"quadratic": (0.02, 0.5, 6.0), "logistic": (0.05, 0.1, 12.0), "network": (0.1, 0.02, 30.0)}
    rows = []
    figure = Figure(figsize=(12, 8.5), dpi=110, layout="constrained")
    axes = figure.subplots(3, 4)
    for i, (name, make) in enumerate(PROBLEMS.items()):
        gradient, loss, start = make()
        lr, sigma, end = scale[name]
        counts = [round(end / lr * k / 24) for k in range(1, 25)]
        begin = np.tile(start, (replicas[name], 1))
        for j, (method, label, more) in enumerate(cases):
            # A sign step moves every coordinate by the learning rate: smaller ones, for as long a way.
            setting = Setting(lr / 5 if method == "dsign" else lr, 8, sigma=sigma, **more)
            times = [count * setting.lr for count in counts]
            discrete = [loss(x) for x in iterate(method, gradient, setting, begin, counts, Key(1))]
            smooth = [loss(x) for x in solve(MAKE[method](gradient, setting), begin, times, setting.lr / 2, Key(2))]
            low, high = (np.array([np.quantile(x, q) for x in smooth]) for q in (0.025, 0.975))
            mean, model = (np.array([x.mean() for x in xs]) for xs in (discrete, smooth))
            inside = int(((mean >= low) & (mean <= high)).sum())
            error = [math.hypot(a.std(), b.std()) / math.sqrt(len(a)) for a, b in zip(discrete, smooth, strict=True)]
            rows.append(
                {
                    "problem": name,
                    "method": label,
                    "lr": setting.lr,
                    "sigma": sigma,
                    "workers": 8,
                    "replicas": len(begin),
                    "times": times,
                    "discrete": mean.tolist(),
                    "sde": model.tolist(),
                    "low": low.tolist(),
                    "high": high.tolist(),
                    "inside_band": inside,
                    "points": len(times),
                    "largest_relative_difference": float(np.abs(mean / model - 1).max()),
                    "differences_within_two_standard_errors": int((np.abs(mean - model) <= 2 * np.array(error)).sum()),
                }
            )
            axes[i, j].fill_between(times, low, high, alpha=0.25, label="SDE, 95 % of replicas")
            axes[i, j].plot(times, model, "-", label="SDE, mean")
            axes[i, j].plot(times, mean, "k.", markersize=4, label="algorithm, mean")
            axes[i, j].set(yscale="log", title=f"{name}: {label}", xlabel="t = η · steps")
            axes[i, j].title.set_fontsize(9)
            print(
                name,
                label,
                f"{inside} of {len(times)} in the band",
                rows[-1]["largest_relative_difference"],
                flush=True,
            )
    axes[0, 0].set_ylabel("loss")
    axes[0, 0].legend(fontsize=7)
    figure.savefig(figures / "theory-sde-bands.png", metadata={"Software": None})
    return rows


def phases(figures: Path) -> dict[str, Any]:
    """The three phases of sign SGD on a quadratic: constant speed, transition, decay to the floor (D2.5)."""
    d, lam, setting = 50, 1.0, Setting(0.005, 8, sigma=1.0)
    start = np.full((40, d), 8.0)
    counts = list(range(20, 4001, 20))
    times = [setting.lr * count for count in counts]
    found = iterate("dsign", lambda x: lam * x, setting, start, counts, Key(3))
    loss = np.array([(x**2).sum(axis=1).mean() * lam / 2 for x in found])
    ratio = np.array([np.sqrt((x**2).mean()) * lam / setting.scale for x in found])
    one = int(np.argmax(ratio < 1.5))
    three = int(np.argmax(ratio < 0.5))
    first = float(d * lam * 8.0**2 / 2)
    # Phase 1 on this quadratic: every coordinate moves at speed 1, so that √S falls along a line.
    predicted_one = [d * lam * max(0.0, 8.0 - t) ** 2 / 2 for t in times]
    slope = np.polyfit(times[: one // 2], np.sqrt(loss[: one // 2]), 1)[0]
    floor = stationary.sign_floor(setting, d)
    later = [stationary.sign_bound(setting, loss[three], t - times[three], lam, lam, d) for t in times[three:]]
    figure = Figure(figsize=(8, 4.6), dpi=130, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(times, loss, "k", linewidth=1.5, label="algorithm, mean of 40 runs")
    axes.plot(times[:one], predicted_one[:one], "--", label="phase 1: speed 1 in every coordinate")
    axes.plot(times[three:], later, "--", label="phase 3: (D3.3)")
    axes.axhline(floor, color="grey", linewidth=0.8, label="floor ηdσ/(4Nℓ√B)")
    for edge in (times[one], times[three]):
        axes.axvline(edge, color="#bbb", linewidth=0.8)
    axes.set(yscale="log", xlabel="t = η · steps", ylabel="loss", title="sign SGD on ½‖x‖², Gaussian noise")
    axes.legend(fontsize=8)
    figure.savefig(figures / "theory-sde-phases.png", metadata={"Software": None})
    measured = float(loss[-50:].mean())
    return {
        "first_loss": first,
        "leaves_phase_one_at": times[one],
        "enters_phase_three_at": times[three],
        "slope_of_root_loss_in_phase_one": float(slope),
        "predicted_slope": -math.sqrt(d * lam / 2),
        "floor_measured": measured,
        "floor_predicted": floor,
        "largest_relative_difference_in_phase_three": float(np.abs(loss[three:] / np.array(later) - 1).max()),
    }


def curvature(figures: Path) -> dict[str, Any]:
    """D5.1: what +, −, or no curvature term does to the mean and the stationary variance on f = ½x²."""
    rates = [0.05, 0.1, 0.2, 0.4, 0.8, 1.2, 1.6, 1.9]
    replicas, workers = 200_000, 1
    rows = []
    for lr in rates:
        setting = Setting(lr, workers, sigma=1.0)
        steps = max(1, round(1.0 / lr))
        start = np.ones((replicas, 1))
        last = steps + math.ceil(8 / (1 - abs(1 - lr)))
        first, late = iterate("dsgd", lambda x: x, setting, start, [steps, last], Key(4).fold(rate=str(lr)))
        row: dict[str, Any] = {
            "lr": lr,
            "steps": steps,
            "mean": float(first.mean()),
            "mean_error": float(first.std() / math.sqrt(replicas)),
            "mean_exact": (1 - lr) ** steps,
            "variance": float((late**2).mean()),
            "variance_error": float((late**2).std() / math.sqrt(replicas)),
        }
        for name, sign in (("none", 0), ("plus", 1), ("minus", -1)):
            rate = 1 - sign * lr / 2
            row[name] = {"mean": math.exp(-rate * lr * steps), "variance": lr / (2 * rate)}
        if lr <= 0.4:  # the closed forms by the solver, too
            for name, sign in (("plus", 1), ("minus", -1)):
                sde: SDE = with_curvature(dsgd(lambda x: x, setting), lambda x: x, lr, sign)
                (found,) = solve(sde, start[:20_000], [lr * steps], lr / 20, Key(5))
                row[name]["mean_solved"] = float(found.mean())
                row[name]["mean_solved_error"] = float(found.std() / math.sqrt(20_000))
        rows.append(row)
        print("curvature", lr, row["mean"], row["variance"], flush=True)
    small = [row for row in rows if row["lr"] <= 0.2]
    orders = {
        name: float(
            np.polyfit(
                [math.log(row["lr"]) for row in small],
                [math.log(abs(row[name]["mean"] - row["mean_exact"])) for row in small],
                1,
            )[0]
        )
        for name in ("none", "plus", "minus")
    }
    figure = Figure(figsize=(10, 4.2), dpi=120, layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, style in (("none", "C0-"), ("plus", "C2-"), ("minus", "C3-")):
        sign = {"none": "no term", "plus": "+ (η/2)∇²f∇f", "minus": "− (η/2)∇²f∇f"}[name]
        left.plot(rates, [r[name]["mean"] ** (1 / r["steps"]) for r in rows], style, label=f"SDE, {sign}")
        right.plot(rates, [r[name]["variance"] for r in rows], style, label=f"SDE, {sign}")
    left.plot(rates, [abs(1 - r) for r in rates], "k.", label="algorithm")
    right.errorbar(
        rates, [r["variance"] for r in rows], [2 * r["variance_error"] for r in rows], fmt="k.", label="algorithm"
    )
    left.set(xlabel="ηλ", ylabel="|shrinking of E x in a step|")
    right.set(xlabel="ηλ", ylabel="stationary E x²", yscale="log")
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    figure.savefig(figures / "theory-sde-curvature.png", metadata={"Software": None})
    return {"rows": rows, "order_of_the_error_of_the_mean": orders}


def floor(method: str, setting: Setting, d: int, seed: int, accuracy: float = 8e3) -> tuple[float, float]:
    """The stationary loss of the algorithm on ½‖x‖², and its standard error, by D3.6's protocol on 20 replicas."""
    rate = setting.lr * (setting.noise.slope / setting.scale if method == "dsign" else 1.0)
    replicas, discard = 20, math.ceil(5 / rate)
    steps = math.ceil(accuracy / (d * rate * replicas))
    counts = range(discard, discard + steps, max(1, round(0.1 / rate)))
    found = iterate(method, lambda x: x, setting, np.zeros((replicas, d)), counts, Key(seed))
    means = np.mean([(x**2).sum(axis=1) / 2 for x in found], axis=0)
    return float(means.mean()), float(means.std(ddof=1) / math.sqrt(replicas))


def slope_of(x: Sequence[float], y: Sequence[float], error: Sequence[float]) -> tuple[float, float]:
    """Weighted slope in log-log, and its standard error (of the points' errors)."""
    a, b = np.log(np.array(x)), np.log(np.array(y))
    w = (np.array(y) / np.array(error)) ** 2
    centred = a - (w * a).sum() / w.sum()
    return float((w * centred * b).sum() / (w * centred**2).sum()), float(1 / math.sqrt((w * centred**2).sum()))


def slopes(figures: Path) -> list[dict[str, Any]]:
    """Floors against σ, N and B, in log-log."""
    d, lr = 100, 0.05
    laws: dict[str, NoiseLaw] = {"Gaussian": Gaussian(), "Cauchy": StudentT(1.0)}
    plans = [
        ("dcsgd", "Gaussian", "sigma", (0.25, 0.5, 1.0, 2.0, 4.0), 2.0),
        ("dsign", "Gaussian", "sigma", (0.5, 1.0, 2.0, 4.0), 1.0),
        ("dsign", "Cauchy", "sigma", (0.5, 1.0, 2.0, 4.0), 1.0),
        ("dcsgd", "Gaussian", "workers", (2, 4, 8, 16), -1.0),
        ("dsign", "Gaussian", "workers", (2, 4, 8, 16), -1.0),
        ("dsign", "Cauchy", "workers", (2, 4, 8, 16), -1.0),
        ("dcsgd", "Gaussian", "batch", (1, 4, 16, 64), -1.0),
        ("dsign", "Gaussian", "batch", (1, 4, 16), -0.5),
        ("dsign", "Cauchy", "batch", (1, 4, 16), -0.5),
    ]
    figure = Figure(figsize=(11, 3.9), dpi=120, layout="constrained")
    axes = dict(zip(("sigma", "workers", "batch"), figure.subplots(1, 3), strict=True))
    rows = []
    for number, (method, law, over, values, predicted) in enumerate(plans):
        base = {"workers": 4, "sigma": 2.0 if over == "batch" else 1.0, "omega": 4.0 if method == "dcsgd" else 0.0}
        settings = [Setting(lr, **{**base, "noise": laws[law], over: value}) for value in values]
        measured = [floor(method, setting, d, 100 * number + i) for i, setting in enumerate(settings)]
        exact = [
            stationary.dcsgd_floor_discrete(s, d, 1.0)
            if method == "dcsgd"
            else stationary.sign_floor_refined(s, d, 1.0)
            for s in settings
        ]
        found, error = slope_of(values, [m for m, _ in measured], [e for _, e in measured])
        rows.append(
            {
                "method": method,
                "law": law,
                "over": over,
                "values": list(values),
                "slope_predicted": predicted,
                "floors": [m for m, _ in measured],
                "errors": [e for _, e in measured],
                "theory": exact,
                "slope": found,
                "slope_error": error,
            }
        )
        label = f"{method}, {law}: {found:.3f} ± {1.96 * error:.3f}"
        axes[over].errorbar(
            values, [m for m, _ in measured], [2 * e for _, e in measured], fmt="o", color=f"C{number % 3}", label=label
        )
        axes[over].plot(values, exact, "-", color=f"C{number % 3}", linewidth=0.9)
        print(method, law, over, f"{found:.3f} ± {1.96 * error:.3f}, predicted {predicted}", flush=True)
    for name, one in axes.items():
        one.set(xscale="log", yscale="log", xlabel={"sigma": "σ", "workers": "N", "batch": "B"}[name])
        ticks = sorted({value for _, _, over, values, _ in plans if over == name for value in values})
        one.set_xticks(ticks, [f"{tick:g}" for tick in ticks])  # the decades' own labels would overlap
        one.set_xticks([], minor=True)
        one.legend(fontsize=7, title="slope (95 %)", title_fontsize=7)
    axes["sigma"].set_ylabel("stationary loss")
    figure.savefig(figures / "theory-sde-slopes.png", metadata={"Software": None})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--figures", type=Path, default=Path("docs"))
    options = parser.parse_args()
    report = {
        "command": "python " + " ".join(sys.argv),
        **provenance(),
        "curvature": curvature(options.figures),
        "phases": phases(options.figures),
        "slopes": slopes(options.figures),
        "bands": bands(options.figures),
    }
    report["processor_seconds"] = time.process_time()
    if options.out:
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
