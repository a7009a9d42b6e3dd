"""DDP over slow links, measured: time a step and bytes sent, and time to an accuracy.

    python benchmarks/network/run.py --out benchmarks/results/network.json

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
]
# Each at the best of 0.03, 0.1, 0.3, 1 for the uncompressed network on one worker's links without shaping.
RATES = {"ddp": 0.3, "fp16": 0.3, "powersgd(1)": 0.3, "powersgd(4)": 0.3}


def measure(task: str, exchange: str, workers: int, mbit: float | None, steps: int, limit: float) -> dict[str, Any]:
    """One row: the exchange over links of so many Mbit/s; {"failed": why} where it did not end within `limit` s."""
    arguments = [task, exchange, "--steps", str(steps), "--lr", str(RATES.get(exchange, 0.1))]
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["wide", "digits"], default="wide")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--mbit", type=float, action="append", help="0 for unshaped; may be repeated")
    parser.add_argument("--exchange", action="append")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--limit", type=float, default=180)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for mbit in options.mbit or [10, 100, 1000, 0]:
        for exchange in options.exchange or EXCHANGES:
            steps = options.steps or (400 if options.task == "digits" else 3 if mbit == 10 else 10)
            found = measure(options.task, exchange, options.workers, mbit or None, steps, options.limit)
            rows.append({"mbit": mbit or None, "exchange": exchange, **found})
            print(json.dumps(rows[-1]), flush=True)
    if options.out:
        command = "python " + " ".join(sys.argv)
        report = {"command": command, "task": options.task, "workers": options.workers, **provenance(), "rows": rows}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
