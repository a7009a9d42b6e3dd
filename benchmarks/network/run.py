"""DDP over slow links, measured: time a step and bytes sent, and time to an accuracy.

    python benchmarks/network/run.py --out benchmarks/results/network.json
    python benchmarks/network/run.py --task digits --outer --mbit 10 --mbit 100 --out benchmarks/results/outer.json

Four workers in network namespaces of this machine, each link shaped by `tc tbf` (root needed; everything is removed
afterwards). Workers share the machine's cores, so compute is slower here than on machines of their own: compare rows of
one table with each other.
"""

from __future__ import annotations

import argparse
import json
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
OUTER = [
    "ddp",
    "mlmc(stopk(s=0.01, values=sign))",
    "ef21_sgdm(topk(k=0.01))",
    f"outer:diloco(every={ROUND})",
    f"outer:sparseloco(every={ROUND})",
    f"outer:outer(mlmc(stopk(s=0.01)), every={ROUND})",
    f"outer:outer(head_tail(bits=0.5), every={ROUND})",
]
"""The rows of --outer: outer loops beside what exchanges in every step."""
RATES = (0.1, 0.3)


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


def digits(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time to 95 % validation accuracy of a network of 0.55 million parameters.

    How many steps that takes does not depend on the links, so it is found once for each of two learning rates over
    unshaped links; the fewest count. Then the time of a step over each kind of link is measured.
    """
    rows = []
    for exchange in options.exchange or (OUTER if options.outer else [name for name in EXCHANGES if name != "none"]):
        tried = {}
        for rate in RATES:
            task = ("digits", exchange, "--steps", "400", "--lr", str(rate))
            tried[rate] = measure(options.workers, None, options.limit, *task).get("steps_to_target")
        reached = {rate: steps for rate, steps in tried.items() if steps}
        rate = min(reached, key=lambda r: reached[r]) if reached else None
        for mbit in options.mbit or [10, 100, 1000, 0]:
            row = {"mbit": mbit or None, "exchange": exchange, "lr": rate, "steps_to_target": reached.get(rate)}
            if rate is not None:
                # After the first three steps, of outer loops just one round: their mean is a step's share of it.
                steps = str(options.steps or (3 + ROUND if exchange.startswith("outer:") else 12 if mbit == 10 else 30))
                task = ("digits", exchange, "--steps", steps, "--lr", str(rate), "--target", "2")
                found = measure(options.workers, mbit or None, options.limit, *task)
                row |= found | {"steps_to_target": reached[rate]}
                if "seconds_a_step" in found:
                    later = found["seconds_a_step"] * (reached[rate] - 3)
                    row["seconds_to_target"] = found["seconds_of_first_three"] + later
            rows.append(row)
            print(json.dumps(row), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["wide", "digits"], default="wide")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--mbit", type=float, action="append", help="0 for unshaped; may be repeated")
    parser.add_argument("--exchange", action="append")
    parser.add_argument("--outer", action="store_true", help="compare outer loops; with --task digits")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--bucket-mb", type=float, default=100)
    parser.add_argument("--limit", type=float, default=240)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = (wide if options.task == "wide" else digits)(options)
    if options.out:
        command = "python " + " ".join(sys.argv)
        report = {"command": command, "task": options.task, "workers": options.workers, **provenance(), "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
