"""All methods on logistic regression: their theorems' bounds, and the squared gradient norm against what it cost.

    python benchmarks/methods.py bounds --data FOLDER --out benchmarks/results/methods-bounds.json
    python benchmarks/methods.py compare --data FOLDER --out benchmarks/results/methods.json
    python benchmarks/methods.py figure --out docs/methods-compared.png benchmarks/results/methods.json

`bounds`: at theory's steps, what was measured beside the bound of its theorem, on a9a, w8a, mushrooms and phishing,
with the l2 and with the nonconvex regulariser, 10 and 100 workers, data split at random and sorted by label; the exit
status is 1 where a bound does not hold. `compare`: every method at theory's step times 1, 8, 64, 512 (as long as
that helps), data sorted by label; where theory gives no step, 0.01/L stands in its place. All gradients are full.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import telegrad as tg
from telegrad.errors import ConfigError, DivergedError
from telegrad.lab.runner import provenance
from telegrad.methods import Clock
from telegrad.random import Key
from telegrad.runtime.partition import partition
from telegrad.spec import build
from telegrad.theory import bounds, step_sizes
from telegrad.theory.known_problems import Problem, problem_of, theory_rate
from telegrad.workloads.base import Split
from telegrad.workloads.logistic import LogisticTask

DATASETS = ("mushrooms", "phishing", "a9a", "w8a")
REGULARISERS = {"l2": (1e-3, 0.0), "nonconvex": (0.0, 0.1)}
SPLITS = {"random": None, "sorted": 0.0}
FACTORS = (1, 8, 64, 512)
CLOCK = Clock(gradient=1e-3, latency=1e-3, bandwidth=1e6)
"""A millisecond a gradient, a millisecond and 1 Mbit/s a message."""


class GradientTask(LogisticTask):
    """The same task, scored by ‖∇f‖² over the training data."""

    def score(self, model: nn.Module, split: Split) -> float:
        if len(split) < len(self.train):
            return math.nan
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.loss(model, split.inputs, split.targets), list(model.parameters()))
        return float(gradient.square().sum())


@lru_cache(maxsize=1)
def task_of(dataset: str, regulariser: str, data: Path) -> GradientTask:
    l2, nonconvex = REGULARISERS[regulariser]
    task = build(f"logistic(dataset={dataset}, l2={l2}, nonconvex={nonconvex})", "workload").load(data, Key())
    own = {one.name: getattr(task, one.name) for one in fields(task)}
    return GradientTask(**(own | {"validation": task.train, "test": task.train.rows(torch.arange(0))}))


@dataclass(frozen=True)
class Case:
    """A problem: data, regulariser, workers and split, with the constants that bounds take. Vectors are float64."""

    dataset: str
    regulariser: str
    workers: int
    split: str
    data: Path

    @property
    def task(self) -> GradientTask:
        return task_of(self.dataset, self.regulariser, self.data)

    @cached_property
    def shares(self) -> list[Tensor]:
        key = Key(0).fold(role="partition")
        return partition(self.task.train.targets, 2, self.workers, SPLITS[self.split], 1, key)

    @cached_property
    def problem(self) -> Problem:
        return problem_of(self.task, self.shares)

    @property
    def d(self) -> int:
        return self.task.train.inputs.shape[1]

    @property
    def convex(self) -> bool:
        return self.regulariser == "l2"

    @cached_property
    def optimum(self) -> Tensor:
        """x* of the convex problem, by L-BFGS."""
        task, model = self._exact()
        solver = torch.optim.LBFGS(
            model.parameters(), max_iter=2000, tolerance_grad=1e-10, tolerance_change=0.0, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            loss = task.loss(model, task.train.inputs, task.train.targets)
            loss.backward()
            return loss

        solver.step(closure)
        return model.x.detach()

    @cached_property
    def gap(self) -> float:
        """f(0) − f*, with 0 for f* where f is not convex: f is not below it."""
        task, model = self._exact()
        first = float(task.loss(model, task.train.inputs, task.train.targets))
        if not self.convex:
            return first
        model.x.data.copy_(self.optimum)
        return first - float(task.loss(model, task.train.inputs, task.train.targets))

    def energy(self, x: Tensor) -> float:
        """mean ‖∇f_i(x)‖²."""
        task, model = self._exact()
        model.x.data.copy_(x)
        total = 0.0
        for share in self.shares:
            own = task.train.rows(share)
            (gradient,) = torch.autograd.grad(task.loss(model, own.inputs, own.targets), [model.x])
            total += float(gradient.square().sum())
        return total / self.workers

    @cached_property
    def first_energy(self) -> float:
        return self.energy(torch.zeros(self.d, dtype=torch.float64))

    @cached_property
    def optimum_energy(self) -> float:
        return self.energy(self.optimum)

    @cached_property
    def distance(self) -> float:
        return float(self.optimum.norm())

    def _exact(self) -> tuple[LogisticTask, nn.Module]:
        train = self.task.train
        task = replace(self.task, train=Split(train.inputs.double(), train.targets.double()))
        return task, task.model(Key())

    def train(self, method: str, steps: int, lr: float, every: int = 1, clock: Clock | None = None) -> tg.Result | None:
        """A run, with a look at the gradient every so many steps; None where it diverges."""
        warnings.simplefilter("ignore")
        dirichlet = SPLITS[self.split]
        try:
            return tg.simulate(
                self.task, method, workers=self.workers, steps=steps, batch_size=None, lr=lr, dirichlet=dirichlet,
                evaluate_every=every, clock=clock,
            )  # fmt: skip
        except DivergedError:
            return None

    def omega(self, compressor: str) -> float:
        return tg.compressor(compressor).omega(self.d)

    def alpha(self, compressor: str) -> float:
        return tg.compressor(compressor).alpha(self.d)


RANDK, TOPK, MLMC = "randk(k=0.05)", "topk(k=0.05)", "mlmc(stopk(s=0.05))"
Found = tuple[str, float, float]  # what, measured, bound


def mean_gradient(run: tg.Result) -> float:
    """Mean of ‖∇f(x_t)‖² over t = 0 … T − 1."""
    looks = [record["validation"] for record in run.records[:-1]]
    return sum(looks) / len(looks)


def squared_distance(run: tg.Result, case: Case) -> float:
    return float((run.parameters["x"].double() - case.optimum).square().sum())


def gradient_bound(
    method: str, lr: Callable[[Case], float], bound: Callable[[Case, float, int], float]
) -> Callable[[Case, int], list[Found]]:
    """A bound of the mean ‖∇f‖², whatever f."""

    def check(case: Case, steps: int) -> list[Found]:
        rate = lr(case)
        run = case.train(method.replace("WORKERS", str(case.workers)), steps, rate)
        return [("mean ‖∇f‖²", math.inf if run is None else mean_gradient(run), bound(case, rate, steps))]

    return check


def theory(method: str) -> Callable[[Case], float]:
    return lambda c: theory_rate(tg.method(method.replace("WORKERS", str(c.workers))), c.problem, c.d)


def marina(compressor: str, p: str) -> Callable[[Case, int], list[Found]]:
    method = f"marina({compressor}, probability={p})"

    def bound(c: Case, lr: float, T: int) -> float:
        own = tg.method(method.replace("WORKERS", str(c.workers)))
        constants = {"omega": own.compressor.omega(c.d), "workers": c.workers, "p": own.probability}
        return bounds.marina(L=c.problem.L, L_mean=c.problem.L_mean, gap=c.gap, T=T, lr=lr, **constants)

    return gradient_bound(method, theory(method), bound)


def dasha(compressor: str) -> Callable[[Case, int], list[Found]]:
    def bound(c: Case, lr: float, T: int) -> float:
        constants = {"omega": c.omega(compressor), "workers": c.workers}
        return bounds.dasha(L=c.problem.L, L_mean=c.problem.L_mean, gap=c.gap, T=T, lr=lr, **constants)

    return gradient_bound(f"dasha({compressor})", theory(f"dasha({compressor})"), bound)


def ef_bv(compressor: str) -> Callable[[Case, int], list[Found]]:
    def bound(c: Case, lr: float, T: int) -> float:
        own = tg.compressor(compressor)
        constants = {"eta": own.eta(c.d), "spread": own.spread(c.d), "first_error": c.first_energy}
        return bounds.ef_bv_nonconvex(
            L=c.problem.L, L_mean=c.problem.L_mean, workers=c.workers, gap=c.gap, T=T, lr=lr, **constants
        )

    return gradient_bound(f"ef_bv({compressor})", theory(f"ef_bv({compressor})"), bound)


def ef21(c: Case, lr: float, T: int) -> float:
    alpha = c.alpha(TOPK)  # the first message is C(∇f_i(x_0)), which leaves at most this of it
    first = (1 - alpha) * c.first_energy
    return bounds.ef21(L=c.problem.L, L_mean=c.problem.L_mean, alpha=alpha, gap=c.gap, T=T, lr=lr, first_error=first)


def ef21_sgdm(c: Case, lr: float, T: int) -> float:
    alpha = c.alpha(TOPK)
    constants = {"alpha": alpha, "momentum": 0.1, "sigma2": 0.0, "first_error": (1 - alpha) * c.first_energy}
    return bounds.ef21_sgdm(
        L=c.problem.L, L_mean=c.problem.L_mean, workers=c.workers, gap=c.gap, T=T, lr=lr, **constants
    )


def diana(compressor: str) -> Callable[[Case, int], list[Found]]:
    def rate(c: Case) -> float:
        constants = {"omega": c.omega(compressor), "workers": c.workers}
        return step_sizes.diana_nonconvex(L=c.problem.L, L_mean=c.problem.L_mean, **constants)

    def bound(c: Case, lr: float, T: int) -> float:
        constants = {"omega": c.omega(compressor), "workers": c.workers, "first_error": c.first_energy}
        return bounds.diana_nonconvex(L=c.problem.L, L_mean=c.problem.L_mean, gap=c.gap, T=T, lr=lr, **constants)

    nonconvex = gradient_bound(f"diana({compressor})", rate, bound)

    def check(case: Case, steps: int) -> list[Found]:
        found = nonconvex(case, steps)
        if case.convex:
            found += distance_bound(f"diana({compressor})", bounds.diana, compressor)(case, steps)
        return found

    return check


def distance_bound(method: str, bound: Callable[..., float], compressor: str) -> Callable[[Case, int], list[Found]]:
    """A bound of ‖x_T − x*‖² for strongly convex f."""

    def check(case: Case, steps: int) -> list[Found]:
        if not case.convex:
            return []
        rate, p = theory(method)(case), case.problem
        run = case.train(method, steps, rate)
        constants = {"L_max": p.L_max, "mu": p.mu, "omega": case.omega(compressor), "workers": case.workers}
        limit = bound(L=p.L, distance=case.distance, T=steps, lr=rate, optimum_energy=case.optimum_energy, **constants)
        return [("‖x_T − x*‖²", math.inf if run is None else squared_distance(run, case), limit)]

    return check


def scaffnew(name: str, owners: int | None) -> Callable[[Case, int], list[Found]]:
    """A bound of Ψ_T, of which M ‖x_T − x*‖² is a part; TAMUNA's steps are rounds of at least one local step."""

    def check(case: Case, steps: int) -> list[Found]:
        if not case.convex:
            return []
        p = case.problem
        constants = {"L_max": p.L_max, "mu_min": min(p.mu_each)}
        if owners is not None:
            constants |= {"workers": case.workers, "owners": owners}
        given = getattr(step_sizes, "scaffnew" if owners is None else "compressed_scaffnew")(**constants)
        extra = "" if owners is None else f", owners={owners}"
        if name == "tamuna":
            extra, steps = f", cohort={case.workers // 2}{extra}", max(2, round(steps * given["p"]))
        run = case.train(f"{name}(probability={given['p']}{extra})", steps, given["lr"])
        control = given["lr"] ** 2 / (given["p"] ** 2 if owners is None else given["rho"])
        limit = (case.distance**2 + control * case.optimum_energy) * getattr(bounds, name)(**constants, T=steps)
        return [("Ψ_T / M", math.inf if run is None else squared_distance(run, case), limit)]

    return check


