"""The equal-bit table B14 of the reference, from packed bytes, every row beside it.

    python benchmarks/b14.py --json benchmarks/results/b14.json

The rows, their specs and the reference's figures stand in b14_rows.txt. In each cell the free parameters are searched
so that messages have the budget's bits on average (`8 * len(pack(code))`, everything counted) and the predicted error
is least; omega is then measured over `--repeats` messages. A row over bit planes or grids, whose messages differ a lot
from level to level, is not sampled: its bits are the mean over all levels, each packed once and weighed by its
probability, and omega is the exact one; where fewer bits are there than one draw costs, it is subsampled
(`subsample(A, fraction=)`), as in the reference.
"""

from __future__ import annotations

import argparse
import json
import math
import re
from collections.abc import Iterator
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
ROWS = Path(__file__).with_name("b14_rows.txt")
Found = tuple[str, float, float]
"""(spec, bits, omega)"""


@dataclass(frozen=True)
class Row:
    """A line of b14_rows.txt; `references`: by budget, as many figures as distributions, NaN where there is none."""

    name: str
    spec: str
    search: str
    references: tuple[tuple[float, ...], ...]

    @staticmethod
    def read(line: str) -> Row:
        """From one line of the file."""
        name, spec, search, *columns = (part.strip() for part in line.split("|"))
        none = ("-",) * len(DISTRIBUTIONS)
        figures = (tuple(math.nan if x == "-" else float(x) for x in column.split() or none) for column in columns)
        return Row(name, spec, search, tuple(figures))

    def has(self, word: str) -> bool:
        """Whether the search has this word."""
        return word in self.search.split()

    def limit(self, sign: str, default: int) -> int:
        """The number after n<= or n>=."""
        found = re.search(rf"n{sign}(\d+)", self.search)
        return int(found[1]) if found else default

    @property
    def listed(self) -> list[str]:
        """What k goes through."""
        found = re.search(r"k=([\d,]+)", self.search)
        return found[1].split(",") if found else [""]


class AtLevel:
    """A key under which `mlmc` draws the level that u, in [0, 1), stands for; of several draws, at even steps."""

    def __init__(self, key: tg.Key, u: float) -> None:
        self.key, self.u = key, u

    def fold(self, **what):
        if what.get("role") == "level":
            return SimpleNamespace(uniform=self._spread, number=lambda: self.u)
        return AtLevel(self.key.fold(**what), self.u)

    def _spread(self, n: int) -> torch.Tensor:
        return (self.u + torch.arange(n, dtype=torch.float64) / n) % 1.0

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


def bits_by_comb(spec: str, x, count: int = 16) -> float:
    """The mean bits over levels at even steps of their cumulative probabilities."""
    compressor = tg.compressor(spec)
    return math.fsum(compressor.encode(x, AtLevel(tg.Key(i), (i + 0.5) / count)).nbits for i in range(count)) / count


def over_levels(row: Row, x, budget: float) -> Iterator[Found]:
    """As many draws as fit, or more of a share of the entries."""
    energy = float(x.double().square().sum())

    def exact(spec: str, bits: float) -> Found:
        return spec, bits, tg.compressor(spec).variance(x) / energy

    one = bits_over_levels(row.spec.format(n=1), x)
    # Draws of one message share its header; that a level drawn twice is sent once is left out.
    fits = int((budget - MESSAGE_OVERHEAD) / (one - MESSAGE_OVERHEAD))
    if fits >= 1:
        yield exact(row.spec.format(n=fits), MESSAGE_OVERHEAD + fits * (one - MESSAGE_OVERHEAD))
    for draws in range(fits + 1, fits + 4):
        share = (budget - MESSAGE_OVERHEAD - 80) / (draws * (one - MESSAGE_OVERHEAD))
        yield exact(f"subsample({row.spec.format(n=draws)}, fraction={share:.6f})", budget)


def subsampled(form: str, x, budget: float) -> Iterator[str]:
    """The spec with the {share} of the entries that spends the budget."""
    share, bits_of = 1.0, bits_by_comb if "mlmc" in form else mean_bits
    for _ in range(4):  # fewer entries have shorter places, but tables as long
        bits = bits_of(form.format(share=f"{share:.6f}"), x)
        share = min(1.0, share * budget / bits)
        if share < 1e-3:
            return
    yield form.format(share=f"{share:.6f}")


