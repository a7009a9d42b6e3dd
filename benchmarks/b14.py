"""The equal-bit table B14 of the reference from packed bytes: the rows whose compressors are here, beside it.

For each row the one or two free parameters are searched so that messages have the budget's bits on average (`8 *
len(pack(code))`, everything counted) and the predicted error is least; omega is then measured over `--repeats`
messages. A row that cannot spend so few bits is subsampled (`subsample(A, fraction=)`), as the reference does. Rows
over bit planes and grids, whose messages differ a lot from level to level, are not sampled: the bits are the mean over
all levels, each packed once and weighed by its probability, and omega is the exact one.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import torch
from equal_bits import affordable, mean_bits

import telegrad as tg
from telegrad.lab.variance import measure
from telegrad.lab.vectors import DISTRIBUTIONS, quantile_vector
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD

D = 100_000
BUDGETS = (49_000, 200_070)
Make = Callable[[int], str]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    `make`: the spec for a whole number that messages grow with; for rows over `levels` that is the number of draws. A
    plain string asks for its bits directly. `most`: the largest number. `reference`: omega for the two budgets, in the
    order of the distributions. `lower_bound`: entries that the reference itself calls lower bounds (real numbers of
    draws, ideal coders). `subsampled`: whether a share of the entries at more bits each may be better.
    """

    name: str
    make: Make | str
    most: int
    reference: tuple[tuple[float, ...] | None, tuple[float, ...] | None]
    lower_bound: bool = False
    subsampled: bool = False
    levels: bool = False


NAN = math.nan
ROWS = (
    Row("randk, seeded", lambda k: f"randk(k={k})", D, ((64.3,) * 5, (15.0,) * 5)),
    Row("mlmc(stopk), 32-bit values", lambda s: f"mlmc(stopk(s={s}))", D, ((50.7, 39.7, 33.3, 2.29, 2.35), None)),
    Row(
        "mlmc(stopk), powers of two",
        lambda s: f"mlmc(stopk(s={s}, values=log))",
        D,
        ((21.0, 15.3, 13.7, 1.07, 0.629), (3.71, 2.74, 2.45, 0.225, 0.077)),
    ),
    Row(
        "importance, sign-coded",
        lambda k: f"importance(k={k})",
        D,
        ((6.79, 5.12, 4.49, 0.256, 0.443), (0.874, 0.912, 0.778, 0.028, 0.0076)),
    ),
    Row(
        "stochastic rounding",
        lambda s: f"qsgd(levels={s})",
        1 << 22,
        ((3.73, 3.44, 3.20, 0.107, 0.041), (0.216, 0.189, 0.157, 0.0023, 2.3e-6)),
        lower_bound=True,
        subsampled=True,
    ),
    Row("ECDQ", "ecdq(bits={bits})", 0, ((2.35, 2.35, 2.04, 0.15, NAN), (0.097, 0.088, 0.070, 0.0014, NAN)), True),
    Row(
        "planes, p = 2^-l",
        lambda n: f"mlmc(fixed_point, probabilities=fixed, draws={n})",
        40,
        ((4.15, 3.78, 3.79, 0.395, 0.326), None),
        lower_bound=True,
        levels=True,
    ),
    Row(
        "planes, by cost",
        lambda n: f"mlmc(fixed_point, probabilities=cost, draws={n})",
        40,
        ((4.07, 3.43, 3.40, 0.350, 0.317), (0.835, 0.806, 0.851, 0.093, 0.0777)),
        lower_bound=True,
        levels=True,
    ),
    Row(
        "mlmc(rtn), adaptive",
        lambda n: f"mlmc(rtn, draws={n})",
        1,
        ((36.5, 38.8, 46.2, 9.39, 2.30), (8.2, 8.9, 10.9, 2.3, 0.56)),
        lower_bound=True,
        levels=True,
    ),
    Row(
        "mlmc(rtn), by cost",
        lambda n: f"mlmc(rtn, probabilities=cost, draws={n})",
        1,
        ((31.8, 30.5, 29.4, 2.86, 2.09), (7.2, 7.2, 7.2, 0.70, 0.51)),
        lower_bound=True,
        levels=True,
    ),
    Row(
        "natural, subsampled",
        lambda n: "natural",
        1,
        ((18.9, 18.9, 18.9, 18.8, 18.8), (3.87, 3.87, 3.87, 3.85, 3.84)),
        subsampled=True,
    ),
    Row("EDEN, fixed", "eden(bits={bits})", 0, ((2.21,) * 5, (0.133,) * 5)),
    Row("EDEN, entropy coded", "eden(bits={bits}, coder=entropy)", 0, ((1.66,) * 5, (0.098,) * 5)),
    Row(
        "head + tail",
        "head_tail(bits={bits})",
        0,
        ((1.66, 1.66, 1.49, 0.188, 0.99), (0.098, 0.097, 0.083, 0.0047, NAN)),
    ),
    Row(
        "auto", "auto(bits={bits})", 0, ((1.66, 1.66, 1.49, 0.107, 0.041), (0.097, 0.088, 0.070, 0.0014, 2.3e-6)), True
    ),
)