def local_sgd(case: Case, steps: int) -> list[Found]:
    """C20: ‖∇f_i − ∇f‖ is at most twice the longest example."""
    p, omega, H = case.problem, case.omega(MLMC), 4
    limits = step_sizes.mlmc_local(L=p.L_max, omega=omega, workers=case.workers, local_steps=H)
    outer = min(limits["lr"], limits["outer"]) / limits["lr"]
    run = case.train(f"local_sgd({MLMC}, local_lr={limits['lr']}, local_steps={H})", steps, outer)
    xi2 = 4 * float(case.task.train.inputs.square().sum(1).max())
    limit = bounds.mlmc_local(
        L=p.L_max, workers=case.workers, local_steps=H, sigma2=0.0, gap=case.gap, T=steps, lr=limits["lr"],
        omega=omega, xi2=xi2,
    )  # fmt: skip
    return [("mean ‖∇f‖²", math.inf if run is None else mean_gradient(run), limit)]


BOUNDS: dict[str, Callable[[Case, int], list[Found]]] = {
    "gradient descent": gradient_bound(
        "sgd(identity)",
        lambda c: step_sizes.gd(L=c.problem.L),
        lambda c, lr, T: bounds.gd_nonconvex(L=c.problem.L, gap=c.gap, T=T, lr=lr),
    ),
    f"sgd({RANDK})": distance_bound(f"sgd({RANDK})", bounds.dcgd, RANDK),
    f"sgd({MLMC})": distance_bound(f"sgd({MLMC})", bounds.dcgd, MLMC),
    f"ef21({TOPK})": gradient_bound(f"ef21({TOPK})", theory(f"ef21({TOPK})"), ef21),
    f"ef21_sgdm({TOPK})": gradient_bound(f"ef21_sgdm({TOPK})", theory(f"ef21_sgdm({TOPK})"), ef21_sgdm),
    f"ef_bv({RANDK})": ef_bv(RANDK),
    f"ef_bv({TOPK})": ef_bv(TOPK),
    f"diana({RANDK})": diana(RANDK),
    f"diana({MLMC})": diana(MLMC),
    f"marina({RANDK})": marina(RANDK, "0.05"),
    f"marina({MLMC})": marina(MLMC, "0.05"),
    "marina(permk)": marina("permk(workers=WORKERS)", "0.05"),
    f"dasha({RANDK})": dasha(RANDK),
    f"dasha({MLMC})": dasha(MLMC),
    "scaffnew": scaffnew("scaffnew", None),
    "compressed_scaffnew": scaffnew("compressed_scaffnew", 2),
    "tamuna": scaffnew("tamuna", 2),
    f"local_sgd({MLMC})": local_sgd,
}


