"""Designs the trellis codes of `telegrad.kernels.trellis.codes`, and writes the files that it reads.

    python benchmarks/design_trellis.py

By iteration (A28.3): the best path of normal numbers with the present tables, new frequencies and centroids, and again.
Fine codes start from equally spaced points; coarse ones go on from the tables of the one before, the price of a bit
raised in small steps (annealing: a table that has lost a point never finds it again, and a price raised at once loses
all of them). Then rate and omega are measured on other numbers.
"""

from __future__ import annotations

import argparse
import math
import textwrap
from pathlib import Path

import numpy as np

import telegrad as tg
from telegrad.kernels.threads import in_blocks
from telegrad.kernels.trellis.codes import _UNIT, BETWEEN, BITS, EVERY, Design, design_code, designs

HEAD = """# The designs of a trellis code, by increasing rates: written by benchmarks/design_trellis.py, not by hand.
# A paragraph a design: price of a bit, rate, omega; the frequencies of k = 0, 1, … of 2^15 for each class; the
# centroids of k = 1, 2, … in units of 2^−13. Messages refer to designs by their numbers: these must not change."""
CURVE_HEAD = """# Rate and omega at every 64th position of a trellis code, which only encoders look at: written by
# benchmarks/design_trellis.py, not by hand."""
SEGMENT = 1 << 16
MEASURED = {8: 1 << 24, 256: 1 << 21}
"""Numbers on which rates are measured: at low rates symbols come in bursts, and scatter by per cents over a million."""
START = 0.3
STEPS = np.append(np.geomspace(1.612, 0.0375, 30), 0.0328)
"""Of fine codes. Their prices: what suits the step, 1.386 D by the rate-distortion function with D = step² / 12; less
where steps are so small that there would be too many points."""
PRICES = 1.386 / 12 * np.square(STEPS / np.interp(-np.log(STEPS), -np.log([0.4, 0.15]), [1.0, 1.7]))
COARSE = np.concatenate([np.arange(0.34, 0.85, 0.04), np.arange(0.85, 1.2, 0.015)])


def rows_of(code, z: np.ndarray) -> np.ndarray:
    rows = np.empty(len(z), dtype=np.uint8)
    in_blocks(lambda start, stop: code.quantise(z[start:stop], rows[start:stop]), len(z), SEGMENT)
    return rows


