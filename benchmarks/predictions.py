"""How well `auto` predicts: bits and error of every choice of its portfolio, predicted and from packed messages.

    python benchmarks/predictions.py --size 100000

The constants of `telegrad.portfolio` and `table_bits` of `telegrad.wire.entropy_coded` are set so that the ratios of
bits are near 1 here.
"""

from __future__ import annotations

import argparse

import telegrad as tg
from telegrad.lab.variance import measure
from telegrad.lab.vectors import DISTRIBUTIONS, quantile_vector
from telegrad.portfolio import portfolio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=100_000)
    parser.add_argument("--bits", type=float, nargs="+", default=[0.01, 0.09, 0.49, 1.0, 2.0007, 4.0])
    parser.add_argument("--repeats", type=int, default=4)
    arguments = parser.parse_args()
    print(f"{'vector':10}{'budget':>8}  {'choice':28}{'predicted':>10}{'bits':>9}{'ratio':>8}{'omega':>11}{'ratio':>8}")
    for name in DISTRIBUTIONS:
        x = quantile_vector(name, arguments.size, tg.Key(0))
        energy = float(x.double().square().sum())
        for bits in arguments.bits:
            for choice in portfolio(x, bits):
                found = measure(choice.compressor, x, tg.Key(1), arguments.repeats)
                print(
                    f"{name:10}{bits:8}  {choice.compressor!s:28}{choice.bits / len(x):10.5f}"
                    f"{found.bits_per_coordinate:9.5f}{found.bits / choice.bits:8.4f}"
                    f"{found.omega:11.4g}{found.omega * energy / choice.error:8.4f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
