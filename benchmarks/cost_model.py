"""The cost model against measured steps over shaped links: a table predicted / measured, and where a trellis pays.

    python benchmarks/cost_model.py --out benchmarks/results/cost_model.json

Reads what benchmarks/network/run.py wrote, and predicts three times:

* "processor measured": what the processor does is taken from the step over unshaped links; the model adds the wire.
* "alone": encoding, decoding and copying are timed in this process by itself, as `telegrad advise` does it, and shared
  by two workers on a core.
* "together": they are timed in as many processes at once as there were workers, as the hook `auto` does it.

Of the network's table the last two use the steps without any exchange, the seconds of an empty all-to-all, and DDP's
unshaped step (how fast sockets are filled), no more. A few minutes on two cores that do nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import statistics
import sys
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "network"))
from worker import network

from telegrad.lab.runner import provenance
from telegrad.theory.advice import step_factor
from telegrad.theory.cost_model import Cluster, Profile, StepCost, all_reduce, break_even, step_cost
from telegrad.theory.profiles import conversion_seconds, copy_bandwidth, profile

RESULTS = Path(__file__).parent / "results"
BURST = 8 * 128 * 1024
"""Bits that the shaper of the network benchmark lets pass at once (`benchmarks/network/links.py`)."""
CORES = 2
PAIRS = [(spec, f"{spec[:-1]}, coder=trellis)") for spec in ("eden(bits=1)", "head_tail(bits=0.5)")]


def gradient() -> torch.Tensor:
    """The gradient of the network benchmark's model at its first step, rank 0's batch."""
    model = network("wide")
    generator = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(16, 1024, generator=generator), torch.randn(16, 512, generator=generator)
    nn.functional.mse_loss(model(inputs), targets).backward()
    return torch.cat([p.grad.reshape(-1) for p in model.parameters()])


def speeds(specs: list[str], barrier: Any = None) -> dict[str, Any]:
    """Of this process: the profile of each compressor, and how fast it copies and converts. With a barrier, each is
    timed while others do the same.
    """
    torch.set_num_threads(1)
    x, found = gradient(), {}

    def together() -> None:
        if barrier is not None:
            barrier.wait()

    for spec in specs:
        profile(spec, x[: 1 << 16], repeats=1)  # loads the loops
        together()
        found[spec] = vars(profile(spec, x, repeats=3, pieces=1))  # the benchmark's single bucket
    together()
    memory = copy_bandwidth(len(x), repeats=3)
    together()
    fresh = copy_bandwidth(len(x), repeats=3, fresh=True)
    together()
    return {
        "profiles": found, "memory_bandwidth": memory, "fresh_bandwidth": fresh, "conversion": conversion_seconds(x)
    }  # fmt: skip


def _speeds_into(queue: Any, specs: list[str], barrier: Any) -> None:
    queue.put(speeds(specs, barrier))


def speeds_together(specs: list[str], workers: int) -> dict[str, Any]:
    """The slowest of as many processes at once."""
    context = multiprocessing.get_context("spawn")
    queue, barrier = context.Queue(), context.Barrier(workers)
    started = [context.Process(target=_speeds_into, args=(queue, specs, barrier)) for _ in range(workers)]
    for process in started:
        process.start()
    found = [queue.get() for _ in started]
    for process in started:
        process.join()
    slowest = {
        spec: found[0]["profiles"][spec]
        | {name: max(one["profiles"][spec][name] for one in found) for name in ("encode", "decode", "again")}
        for spec in specs
    }
    memory = {name: min(one[name] for one in found) for name in ("memory_bandwidth", "fresh_bandwidth")}
    return {"profiles": slowest, **memory, "conversion": max(one["conversion"] for one in found)}


def cost(there: Cluster, exchange: str, d: int, known: dict[str, Any]) -> StepCost | None:
    """The predicted step; None of what the model does not know."""
    spec, _, topology = exchange.partition("@")
    there = Cluster(**{**vars(there), **{name: known[name] for name in ("memory_bandwidth", "fresh_bandwidth")}})
    if exchange in ("ddp", "fp16"):
        return all_reduce(there, d, 32.0, 0.0) if exchange == "ddp" else all_reduce(there, d, 16.0, known["conversion"])
    if spec not in known["profiles"]:
        return None
    return step_cost(there, Profile(**known["profiles"][spec]), topology or "allgather")  # type: ignore[arg-type]


def trellis(measured: dict[Any, float], cluster: Cluster, known: dict[str, Any]) -> list[dict[str, Any]]:
    """For each code with and without a trellis: the link below which the trellis takes less time to a target (1 + ω/M
    times the steps), predicted; and the ratio of those times, measured, for each link.
    """
    rows = []
    for pair in PAIRS:
        if not set(pair) <= set(known["profiles"]):
            continue
        plain, coded = (Profile(**known["profiles"][spec]) for spec in pair)
        factors = [step_factor(one.omega, cluster.workers, 0.0) for one in (plain, coded)]

        def to_target(number: int, one: Profile, factors: list[float] = factors) -> Any:
            return lambda there: factors[number] * step_cost(there, one, "allgather").seconds

        link = break_even(to_target(1, coded), to_target(0, plain), cluster)
        ratios = {
            str(mbit): factors[1] * measured[mbit, pair[1]] / (factors[0] * measured[mbit, pair[0]])
            for mbit in dict.fromkeys(mbit for mbit, _ in measured)
            if (mbit, pair[0]) in measured and (mbit, pair[1]) in measured
        }
        rows.append({"code": pair[0], "omega": [plain.omega, coded.omega], "pays_below": link, "ratios": ratios})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", type=Path, default=RESULTS / "network-one-run.json")
    parser.add_argument("--exchange", action="append", help="may be repeated; default: all that the table has")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = json.loads(options.network.read_text(encoding="utf-8"))
    found = [row for row in table["rows"] if "failed" not in row]
    needed = {"none", "ddp", *(options.exchange or [row["exchange"] for row in found])}
    measured = {(row["mbit"], row["exchange"]): row["seconds_a_step"] for row in found if row["exchange"] in needed}
    workers, d = table["workers"], found[0]["parameters"]
    exchanges = list(dict.fromkeys(exchange for _, exchange in measured))
    specs = [name.partition("@")[0] for name in exchanges if "(" in name and not name.startswith("powersgd")]
    specs = list(dict.fromkeys(specs))
    alone, at_once = speeds(specs), speeds_together(specs, workers)
    bare = {mbit: seconds for (mbit, exchange), seconds in measured.items() if exchange == "none"}
    # Steps without an exchange know nothing of the link: what differs is disturbance, as in the other rows.
    compute, sharing = statistics.median(bare.values()), max(1.0, workers / CORES)
    latency = statistics.median(row["latency"] for row in found if "latency" in row)
    dense_bits = 2 * (workers - 1) / workers * 32 * d
    # What fills sockets, in bits per second of a worker that has its share of the cores.
    host = dense_bits / (measured[None, "ddp"] - bare[None])
    rows: list[dict[str, Any]] = []
    print(f"{'exchange':44}{'Mbit/s':>8}{'measured':>10}{'processor measured':>20}{'alone':>16}{'together':>16}")
    for exchange in exchanges:
        for mbit in dict.fromkeys(mbit for mbit, name in measured if name == exchange):
            there = Cluster(
                workers=workers, bandwidth=mbit * 1e6 if mbit else math.inf, latency=latency, compute=compute,
                sharing=sharing, host_bandwidth=host * sharing, burst=BURST if mbit else 0.0,
            )  # fmt: skip
            shared = Cluster(**{**vars(there), "sharing": 1.0, "host_bandwidth": host})
            one, many = cost(there, exchange, d, alone), cost(shared, exchange, d, at_once)
            if one is None or many is None:
                continue
            free = cost(Cluster(**{**vars(there), "bandwidth": math.inf}), exchange, d, alone)
            assert free is not None
            seconds = measured[mbit, exchange]
            figures = {"alone": one.seconds, "together": many.seconds}
            if mbit and (None, exchange) in measured:
                figures = {"processor_measured": measured[None, exchange] + one.seconds - free.seconds, **figures}
            rows.append({"exchange": exchange, "mbit": mbit, "measured": seconds, **figures, "sent_bytes": one.sent})
            shown = [f"{figures[n]:.3f} ({figures[n] / seconds - 1:+.0%})" if n in figures else "" for n in NAMES]
            print(f"{exchange:44}{mbit or 'none':>8}{seconds:10.3f}{shown[0]:>20}{shown[1]:>16}{shown[2]:>16}")
    for name in NAMES:
        errors = [abs(row[name] / row["measured"] - 1) for row in rows if name in row]
        print(f"{name}: {sum(e <= 0.2 for e in errors)} of {len(errors)} within 20 %, largest {max(errors):.0%}")
    base = Cluster(workers, 1e9, compute=compute, sharing=sharing, host_bandwidth=host * sharing)
    pays = trellis(measured, base, alone)
    for row in pays:
        link = f"below {row['pays_below'] / 1e6:.3g} Mbit/s" if row["pays_below"] else "nowhere"
        told = ", ".join(f"{mbit} Mbit/s {ratio:.2f}" for mbit, ratio in row["ratios"].items())
        print(
            f"{row['code']}: a trellis is predicted to pay {link}; time to a target with over without, measured: {told}"
        )
    if options.out:
        report = {"command": "python " + " ".join(sys.argv), "network": str(options.network.name), **provenance()}
        report |= {"alone": alone, "together": at_once, "rows": rows, "trellis": pays}
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


NAMES = ("processor_measured", "alone", "together")


if __name__ == "__main__":
    main()