def bounds_of(case: Case, steps: int) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    head = {one.name: getattr(case, one.name) for one in fields(case) if one.name != "data"}
    return [
        {**head, "method": name, "what": what, "steps": steps, "measured": measured, "bound": bound}
        for name, check in BOUNDS.items()
        for what, measured, bound in check(case, steps)
    ]


COMPARED: dict[str, str] = {
    "gradient descent": "sgd(identity)",
    "DCGD, Rand-k": f"sgd({RANDK})",
    "DCGD, MLMC": f"sgd({MLMC})",
    "EF14, Top-k": f"ef14({TOPK})",
    "EF21, Top-k": f"ef21({TOPK})",
    "EF21-SGDM, Top-k": f"ef21_sgdm({TOPK})",
    "EF21-SGD2M, Top-k": f"ef21_sgd2m({TOPK})",
    "EF-BV, Rand-k": f"ef_bv({RANDK})",
    "DIANA, Rand-k": f"diana({RANDK})",
    "DIANA, MLMC": f"diana({MLMC})",
    "ADIANA, Rand-k": f"adiana({RANDK}, mu=0.001)",
    "MARINA, Rand-k": f"marina({RANDK}, probability=0.05)",
    "MARINA, MLMC": f"marina({MLMC}, probability=0.05)",
    "MARINA, PermK": "marina(permk(workers=WORKERS), probability=0.05)",
    "DASHA, Rand-k": f"dasha({RANDK})",
    "DASHA, MLMC": f"dasha({MLMC})",
    "Scaffnew": "scaffnew(probability=0.1)",
    "CompressedScaffnew": "compressed_scaffnew(probability=0.2, owners=2)",
    "TAMUNA": "tamuna(probability=0.2, cohort=WORKERS, owners=2)",
    "Local SGD, MLMC": f"local_sgd({MLMC}, local_lr=LOCAL)",
    "signSGD, majority": "signsgd(vote=majority)",
    "1-bit Adam": "onebit_adam(warmup=20)",
    "asynchronous SGD": f"async_sgd({RANDK})",
}
"""What is compared. WORKERS: their number; LOCAL: the local step 1/(16 L H) of C20."""


