"""What computing MLMC's levels costs, and what adaptive probabilities save: docs/measurements/levels.md.

    nice python benchmarks/levels.py --out benchmarks/results/levels.json

Parts of an encoding: the ladder applied to the vector with its norms, the probabilities, the residual of the drawn
level, packing. Each is the least processor time of some calls, over that of a copy of the tensor.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import telegrad as tg
from telegrad.lab.peak_memory import peak_bytes
from telegrad.lab.runner import provenance
from telegrad.mlmc.probabilities import level_probabilities
from telegrad.theory.advice import step_factor
from telegrad.theory.cost_model import Cluster, Profile, break_even, step_cost
from telegrad.theory.profiles import profile

LADDERS = (
    "stopk(s=0.1)",
    "stopk(s=0.01)",
    "stopk(s=0.001)",
    "stopk(s=0.001, growth=2.0)",
    "stopk(s=0.01, values=sign)",
    "fixed_point",
    "floating_point",
    "rtn",
    "ecuq",
    "refinement(bits=1)",
    "composed(stopk(s=0.5), fixed_point)",
    "two_level(topk(k=0.1))",
)
"""growth=2.0 is the logarithmic grid of levels: blocks that double."""
LAWS = ("fixed", "adaptive", "cost")
LINKS = (1e6, 1e7, 1e8, 1e9, 1e10, 1e11)
"""Bit/s."""


def least(call: Callable[[], Any], repeats: int) -> float:
    """Processor seconds of the quickest of some calls: other programs on the machine do not enter them."""
    call()
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def parts(ladder: str, x: torch.Tensor, repeats: int) -> tuple[dict[str, float], float | None]:
    """Seconds of each part of an encoding with adaptive probabilities, and of the whole one with each law; the memory
    that one takes at its peak, in tensors.
    """
    compressor = tg.compressor(f"mlmc({ladder})")
    built = compressor.ladder
    key = tg.Key(0).fold(step=0, rank=0)

    def applied() -> Any:
        levels = built.levels(x)
        levels.norms()
        return levels

    levels = applied()
    p = level_probabilities(levels, "adaptive")
    level = int(p.argmax()) + 1
    code = compressor.encode(x, key)
    found = {
        "levels": float(len(p)),
        "norms": least(applied, repeats),
        "probabilities": least(lambda: level_probabilities(levels, "adaptive"), repeats),
        "residual": least(lambda: levels.residual(level), repeats),
        "packing": least(lambda: tg.pack(code), repeats),
    }
    for law in LAWS:
        whole = tg.compressor(f"mlmc({ladder}, probabilities={law})")
        # Other draws take other levels; as in training, each step has its own.
        steps = iter(range(1 << 30))
        if law == "adaptive":
            peak = peak_bytes(lambda c=whole: tg.pack(c.encode(x, key)), x)
        found[law] = least(lambda c=whole, s=steps: tg.pack(c.encode(x, tg.Key(0).fold(step=next(s), rank=0))), repeats)
    return found, None if peak is None else peak / (4 * len(x))


def to_target(which: Profile) -> Callable[[Cluster], float]:
    """Seconds to the target, in uncompressed steps: 8 workers, noise as large as the gradient, all-gather."""
    factor = step_factor(which.omega, 8, 1.0)
    return lambda there: factor * step_cost(there, which, "allgather").seconds


def saving(fixed: Profile, adaptive: Profile) -> float | None:
    """The bandwidth below which adaptive probabilities reach the target sooner; None: never, infinity: always."""
    return break_even(to_target(adaptive), to_target(fixed), Cluster(8, 1e9, compute=0.0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    z = torch.randn(options.size, generator=torch.Generator().manual_seed(0))
    rows = []
    for vector, x in (("gauss", z), ("heavy", z.pow(5))):
        target = torch.empty_like(x)
        for ladder in LADDERS:
            found, memory = parts(ladder, x, options.repeats)
            copy = least(lambda x=x, target=target: target.copy_(x), 10 * options.repeats)
            profiles = {law: profile(f"mlmc({ladder}, probabilities={law})", x, repeats=6, speeds=None) for law in LAWS}
            timed = {law: replace(one, encode=found[law]) for law, one in profiles.items()}
            pays = saving(timed["fixed"], timed["adaptive"])
            links = [Cluster(8, rate, compute=0.0) for rate in LINKS]
            shares = {
                law: [to_target(timed[law])(link) / to_target(timed["fixed"])(link) for link in links]
                for law in ("adaptive", "cost")
            }
            rows.append(
                {
                    "vector": vector,
                    "ladder": ladder,
                    "copy_seconds": copy,
                    "memory": memory,
                    **{name: value if name == "levels" else value / copy for name, value in found.items()},
                    **{f"omega_{law}": one.omega for law, one in profiles.items()},
                    **{f"bits_{law}": one.bits for law, one in profiles.items()},
                    **{f"time_over_fixed_{law}": share for law, share in shares.items()},
                    "adaptive_pays_below": "always" if pays == math.inf else pays,
                }
            )
            row = rows[-1]
            print(
                f"{vector:6}{ladder:30}{row['levels']:6.0f} norms {row['norms']:6.1f} p {row['probabilities']:5.2f} "
                f"residual {row['residual']:6.1f} pack {row['packing']:5.2f} | fixed {row['fixed']:6.1f} adaptive "
                f"{row['adaptive']:6.1f} cost {row['cost']:6.1f} | "
                f"ω {row['omega_fixed']:8.3g} {row['omega_adaptive']:8.3g} {row['omega_cost']:8.3g} "
                f"bits {row['bits_fixed']:.3g} {row['bits_adaptive']:.3g} {row['bits_cost']:.3g} "
                f"memory {row['memory'] or math.nan:.2g} pays {row['adaptive_pays_below']}; "
                f"time over fixed, by links: {' '.join(f'{share:.2f}' for share in shares['adaptive'])}",
                flush=True,
            )
    if options.out:
        report = {"command": "python " + " ".join(sys.argv), **provenance(), "processor_seconds": time.process_time()}
        report |= {"size": options.size, "links": LINKS, "rows": rows}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
