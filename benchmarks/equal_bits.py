"""The equal-bit table: every unbiased family tuned to the same number of measured bits, on five laws of entries.

    python benchmarks/equal_bits.py --json benchmarks/results/equal_bits.json

For each family the one free parameter is searched so that the packed message has the budget's bits; omega is then
measured over `--repeats` messages. The vectors are quantile vectors of d entries (`telegrad.lab.vectors`).
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import telegrad as tg
from telegrad.lab.variance import measure
from telegrad.lab.vectors import DISTRIBUTIONS, quantile_vector

# name -> (spec of a whole number, largest number); None marks a family that takes its bits directly.
FAMILIES: dict[str, tuple[Callable[[int], str], int] | str] = {
    "randk": (lambda k: f"randk(k={k})", 100_000),
    "mlmc(stopk)": (lambda s: f"mlmc(stopk(s={s}))", 100_000),
    "mlmc(stopk, values=log)": (lambda s: f"mlmc(stopk(s={s}, values=log))", 100_000),
    "mlmc(stopk, values=sign)": (lambda s: f"mlmc(stopk(s={s}, values=sign))", 100_000),
    "importance": (lambda k: f"importance(k={k})", 100_000),
    "qsgd": (lambda levels: f"qsgd(levels={levels})", 1 << 22),
    "eden, fixed": "eden(bits={bits})",
    "eden, entropy": "eden(bits={bits}, coder=entropy)",
    "eden, trellis": "eden(bits={bits}, coder=trellis)",
    "eden, trellis of 256": "eden(bits={bits}, coder=trellis, states=256)",
    "ecdq": "ecdq(bits={bits})",
    "ecdq, trellis": "ecdq(bits={bits}, coder=trellis)",
    "head_tail": "head_tail(bits={bits})",
    "head_tail, trellis": "head_tail(bits={bits}, coder=trellis)",
    "auto": "auto(bits={bits})",
    "auto, effort=best": "auto(bits={bits}, effort=best)",
}


_MOST = 3


def mean_bits(spec: str, x, repeats: int = 3) -> float:
    compressor = tg.compressor(spec)
    return math.fsum(compressor.encode(x, tg.Key(repeat)).nbits for repeat in range(repeats)) / repeats


def affordable(
    make: Callable[[int], str], most: int, x, budget: float, repeats: int = 3, least: int = 1
) -> dict[int, float]:
    """The few numbers that spend most of the budget, and not more, on average; increasing, with their mean bits.

    Bits mostly grow with the number, but not always (blocks of signs: a longer block keeps fewer of its entries). So
    powers of two are all tried, and wherever the budget is crossed upward bisection finds the number.
    """
    bits: dict[int, float] = {}

    def fits(n: int) -> bool:
        if n not in bits:
            bits[n] = mean_bits(make(n), x, repeats)
        return bits[n] <= budget

    scan = sorted({least, *(1 << e for e in range(most.bit_length()) if 1 << e > least), most})
    for low, high in itertools.pairwise(scan):
        if not fits(low) or fits(high):
            continue
        while high - low > max(1, low // 500):
            middle = (low + high) // 2
            low, high = (middle, high) if fits(middle) else (low, middle)
    fitting = sorted((number for number in sorted(bits) if fits(number)), key=bits.__getitem__)
    return {number: bits[number] for number in sorted(fitting[-_MOST:])}


def tuned(make: Callable[[int], str], most: int, x, budget: float) -> str | None:
    """The spec of least predicted error whose messages stay within the budget."""
    specs = [make(number) for number in affordable(make, most, x, budget)]
    return min(specs, key=lambda spec: tg.compressor(spec).variance(x)) if specs else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--bits", type=float, nargs="+", default=[0.09, 0.49, 2.0007], help="bits a coordinate")
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), choices=list(FAMILIES))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = []
    for bits in arguments.bits:
        print(f"\n{bits} bits a coordinate, d = {arguments.size}: omega")
        print(f"{'':26}" + "".join(f"{name:>12}" for name in DISTRIBUTIONS))
        for family, form in ((family, FAMILIES[family]) for family in arguments.families):
            cells = []
            for name in DISTRIBUTIONS:
                x = quantile_vector(name, arguments.size, tg.Key(0))
                spec = form.format(bits=bits) if isinstance(form, str) else tuned(*form, x, bits * arguments.size)
                try:
                    found = measure(spec, x, tg.Key(1), arguments.repeats) if spec else None
                except tg.SpecError:
                    found = None
                if found and tg.compressor(spec).exact:
                    found = replace(found, omega=found.predicted)  # few messages miss what is rarely drawn
                cells.append(f"{found.omega:12.4g}" if found else f"{'–':>12}")
                if found:
                    rows.append({"family": family, "distribution": name, "budget": bits, **vars(found)})
            print(f"{family:26}" + "".join(cells), flush=True)
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps({"d": arguments.size, "results": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