def compared(case: Case, name: str, steps: int) -> dict[str, Any]:
    """The best of theory's step times `FACTORS`: the one that ends at the smallest ‖∇f‖²."""
    torch.set_num_threads(1)
    p = case.problem
    spec = COMPARED[name].replace("WORKERS", str(case.workers)).replace("LOCAL", str(1 / (16 * p.L * 4)))
    if name == "asynchronous SGD":
        steps *= case.workers  # a step is one arrival
    try:
        base, known = theory_rate(tg.method(spec), p, case.d), True
    except ConfigError:
        base, known = 0.01 / p.L, False
    tried, best = [], None
    for factor in FACTORS:
        run = case.train(spec, steps, base * factor, max(1, steps // 60), CLOCK)
        end = math.inf if run is None else run.records[-1]["validation"]
        tried.append([factor, end])
        if not end < (math.inf if best is None else best[0]):
            break
        assert run is not None
        best = end, factor, run
    assert best is not None, (name, tried)
    columns = ("step", "bits_up_per_worker", "bits_down_per_worker", "simulated_seconds", "validation")
    head = {one.name: getattr(case, one.name) for one in fields(case) if one.name != "data"}
    return {
        **head, "method": name, "spec": spec, "theory": base if known else None, "factor": best[1],
        "lr": base * best[1], "tried": tried, "at_theory": tried[0][1],
        "curve": {name: [record[name] for record in best[2].records] for name in columns},
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bounds", "compare", "figure"])
    parser.add_argument("results", type=Path, nargs="?", help="of compare: what the figure shows")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--dataset", action="append", choices=DATASETS)
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.what == "figure":
        from methods_figure import draw

        return draw(json.loads(options.results.read_text(encoding="utf-8"))["rows"], options.out)
    began, rows = time.time(), []
    datasets, counts = options.dataset or DATASETS, options.workers or [10, 100]

    def save(found: list[dict[str, Any]]) -> None:
        rows.extend(found)
        shown = {name: value for name, value in found[-1].items() if name != "curve"}
        print(f"{time.time() - began:.0f} s: {shown}", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        command = ("python " + " ".join(sys.argv)).replace(str(options.data), "FOLDER")
        report = {"command": command, **provenance(), "rows": rows}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    with ProcessPoolExecutor(options.processes) as pool:
        if options.what == "bounds":
            cases = [
                Case(dataset, regulariser, workers, split, options.data)
                for dataset in datasets
                for regulariser in REGULARISERS
                for workers in counts
                for split in SPLITS
            ]
            for found in pool.map(bounds_of, cases, [options.steps] * len(cases)):
                save(found)
        else:
            jobs = [
                (Case(dataset, "l2", workers, "sorted", options.data), name)
                for workers in counts
                for dataset in datasets
                for name in COMPARED
            ]
            for row in pool.map(compared, *zip(*jobs, strict=True), [options.steps] * len(jobs)):
                save([row])
    broken = [row for row in rows if "bound" in row and not row["measured"] <= row["bound"]]
    for row in broken:
        print("above its bound:", row)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
