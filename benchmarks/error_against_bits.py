"""Error against measured bits, from 0.005 to 8 bits a coordinate: every peer on five laws and on real gradients.

    python benchmarks/real_gradients.py --data FOLDER --bert FOLDER
    python benchmarks/error_against_bits.py --gradients runs/gradients

Each family is measured over a range of its parameter, whatever bits that takes (`8 * len(pack(code))`), and drawn as a
line: solid where unbiased, dotted where biased. Laws: quantile vectors of 100,000 entries. Gradients: 10^6 entries,
drawn at random, of all their parameters; `powersgd`, which needs matrices, takes all tensors instead, each by itself.
A second table is at the bits of A27 (.0124, .0908, .49 and 2): each family of `auto`'s portfolio at its best parameter.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch
from b14 import bits_over_levels
from torch import Tensor

import telegrad as tg
from telegrad.lab.variance import measure, rate_distortion
from telegrad.lab.vectors import DISTRIBUTIONS, quantile_vector
from telegrad.mlmc.ladder import MESSAGE_OVERHEAD
from telegrad.portfolio import portfolio

BITS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8)
SHARES = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3)
LEVELS = (2, 8, 32, 128, 512, 2048, 8192, 32768, 131072, 524288)
FAMILIES: dict[str, tuple[str, tuple[float, ...]]] = {
    "auto": ("auto(bits={})", BITS),
    "head_tail": ("head_tail(bits={})", BITS),
    "eden, trellis": ("eden(bits={}, coder=trellis)", BITS),
    "eden, entropy coded": ("eden(bits={}, coder=entropy)", BITS),
    "eden, fixed": ("eden(bits={})", BITS),
    "ecdq, trellis": ("ecdq(bits={}, coder=trellis)", BITS),
    "ecdq": ("ecdq(bits={})", BITS),
    "qsgd, entropy coded": ("qsgd(levels={})", LEVELS),
    "importance": ("importance(k={})", SHARES),
    "randk": ("randk(k={})", SHARES),
    "mlmc(stopk), full values": ("mlmc(stopk(s={}))", SHARES),
    "mlmc(stopk), powers of two": ("mlmc(stopk(s={}, values=log))", SHARES),
    "mlmc(stopk), signs": ("mlmc(stopk(s={}, values=sign))", SHARES),
    "mlmc(fixed_point), by cost": ("mlmc(fixed_point, probabilities=cost, draws={})", (1, 2, 4, 8, 16, 32)),
    "topk": ("topk(k={})", SHARES),
    "topk, bf16": ("topk(k={}, values=bf16)", SHARES),
    "rtn": ("rtn(level={})", (1, 2, 3, 4, 5, 6, 7, 8)),
    "sign": ("sign", (1,)),
}
A27_BITS = (0.0124, 0.0908, 0.49, 2.0)
A27 = {
    "head + tail": (62, 5.5, 0.57, 0.026),
    "EDEN, entropy coded": (78, 11, 1.66, 0.098),
    "importance": (110, 10.5, 1.07, 0.115),
    "stochastic rounding": (107, 10.5, 0.94, 0.035),
}
RANKS = (1, 2, 4, 8, 16, 32)
SAMPLED = 1_000_000


def low_rank(gradient: Tensor, shapes: list[list[int]], rank: int) -> tuple[float, float]:
    """(bits a coordinate, relative error) of `powersgd` on every tensor by itself."""
    compressor, bits, error = tg.compressor(f"powersgd(rank={rank})"), 0, 0.0
    for number, (part, shape) in enumerate(zip(gradient.split([math.prod(s) for s in shapes]), shapes, strict=True)):
        code = compressor.encode(part.view(shape), tg.Key(1).fold(piece=number))
        bits += 8 * len(tg.pack(code))
        error += float((code.decode().reshape(-1).double() - part.double()).square().sum())
    return bits / len(gradient), error / float(gradient.double().square().sum())


def curves(x: Tensor, repeats: int, families: list[str]) -> list[dict]:
    """One row for every family and parameter."""
    rows = []
    for family, (form, parameters) in FAMILIES.items():
        # Messages differ a lot from level to level: all are packed, each weighed by its probability.
        level = bits_over_levels(form.format(1), x) if "fixed_point" in family and family in families else 0.0
        for parameter in parameters if family in families else ():
            spec = form.format(parameter)
            try:
                one = measure(spec, x, tg.Key(1), 8 * repeats if "signs" in family else repeats)
            except tg.TelegradError:
                continue
            # A few messages miss what is rarely drawn: where there is an exact closed form, it is taken.
            exact = tg.compressor(spec).exact and math.isfinite(one.predicted)
            omega, bits = one.predicted if exact else one.omega, one.bits_per_coordinate
            if level:
                bits = (MESSAGE_OVERHEAD + parameter * (level - MESSAGE_OVERHEAD)) / len(x)
            rows.append(
                {"family": family, "spec": spec, "unbiased": one.unbiased}
                | {"bits": bits, "omega": omega, "standard_error": one.error}
            )
    return rows


def at_equal_bits(x: Tensor, repeats: int) -> list[dict]:
    """The portfolio's families, and what `auto` takes, at the bits of A27."""
    rows, names = [], {"HeadTail": "head + tail", "Importance": "importance", "QSGD": "stochastic rounding"}
    for bits in A27_BITS:
        entropy = f"eden(bits={bits}, coder=entropy)"
        candidates = {"EDEN, entropy coded": entropy, "auto": f"auto(bits={bits})"}
        candidates["auto, effort=best"] = f"auto(bits={bits}, effort=best)"
        candidates["head + tail, dead zone"] = f"head_tail(bits={bits})"
        for choice in portfolio(x, bits):
            kind = type(choice.compressor).__name__
            candidates[names.get(kind, kind)] = str(choice.compressor)
        for name, spec in candidates.items():
            one = measure(spec, x, tg.Key(2), repeats)
            rows.append(
                {"row": name, "budget": bits, "spec": spec, "bits": one.bits_per_coordinate, "omega": one.omega}
            )
    return rows