def searched(row: Row, x, budget: float) -> Iterator[str]:
    """Specs that spend the budget."""
    for k in row.listed:
        # What is looked for stays in braces.
        form = row.spec.replace("{k}", k).replace("{bits}", f"{budget / D}")
        if "{rest}" in form:
            head = mean_bits(re.search(r"topk\(k=\d+\)", form)[0], x, 1)
            form = form.replace("{rest}", f"{(budget - head) / D:.6f}") if head < 0.9 * budget else ""
        if "{share}" in form:
            for draws in range(1, 9):
                specs = list(subsampled(form.replace("{draws}", str(draws)), x, budget))
                yield from specs
                if "{draws}" not in form or not all("fraction=1.0" in spec for spec in specs):
                    break
        elif "{n}" in form:
            make = lambda n, form=form: form.format(n=n)  # noqa: E731
            found = affordable(make, row.limit("<=", D), x, budget, 2, row.limit(">=", 1))
            yield from (make(n) for n, bits in found.items() if bits > 0.9 * budget or not row.has("subsampled"))
            start = max(found, default=1)
            for factor in (1.0, 1.3, 1.7, 2.2, 3.0, 4.0, 6.0, 10.0) if row.has("subsampled") else ():
                yield from subsampled(f"subsample({make(math.ceil(start * factor))}, fraction={{share}})", x, budget)
        elif form:
            yield form


def cell(row: Row, x, budget: float, repeats: int) -> Found | None:
    """The row's best."""
    if row.has("levels"):
        return min(over_levels(row, x, budget), key=lambda one: one[2])
    specs = list(searched(row, x, budget))
    if not specs:
        return None
    best = min(specs, key=lambda spec: tg.compressor(spec).variance(x)) if len(specs) > 1 else specs[0]
    one = measure(best, x, tg.Key(1), repeats)
    # Where messages differ much few of them tell little, and the closed form is taken.
    uneven = "{share}" in row.spec and "mlmc" in row.spec
    bits = bits_by_comb(best, x) if uneven else one.bits
    noisy = uneven or one.error > 0.02 * one.omega
    return best, bits, one.predicted if noisy and math.isfinite(one.predicted) else one.omega


def printed(rows: list[Row], found: list[dict]) -> None:
    """The tables of docs/measurements/equal-bits.md: omega, reference, ratio, with a mark where they differ by more
    than is allowed; and by what factor the bits exceed the least that could give Gaussian entries that error.
    """
    cells = {(one["row"], one["budget"], one["distribution"]): one for one in found}
    for number, budget in enumerate(BUDGETS):
        print(f"\n{budget} bits ({budget / D:.4g} a coordinate): omega, reference, ratio\n")
        print(f"| | {' | '.join(DISTRIBUTIONS)} | bits / least |\n|---{'|---' * (len(DISTRIBUTIONS) + 1)}|")
        for row in rows:
            texts = []
            for name, wanted in zip(DISTRIBUTIONS, row.references[number], strict=True):
                one = cells.get((row.name, budget, name))
                text = "–" if one is None else f"{one['omega']:.3g}"
                if one is not None and not math.isnan(wanted):
                    ratio = one["omega"] / wanted
                    mark = " **!**" if abs(ratio - 1) > (0.2 if row.has("bound") else 0.1) else ""
                    text += f", {wanted:.3g}, {ratio:.2f}{mark}"
                texts.append(text)
            if set(texts) != {"–"}:
                gauss = cells.get((row.name, budget, "gauss"))
                # rate_distortion solved for the bits: omega = 1 / (4^R − 1)
                least = "–" if gauss is None else f"{gauss['bits'] / D / (math.log2(1 + 1 / gauss['omega']) / 2):.2f}"
                print(f"| {row.name} | {' | '.join(texts)} | {least} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=12)
    parser.add_argument("--rows", nargs="*", help="only rows whose name holds one of these; none: the table as it is")
    parser.add_argument("--json", type=Path, help="rows that are there and not measured now are kept")
    arguments = parser.parse_args()
    lines = ROWS.read_text(encoding="utf-8").splitlines()
    rows = [Row.read(line) for line in lines if not line.startswith("#")]
    chosen = [row for row in rows if arguments.rows is None or any(part in row.name for part in arguments.rows)]
    vectors, found = {name: quantile_vector(name, D, tg.Key(0)) for name in DISTRIBUTIONS}, []
    seen: dict[tuple[str, int, str], Found | None] = {}
    for number, budget in enumerate(BUDGETS):
        for row in chosen:
            print(f"{budget} bits: {row.name}", flush=True)
            for (name, x), wanted in zip(vectors.items(), row.references[number], strict=True):
                at = row.spec, budget, name
                if at not in seen:
                    # A search from n>= on is for the first budget only.
                    measured = number == 0 or not row.limit(">=", 0)
                    seen[at] = cell(row, x, budget, arguments.repeats) if measured else None
                if (one := seen[at]) is not None:
                    found.append(
                        {"row": row.name, "distribution": name, "budget": budget, "spec": one[0], "bits": one[1]}
                        | {"omega": one[2], "reference": None if math.isnan(wanted) else wanted}
                    )
    if arguments.json:
        before = json.loads(arguments.json.read_text(encoding="utf-8"))["results"] if arguments.json.exists() else []
        found = [*(one for one in before if one["row"] not in {row.name for row in chosen}), *found]
        report = {"command": "python benchmarks/b14.py", "d": D, "results": found}
        arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    printed(rows, found)


if __name__ == "__main__":
    main()