def counted(code, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(how many, Σ z) of each k from −top to top, made symmetrical."""
    rows, k = rows_of(code, z), code._number
    top = code.columns - 1
    count, total = (np.bincount(rows, weights, len(k)) for weights in (None, z))
    used = np.abs(k) <= top
    counts, totals = np.zeros(2 * top + 1), np.zeros(2 * top + 1)
    np.add.at(counts, k[used] + top, count[used])
    np.add.at(totals, k[used] + top, total[used])
    return (counts + counts[::-1]) / 2, (totals - totals[::-1]) / 2


def whole(counts: np.ndarray, least: int) -> np.ndarray:
    """Frequencies that add up to 2^15 in each class, symmetrical."""
    top = len(counts) // 2
    k, out = np.arange(-top, top + 1), np.zeros(len(counts), dtype=np.int64)
    for parity in range(2):
        own = np.abs(k) % 2 == parity
        share = counts[own] / max(counts[own].sum(), 1e-300) * (1 << BITS)
        out[own] = np.where(share >= 0.5, np.maximum(1, np.round(share)), least)
    for middle in ([0], [-1, 1]):
        own = np.abs(k) % 2 == len(middle) - 1
        for one in middle:
            out[one + top] += ((1 << BITS) - out[own].sum()) // len(middle) if one != 1 else 0
        if len(middle) == 2:
            out[top + 1] = out[top - 1]
    return out


def iterated(states: int, design: Design, z: np.ndarray, price: float, rounds: int, least: int) -> Design:
    for _ in range(rounds):
        design = Design(price, 0, 0, design.frequency, design.point)
        counts, totals = counted(design_code(states, design, design, 0), z)
        point = np.where(counts >= 8, np.round(totals / np.maximum(counts, 1) / _UNIT), design.point)
        design = Design(price, 0, 0, whole(counts, least), point.astype(np.int64))
    return design


def measured(states: int, design: Design, z: np.ndarray) -> Design:
    rate, omega = rate_and_omega(design_code(states, design, design, 0), z)
    return Design(design.price, rate, omega, design.frequency, design.point)


def rate_and_omega(code, z: np.ndarray) -> tuple[float, float]:
    rows = rows_of(code, z)
    q = code.point[rows]
    rate = float((BITS - np.log2(code.frequency.reshape(-1)[rows])).mean())
    return rate, float(q @ q * (z @ z) / (q @ z) ** 2 - 1)


def started(step: float) -> Design:
    top = min(127, math.ceil(4.9 / step))
    k = np.arange(-top, top + 1)
    weights = np.exp(-0.5 * np.square(k * step))
    return Design(0, 0, 0, whole(weights, 1), np.round(k * step / _UNIT).astype(np.int64))


def designed(states: int, n: int, rounds: int) -> list[Design]:
    z, fresh = (tg.Key(seed).normal(n).numpy() for seed in (1, 2))
    found = []
    for step, price in zip(STEPS, PRICES, strict=True):
        design = started(step)
        for share in (0.0, 0.25, 0.5, 0.75):
            design = iterated(states, design, z, share * price, 1, 1)
        design = iterated(states, design, z, price, rounds, int(price < 0.1))
        found.append(measured(states, design, fresh))
        print(states, found[-1], flush=True)
    design = iterated(states, started(STEPS[0]), z, 0.5 * START, 2, 1)
    design = iterated(states, design, z, START, rounds, 0)
    for price in COARSE:
        design = iterated(states, design, z, price, rounds, 0)
        made = measured(states, design, fresh)
        if made.rate < 0.04:
            break
        found.append(made)
        print(states, found[-1], flush=True)
    found.sort(key=lambda one: one.rate)
    return found


def paragraph(design: Design) -> str:
    half = design.frequency[design.top :], design.point[design.top + 1 :]
    used = max(np.flatnonzero(half[0]), default=0) + 1
    numbers = f"{design.price:.6g} {design.rate:.6g} {design.omega:.6g}"
    text = f"{numbers};{' '.join(map(str, half[0][:used]))};{' '.join(map(str, half[1][: used - 1]))}"
    return "\n".join(textwrap.wrap(text, 118))


def curve(states: int, known: list[Design], n: int) -> str:
    """Rate and omega at every `EVERY`th position, on numbers of their own, in lines."""
    z, found = tg.Key(3).normal(n).numpy(), []
    for position in range(0, BETWEEN * (len(known) - 1) + 1, EVERY):
        number, share = divmod(position, BETWEEN)
        code = design_code(states, known[number], known[min(number + 1, len(known) - 1)], share)
        one = rate_and_omega(code, z)
        found.append(f"{one[0]:.5g} {one[1]:.5g}")
    return "\n".join(textwrap.wrap("; ".join(found), 118))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--states", type=int, nargs="+", default=[8, 256])
    parser.add_argument("--size", type=int, default=1 << 20)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--curves", action="store_true", help="only measure the designs that there are anew")
    parser.add_argument("--out", type=Path, default=Path("src/telegrad/kernels/trellis"))
    arguments = parser.parse_args()
    for states in arguments.states:
        found = designs(states) if arguments.curves else designed(states, arguments.size, arguments.rounds)
        write(arguments.out / f"designs-{states}.txt", HEAD, *map(paragraph, found))
        write(arguments.out / f"curve-{states}.txt", CURVE_HEAD, curve(states, found, MEASURED[states]))


def write(file: Path, *paragraphs: str) -> None:
    file.write_text("\n\n".join(paragraphs) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