def draw(report: dict, path: Path) -> None:
    """A panel a vector."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(report["vectors"])
    columns = 3
    height = -(-len(names) // columns)
    figure, panels = pyplot.subplots(height, columns, figsize=(15, 4.4 * height + 1.6), dpi=100, layout="constrained")
    families = [*FAMILIES, "powersgd"]
    colours = matplotlib.colormaps["tab20"]
    for panel, name in zip(panels.flat, names, strict=False):
        for number, family in enumerate(families):
            rows = [row for row in report["vectors"][name] if row["family"] == family and row["omega"] > 0]
            if not rows:
                continue
            rows.sort(key=lambda row: row["bits"])
            emphasised = {"auto": 4.0, "mlmc(stopk), full values": 2.6}.get(family)
            panel.plot(
                [row["bits"] for row in rows],
                [row["omega"] for row in rows],
                color="black" if family == "auto" else colours(number % 20),
                linewidth=emphasised or 1.3,
                alpha=0.5 if family == "auto" else 1.0,
                marker="osD^vP*Xph"[number % 10],
                markersize=3.5,
                linestyle="-" if rows[0]["unbiased"] else ":",
                label=family if rows[0]["unbiased"] else f"{family} (biased)",
            )
        if name == "gauss":
            rates = np.geomspace(0.005, 8, 200)
            panel.plot(rates, [rate_distortion(rate) for rate in rates], "k--", linewidth=1, label="rate-distortion")
        panel.set(xscale="log", yscale="log", xlim=(0.003, 12), ylim=(1e-6, 3000), title=name)
        panel.grid(visible=True, which="major", alpha=0.3)
    for panel in panels[:, 0]:
        panel.set_ylabel("error: E‖C(x) − x‖² / ‖x‖²")
    for panel in panels[-1]:
        panel.set_xlabel("measured bits a coordinate")
    for panel in panels.flat[len(names) :]:
        panel.axis("off")
    handles = {
        label: handle for panel in panels.flat for handle, label in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", fontsize=10, ncols=5)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gradients", type=Path, help="folder that real_gradients.py filled")
    parser.add_argument("--names", nargs="*", default=["resnet18-0", "resnet18-60", "resnet18-150", "bert-100"])
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/error_against_bits.json"))
    parser.add_argument("--figure", type=Path, default=Path("docs/images/error-against-bits.png"))
    parser.add_argument(
        "--families", nargs="*", default=[*FAMILIES, "powersgd"], help="of others the JSON file is kept"
    )
    arguments = parser.parse_args()
    families = arguments.families
    before = json.loads(arguments.json.read_text(encoding="utf-8")) if arguments.json.exists() else {}
    report: dict = {"command": "python benchmarks/error_against_bits.py --gradients runs/gradients"}
    report |= {"a27_reference": A27, "a27_bits": A27_BITS, "equal_bits": before.get("equal_bits", {}), "vectors": {}}
    for name in (*DISTRIBUTIONS, *(arguments.names if arguments.gradients else ())):
        print(name, flush=True)
        rows = [row for row in before.get("vectors", {}).get(name, []) if row["family"] not in families]
        if name in DISTRIBUTIONS:
            rows += curves(quantile_vector(name, 100_000, tg.Key(0)), 4, families)
        elif families:
            whole = torch.from_numpy(np.load(arguments.gradients / f"{name}.npy"))
            x = whole[tg.Key(0).fold(role="sample").permutation(len(whole))[:SAMPLED]]
            rows += curves(x, 2, families)
            if "auto" in families:
                report["equal_bits"][name] = at_equal_bits(x, 3)
            if "powersgd" in families:
                kind = name.split("-")[0]
                shapes = json.loads((arguments.gradients / f"{kind}-shapes.json").read_text(encoding="utf-8"))
                for rank in RANKS:
                    bits, error = low_rank(whole, shapes, rank)
                    rows.append(
                        {"family": "powersgd", "spec": f"powersgd(rank={rank})", "unbiased": False}
                        | {"bits": bits, "omega": error, "standard_error": 0.0}
                    )
        report["vectors"][name] = rows
    arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    draw(report, arguments.figure)


if __name__ == "__main__":
    main()