class AtLevel:
    """A key under which `mlmc` draws the level that u, in [0, 1), stands for."""

    def __init__(self, key: tg.Key, u: float) -> None:
        self.key, self.u = key, u

    def fold(self, **what):
        if what.get("role") == "level":
            return SimpleNamespace(uniform=lambda n: torch.full((n,), self.u, dtype=torch.float64))
        return AtLevel(self.key.fold(**what), self.u)

    def __getattr__(self, name: str):
        return getattr(self.key, name)


def bits_over_levels(spec: str, x) -> float:
    """The expected bits of one draw of `mlmc(LADDER, …)`: every level packed, weighed by its probability."""
    compressor, total, below = tg.compressor(spec), 0.0, 0.0
    for p, _ in compressor.enumerate_levels(x):
        if p > 1e-9:
            total += p * compressor.encode(x, AtLevel(tg.Key(0), below + p / 2)).nbits
        below += p
    return total


def drawn(row: Row, x, budget: float) -> Iterator[tuple[str, float]]:
    """Specs over levels, with their expected bits: as many draws as fit, or more of a share of the entries."""
    one = bits_over_levels(row.make(1), x)
    # Draws of one message share its header; that a level drawn twice is sent once is left out.
    fits = int((budget - MESSAGE_OVERHEAD) / (one - MESSAGE_OVERHEAD))
    if fits >= 1:
        yield row.make(fits), MESSAGE_OVERHEAD + fits * (one - MESSAGE_OVERHEAD)
    for draws in range(fits + 1, fits + 4):
        share = (budget - MESSAGE_OVERHEAD - 80) / (draws * (one - MESSAGE_OVERHEAD))
        yield f"subsample({row.make(draws)}, fraction={share:.6f})", budget


def searched(row: Row, x, budget: float) -> Iterator[str]:
    """Specs that spend the budget, by the number that messages grow with and the share of the entries."""
    found = affordable(row.make, row.most, x, budget, 2)
    yield from (row.make(number) for number, bits in found.items() if bits > 0.9 * budget or not row.subsampled)
    start = max(found, default=1)
    for factor in (1.0, 1.3, 1.7, 2.2, 3.0, 4.0, 6.0, 10.0) if row.subsampled else ():
        number = math.ceil(start * factor)
        if number > row.most or (factor > 1 and number == start):
            continue
        share = min(1.0, (budget - 300) / max(1.0, mean_bits(row.make(number), x, 2)))
        for _ in range(3):  # fewer entries have shorter places, but tables as long
            bits = mean_bits(f"subsample({row.make(number)}, fraction={share:.6f})", x, 2)
            share = min(1.0, share * budget / bits)
        yield f"subsample({row.make(number)}, fraction={share:.6f})"


def cell(row: Row, x, budget: float, repeats: int) -> tuple[str, float, float] | None:
    """(spec, bits, omega) of the row's best."""
    energy = float(x.double().square().sum())
    if row.levels:
        found = [(tg.compressor(spec).variance(x) / energy, spec, bits) for spec, bits in drawn(row, x, budget)]
        omega, spec, bits = min(found)
        return spec, bits, omega
    specs = [row.make.format(bits=budget / D)] if isinstance(row.make, str) else list(searched(row, x, budget))
    if not specs:
        return None
    best = min(specs, key=lambda spec: tg.compressor(spec).variance(x)) if len(specs) > 1 else specs[0]
    one = measure(best, x, tg.Key(1), repeats)
    # Where messages differ much few of them tell little, and the closed form is taken.
    return best, one.bits, one.predicted if one.error > 0.02 * one.omega else one.omega


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--rows", nargs="*", help="only rows whose name holds one of these")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    vectors, found = {name: quantile_vector(name, D, tg.Key(0)) for name in DISTRIBUTIONS}, []
    rows = [row for row in ROWS if not arguments.rows or any(part in row.name for part in arguments.rows)]
    for number, budget in enumerate(BUDGETS):
        print(f"\n{budget} bits ({budget / D:.4g} a coordinate): omega, reference, ratio\n")
        print(f"| | {' | '.join(DISTRIBUTIONS)} |\n|---{'|---' * len(DISTRIBUTIONS)}|")
        for row in rows:
            cells, reference = [], row.reference[number]
            for column, (name, x) in enumerate(vectors.items()):
                one = cell(row, x, budget, arguments.repeats)
                if one is None:
                    cells.append("–")
                    continue
                (spec, bits, omega), wanted = one, reference[column] if reference else NAN
                text = f"{omega:.3g}"
                if not math.isnan(wanted):
                    ratio = omega / wanted
                    mark = " **!**" if abs(ratio - 1) > (0.2 if row.lower_bound else 0.1) else ""
                    text += f", {wanted:.3g}, {ratio:.2f}{mark}"
                cells.append(text)
                found.append(
                    {"row": row.name, "distribution": name, "budget": budget, "spec": spec, "bits": bits}
                    | {"omega": omega, "reference": None if math.isnan(wanted) else wanted}
                )
            print(f"| {row.name} | {' | '.join(cells)} |", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps({"d": D, "results": found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
