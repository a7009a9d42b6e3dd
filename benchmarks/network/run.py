"""DDP and outer loops over slow links, measured: time a step and bytes sent, and both to an accuracy or a loss.

    python benchmarks/network/run.py --out benchmarks/results/network.json
    python benchmarks/network/run.py --task digits --outer --mbit 10 --mbit 100 --out benchmarks/results/outer.json
    python benchmarks/network/run.py --task text --outer --mbit 10 --mbit 100 --data FOLDER --out …/outer-text.json

`--tuned` takes the learning rates and numbers of steps from an earlier report, and measures time and bytes anew.

Four workers in network namespaces of this machine, each link shaped by `tc tbf` (root needed; everything is removed
afterwards). Workers share the machine's cores, so compute is slower here than on machines of their own: compare rows of
one table with each other.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from links import network

from telegrad.lab.runner import provenance

WORKER = Path(__file__).parent / "worker.py"
EXCHANGES = [
    "none",
    "ddp",
    "fp16",
    "powersgd(1)",
    "powersgd(4)",
    "mlmc(stopk(s=0.01, values=sign))",
    "mlmc(stopk(s=0.01, values=sign))@two_phase",
    "importance(k=0.01)",
    "auto",
]
ROUND = 30  # inner steps
SHARE = 0.01  # of the entries, what sparse messages of the rows of --outer hold
MOST = 600  # steps within which the target is to be reached
RATES = {"digits": (0.1, 0.3), "text": (0.003, 0.01)}
TARGETS = {"digits": "accuracy=0.95", "text": "loss=2.3"}


def outer_rows() -> list[str]:
    """The rows of --outer: outer loops beside what exchanges in every step."""
    each_step = [f"mlmc(stopk(s={SHARE}, values=sign))", f"importance(k={SHARE})", f"ef21_sgdm(topk(k={SHARE}))"]
    ours = [f"mlmc(stopk(s={SHARE}))", f"mlmc(stopk(s={SHARE}, values=sign))", "eden(bits=1)", "head_tail(bits=0.5)"]
    presets = [f"outer:{preset}(every={ROUND})" for preset in ("diloco", "sparseloco")]
    return ["ddp", *each_step, *presets, *(f"outer:outer({compressor}, every={ROUND})" for compressor in ours)]


def measure(workers: int, mbit: float | None, limit: float, *arguments: str) -> dict[str, Any]:
    """What worker.py finds over links of so many Mbit/s; {"failed": why} where it did not end within `limit` s."""
    with network(workers, mbit) as links:
        started = links.start(WORKER, arguments)
        try:
            output, _ = started[0].communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            return {"failed": f"no end within {limit:.0f} s"}
        finally:
            for process in started:
                process.kill()
                process.wait()
    lines = output.strip().splitlines()
    return json.loads(lines[-1]) if lines else {"failed": f"exit code {started[0].returncode}"}


def wide(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time a step and bytes sent of the 11.5 million parameter network."""
    rows = []
    for mbit in options.mbit or [1000, 0, 100, 10]:
        for exchange in options.exchange or EXCHANGES:
            # PowerSGD's hook sends its first two steps uncompressed. At 10 Mbit/s plain DDP takes a minute a step.
            # `auto` has made its choice by then, or says that it has not.
            warm = 26 if exchange == "auto" else 3 if mbit != 10 else 2 if exchange.startswith("powersgd") else 1
            steps = str(options.steps or (1 if mbit == 10 and exchange in ("ddp", "fp16") else 10))
            task = ("wide", exchange, "--steps", steps, "--warm", str(warm), "--bucket-mb", str(options.bucket_mb))
            found = measure(options.workers, mbit or None, options.limit, *task)
            rows.append({"mbit": mbit or None, "exchange": exchange, "bucket_mb": options.bucket_mb, **found})
            print(json.dumps(rows[-1]), flush=True)
    return rows


def training(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time and bytes to the target of a task.

    How many steps that takes does not depend on the links, so it is found once for each of some learning rates over
    unshaped links; the fewest count. Then the time of a step over each kind of link is measured.
    """
    rows = []
    every_row = outer_rows() if options.outer else [name for name in EXCHANGES if name != "none"]
    for exchange in options.exchange or every_row:
        rate, reached = steps_to_target(exchange, options)
        for mbit in options.mbit or [10, 100, 1000, 0]:
            row = {"mbit": mbit or None, "exchange": exchange, "lr": rate, "steps_to_target": reached}
            if rate is not None:
                # Of outer loops the first round, in which loops are loaded, and one more: a step has its share of it.
                first = ROUND if exchange.startswith("outer:") else 3
                steps = str(options.steps or (2 * ROUND if first == ROUND else 12 if mbit == 10 else 30))
                told = task(exchange, options, rate, steps, first=first)
                found = measure(options.workers, mbit or None, options.limit, *told)
                row |= found | {"steps_to_target": reached, "first": first}
                if "seconds_a_step" in found:
                    row["seconds_to_target"] = found["seconds_of_first"] + found["seconds_a_step"] * (reached - first)
                    row["interface_bytes_to_target"] = round(found["interface_bytes_a_step"] * reached)
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def steps_to_target(exchange: str, options: argparse.Namespace) -> tuple[float | None, int | None]:
    """The learning rate that reaches the target first, and after how many steps; None where none does."""
    if options.tuned:
        known = {row["exchange"]: row for row in json.loads(options.tuned.read_text(encoding="utf-8"))["rows"]}
        return known[exchange]["lr"], known[exchange]["steps_to_target"]
    best: tuple[float | None, int | None] = None, None
    for rate in RATES[options.task]:
        most = str(best[1] or MOST)  # one that takes longer than the best so far need not be waited for
        found = measure(options.workers, None, options.limit, *task(exchange, options, rate, most, options.target))
        steps = found.get("steps_to_target")
        if steps and (best[1] is None or steps < best[1]):
            best = rate, steps
    return best


def task(
    exchange: str, options: argparse.Namespace, rate: float, steps: str, target: str = "loss=0", first: int = 3
) -> tuple[str, ...]:
    """What a worker is told."""
    data = ("--data", str(options.data)) if options.data else ()
    how = ("--steps", steps, "--lr", str(rate), "--target", target, "--first", str(first))
    return (options.task, exchange, *how, *data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["wide", *RATES], default="wide")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--mbit", type=float, action="append", help="0 for unshaped; may be repeated")
    parser.add_argument("--exchange", action="append")
    parser.add_argument("--outer", action="store_true", help="compare outer loops; with --task digits or text")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--bucket-mb", type=float, default=100)
    parser.add_argument("--limit", type=float, default=240)
    parser.add_argument("--target", help="accuracy=… or loss=… on validation data")
    parser.add_argument("--data", type=Path, help="the folder of the text")
    parser.add_argument("--tuned", type=Path, help="take learning rates and steps to the target from this report")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the network is removed then, too
    options.target = options.target or TARGETS.get(options.task)
    rows = (wide if options.task == "wide" else training)(options)
    if options.out:
        command = ("python " + " ".join(sys.argv)).replace(str(options.data), "FOLDER")
        report = {"command": command, "task": options.task, "workers": options.workers, "target": options.target}
        report |= {**provenance(), "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
