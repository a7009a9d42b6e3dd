"""MLMC over successive refinements against codes of one level, at equal mean bits.

    python benchmarks/refinement.py --json benchmarks/results/refinement.json
    python benchmarks/refinement.py --gradients runs/gradients

For each budget: omega = E‖C(x) − x‖² / ‖x‖² of `mlmc(refinement)`, levels drawn one by one (`sampling=poisson`) with
probabilities by cost, at the best rate and number of levels whose mean bits are the budget. Its bits are the packed
lengths of its levels, each weighed by its probability, and its omega is exact. Beside it the best bit planes by cost
(`mlmc(fixed_point)`, the same way), and `eden` and `head_tail` with a trellis, measured over `--repeats` messages.
Vectors: 100,000 quantiles of a law, and gradients as benchmarks/real_gradients.py keeps them, a million entries
of each.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import telegrad as tg
from telegrad.lab.variance import measure
from telegrad.lab.vectors import quantile_vector
from telegrad.mlmc.mean_budget import planes_within
from telegrad.mlmc.sampling import inclusions
from telegrad.wire.code import Code, Term

BUDGETS = (0.0908, 0.49, 1.0, 2.0, 3.0)
RATES = (0.3, 0.5, 1.0, 2.0)
LEVELS = (1, 2, 3, 4)
SAMPLED = 1_000_000


def refined(x: Tensor) -> dict[float, tuple[float, str]]:
    """By budget, the least omega and the setting that has it."""
    energy, best = float(x.double().square().sum()), dict.fromkeys(BUDGETS, (math.inf, ""))
    header = Code((len(x),), x.dtype).nbits
    for rate in RATES:
        for count in LEVELS:
            ladder = tg.compressor(f"mlmc(refinement(bits={rate}, refinements={count}))").ladder
            levels = ladder.levels(x)
            terms = [levels.residual(level + 1)[0] for level in range(count + 1)]
            sent = [Term(one.positions, one.values.rounded(x.dtype, tg.Key(1))) for one in terms]
            bits = torch.tensor([Code((len(x),), x.dtype, (one,)).nbits - header for one in sent]).double()
            moments, energies = levels.second_moments(), levels.energies()
            weights = (moments / bits).sqrt()
            for budget in BUDGETS:
                left = budget * len(x) - header
                low, high = 0.0, float(count + 1)
                for _ in range(40):
                    draws = (low + high) / 2
                    over = float((inclusions(weights, "poisson", draws) * bits).sum()) > left
                    low, high = (low, draws) if over else (draws, high)
                pi = inclusions(weights, "poisson", low)
                omega = float((moments / pi - energies).sum()) / energy
                setting = f"refinement(bits={rate}, refinements={count}), draws={low:.3g}"
                best[budget] = min(best[budget], (omega, setting))
    return best


def table(name: str, x: Tensor, repeats: int) -> list[dict]:
    """One row for each budget."""
    found, energy, rows = refined(x), float(x.double().square().sum()), []
    for budget in BUDGETS:
        omega, setting = found[budget]
        planes = min((error / energy for _, _, error in planes_within(x, budget * len(x))), default=math.inf)
        peers = {
            family: measure(f"{family}(bits={budget}, coder=trellis)", x, tg.Key(1), repeats).omega
            for family in ("eden", "head_tail")
        }
        rows.append(
            {"vector": name, "bits": budget, "refinement": omega, "planes": planes, **peers, "setting": setting}
        )
        figures = " | ".join(f"{rows[-1][column]:.3g}" for column in ("refinement", "planes", "eden", "head_tail"))
        print(f"| {name} | {budget} | {figures} | `{setting}` |", flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gradients", help="a folder of benchmarks/real_gradients.py")
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--json")
    arguments = parser.parse_args()
    vectors = {law: quantile_vector(law, 100_000, tg.Key(0)) for law in ("gauss", "t3", "lognormal")}
    for file in sorted(Path(arguments.gradients).glob("*.npy")) if arguments.gradients else ():
        whole = torch.from_numpy(np.load(file)).float().reshape(-1)
        vectors[file.stem] = whole[tg.Key(0).permutation(len(whole))[:SAMPLED]]
    print("| vector | bits | mlmc(refinement) | mlmc(fixed_point) | eden | head_tail | best refinement |")
    print("|---|---|---|---|---|---|---|")
    rows = [row for name, x in vectors.items() for row in table(name, x, arguments.repeats)]
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
