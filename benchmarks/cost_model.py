"""The cost model against measured steps over shaped links: a table predicted / measured.

    python benchmarks/cost_model.py --out benchmarks/results/cost_model.json

Reads what benchmarks/network/run.py and `telegrad bench encode|decode` wrote, and predicts twice:

* "processor measured": what the processor does is taken from the step over unshaped links; the model adds the wire.
* "from the bench": the processor's part comes from the bench's speeds, four workers on two cores; of the network's
  table only the step without any exchange, and DDP's unshaped step (how fast sockets are filled), are used.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "network"))
from worker import network

from telegrad.lab.runner import provenance
from telegrad.theory.cost_model import Cluster, Profile, StepCost, all_reduce, step_cost
from telegrad.theory.profiles import profile, read_speeds

RESULTS = Path(__file__).parent / "results"
CORES = 2


def gradient() -> torch.Tensor:
    """The gradient of the network benchmark's model at its first step, rank 0's batch."""
    model = network("wide")
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(16, 1024, generator=generator), torch.randn(16, 512, generator=generator)
    nn.functional.mse_loss(model(inputs), targets).backward()
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", type=Path, default=RESULTS / "network-wide.json")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = json.loads(options.network.read_text(encoding="utf-8"))
    measured = {(row["mbit"], row["exchange"]): row["seconds_a_step"] for row in table["rows"]}
    workers = table["workers"]
    d = table["rows"][0]["parameters"]
    bare = {mbit: seconds for (mbit, exchange), seconds in measured.items() if exchange == "none"}
    compute = sum(bare.values()) / len(bare)
    sharing = workers / CORES
    dense_bits = 2 * (workers - 1) / workers * 32 * d
    host = sharing * dense_bits / (measured[None, "ddp"] - bare[None])
    speeds = read_speeds([RESULTS / "speed_encode.json", RESULTS / "speed_decode.json"], "gauss")
    x = gradient()
    half = 2 * x.numel() * 1e-9  # torch converts to fp16 and back in about 1 ns an entry each way
    rows: list[dict[str, Any]] = []
    print(f"{'exchange':46}{'Mbit/s':>8}{'measured':>10}{'processor measured':>20}{'from the bench':>18}")
    for exchange in dict.fromkeys(exchange for _, exchange in measured):
        spec, _, topology = exchange.partition("@")
        for mbit in (None, 1000, 100, 10):
            there = Cluster(
                workers=workers, bandwidth=mbit * 1e6 if mbit else math.inf, latency=1e-4, compute=compute,
                sharing=sharing, host_bandwidth=host,
            )  # fmt: skip
            cost = _cost(there, exchange, spec, topology or "allgather", x, speeds, half)
            if cost is None:
                continue
            unshaped = Cluster(**{**vars(there), "bandwidth": math.inf})
            free = _cost(unshaped, exchange, spec, topology or "allgather", x, speeds, half)
            assert free is not None
            in_situ = measured[None, exchange] + cost.seconds - free.seconds
            seconds = measured[mbit, exchange]
            rows.append(
                {
                    "exchange": exchange,
                    "mbit": mbit,
                    "measured": seconds,
                    "processor_measured": in_situ if mbit else None,
                    "from_the_bench": cost.seconds,
                    "sent_bytes": cost.sent,
                }
            )
            shown = f"{in_situ:9.3f} ({in_situ / seconds - 1:+.0%})" if mbit else ""
            print(
                f"{exchange:46}{mbit or 'none':>8}{seconds:10.3f}{shown:>20}"
                f"{f'{cost.seconds:.3f} ({cost.seconds / seconds - 1:+.0%})':>18}"
            )
    for name in ("processor_measured", "from_the_bench"):
        errors = [abs(row[name] / row["measured"] - 1) for row in rows if row[name] is not None]
        print(f"{name}: {sum(e <= 0.2 for e in errors)} of {len(errors)} within 20 %, largest {max(errors):.0%}")
    if options.out:
        report = {"command": "python " + " ".join(sys.argv), "network": str(options.network.name), **provenance()}
        options.out.write_text(json.dumps(report | {"rows": rows}, indent=1) + "\n", encoding="utf-8")


_profiles: dict[str, Profile] = {}


def _cost(
    there: Cluster, exchange: str, spec: str, topology: str, x: torch.Tensor, speeds: Any, half: float
) -> StepCost | None:
    d = x.numel()
    if exchange in ("ddp", "fp16"):
        return all_reduce(there, d, 32.0 if exchange == "ddp" else 16.0, 0.0 if exchange == "ddp" else half, exchange)
    if exchange == "none" or spec.startswith("powersgd"):
        return None
    if spec not in _profiles:
        _profiles[spec] = profile(spec, x, repeats=8, speeds=speeds)
    return step_cost(there, _profiles[spec], topology)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
