"""By how much `auto` with trellis codes errs less than the best scalar code, on real gradients, at equal bits.

    python benchmarks/real_gradients.py --data FOLDER --bert FOLDER
    python benchmarks/auto_gain.py --gradients runs/gradients

A million entries of each gradient, drawn at random. Scalar codes, which `auto` took before it knew trellises:
`head_tail` and `eden` entropy coded, `ecdq` from a bit on, and `qsgd` with as many levels as the bits allow. Errors are
measured over `--repeats` messages, that of `qsgd` is exact; beside them, how far `auto`'s predictions are off.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import telegrad as tg
from telegrad.lab.variance import measure

NAMES = ("resnet18-0", "resnet18-60", "resnet18-150", "bert-100")
BITS = (0.0908, 0.49, 2.0)
SAMPLED = 1_000_000


def levels_within(bits: float, x: Tensor) -> str:
    """The `qsgd` with most levels whose message has at most so many bits an entry."""
    low, high = 1, 1 << 22
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        fits = tg.compressor(f"qsgd(levels={middle})").encode(x, tg.Key(0)).nbits <= bits * len(x)
        low, high = (middle, high) if fits else (low, middle)
    return f"qsgd(levels={low})"


def row(name: str, bits: float, x: Tensor, repeats: int) -> str:
    """A line of the table."""
    specs = [f"head_tail(bits={bits})", f"eden(bits={bits}, coder=entropy)"] + [f"ecdq(bits={bits})"] * (bits >= 1)
    errors = {spec: measure(spec, x, tg.Key(1), repeats).omega for spec in specs}
    levels = levels_within(bits, x)
    errors[levels] = tg.compressor(levels).variance(x) / float(x.double().square().sum())
    best = min(errors, key=errors.__getitem__)
    cells = [f"{errors[best]:.3g} (`{best.split('(')[0]}`)"]
    for spec in (f"auto(bits={bits})", f"auto(bits={bits}, effort=best)"):
        found = measure(spec, x, tg.Key(1), repeats)
        gain, off = 1 - found.omega / errors[best], found.predicted / found.omega - 1
        cells += [f"{found.omega:.3g}", f"{100 * gain:.0f} %", f"{100 * off:+.1f} %"]
    return f"| {name} | {bits} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gradients", type=Path, required=True, help="folder that real_gradients.py filled")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    print("| gradient | bits | scalar | `auto` | gain | predicted | `effort=best` | gain | predicted |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in NAMES:
        whole = torch.from_numpy(np.load(arguments.gradients / f"{name}.npy"))
        x = whole[tg.Key(0).fold(role="sample").permutation(len(whole))[:SAMPLED]]
        for bits in BITS:
            print(row(name, bits, x, arguments.repeats), flush=True)


if __name__ == "__main__":
    main()
