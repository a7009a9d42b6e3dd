"""DDP and outer loops over slow links, measured: time a step and bytes sent, and both to an accuracy or a loss.

    python benchmarks/network/run.py --out benchmarks/results/network.json
    python benchmarks/network/run.py --task digits --out benchmarks/results/network-digits.json
    python benchmarks/network/run.py --task digits --outer --mbit 10 --mbit 100 --out benchmarks/results/outer.json
    python benchmarks/network/run.py --task text --outer --mbit 10 --mbit 100 --data FOLDER --out …/outer-text.json

`--add` keeps those rows of the file `--out` that are not measured anew: so links and exchanges can be measured one at
a time. With `--least`, too, of two measurements of a step the shorter stays: other work on a machine makes steps only
longer. `--tuned` takes the learning rates and numbers of steps from an earlier report, and measures time and bytes
anew; `--only-tune` finds them, and no more.

Four workers in network namespaces of this machine, each link shaped by `tc tbf` (root needed; everything is removed
afterwards). Workers share the machine's cores, so compute is slower here than on machines of their own: compare rows of
one table with each other.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from links import alone, network

from telegrad.lab.runner import provenance

WORKER = Path(__file__).parent / "worker.py"
AUTO = "auto"
EXCHANGES = [
    "none",
    "ddp",
    AUTO,
    "fp16",
    "powersgd(1)",
    "powersgd(4)",
    "mlmc(stopk(s=0.01, values=sign))",
    "importance(k=0.01)",
    "importance(k=0.1)",
    "mlmc(stopk(s=0.01, values=sign))@two_phase",
    "eden(bits=1)",
    "eden(bits=1, coder=trellis)",
    "head_tail(bits=0.5)",
    "head_tail(bits=0.5, coder=trellis)",
]
ROUND = 30  # inner steps
SHARE = 0.01  # of the entries, what sparse messages of the rows of --outer hold
RATES = {"digits": (0.1, 0.3), "text": (0.003, 0.01)}
Tuned = tuple[float | None, float | None]
TARGETS = {"digits": "accuracy=0.95", "text": "loss=2.3"}


def outer_rows() -> list[str]:
    """The rows of --outer: outer loops beside what exchanges in every step."""
    each_step = [f"mlmc(stopk(s={SHARE}, values=sign))", f"importance(k={SHARE})", f"ef21_sgdm(topk(k={SHARE}))"]
    ours = [f"mlmc(stopk(s={SHARE}))", f"mlmc(stopk(s={SHARE}, values=sign))", "eden(bits=1)", "head_tail(bits=0.5)"]
    presets = [f"outer:{preset}(every={ROUND})" for preset in ("diloco", "sparseloco")]
    return ["ddp", *each_step, *presets, *(f"outer:outer({compressor}, every={ROUND})" for compressor in ours)]


def measure(options: argparse.Namespace, mbit: float | None, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What worker.py finds for each job over links of so many Mbit/s; {"failed": why} from the one on that did not
    end within `limit` s, all together.
    """
    told = [options.task, json.dumps(jobs), "--bucket-mb", str(options.bucket_mb)]
    told += ["--data", str(options.data)] if options.data else []
    with network(options.workers, mbit) as links:
        started = links.start(WORKER, told)
        late = threading.Timer(options.limit, lambda: [process.kill() for process in started])
        late.start()
        try:
            found = [json.loads(line) for line in started[0].stdout or ()]
            code = started[0].wait()
        finally:
            on_time = late.is_alive()
            late.cancel()
            for process in started:
                process.kill()
                process.wait()
    why = f"exit code {code}" if on_time else f"no end within {options.limit:.0f} s"
    return [*found, *({"failed": why} for _ in jobs[len(found) :])]


def wide(options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """Time a step and bytes sent of the 11.5 million parameter network, the rows of a link at a time."""
    for mbit in options.mbit or [0, 1000, 100, 10]:
        exchanges = options.exchange or EXCHANGES
        jobs = [wide_job(exchange, mbit, options) for exchange in exchanges] * options.repeat
        found, rows = measure(options, mbit or None, jobs), []
        for place, exchange in enumerate(exchanges):
            rounds = found[place :: len(exchanges)]
            row = {"mbit": mbit or None, "exchange": exchange, "bucket_mb": options.bucket_mb, **rounds[-1]}
            if options.repeat > 1 and all("seconds_a_step" in one for one in rounds):
                row["rounds"] = [one["seconds_a_step"] for one in rounds]
                row["seconds_a_step"] = statistics.median(row["rounds"])
            rows.append(row)
        yield rows


def wide_job(exchange: str, mbit: float, options: argparse.Namespace) -> dict[str, Any]:
    """At 10 Mbit/s plain DDP takes a minute a step."""
    dense = exchange in ("ddp", "fp16")
    steps = (1 if mbit == 10 else 4 if mbit == 100 else 10) if dense else 4 if mbit == 10 else 10
    warm = 0 if dense and mbit == 10 else 1 if mbit in (10, 100) else 3
    job = {"exchange": exchange, "steps": options.steps or steps, "warm": warm}
    return job | ({"against": options.against} if options.against else {})


def training(options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """Time and bytes to the target of a task, the rows of a link at a time.

    How many steps that takes does not depend on the links, so it is found once for each of some learning rates over
    unshaped links; the fewest count. Then the time of a step over each kind of link is measured. What `auto` chooses
    depends on the link: it trains to the target over each, with the learning rate of DDP.
    """
    every_row = outer_rows() if options.outer else [name for name in EXCHANGES if name != "none"]
    exchanges = options.exchange or every_row
    tuned = steps_to_target(list(dict.fromkeys("ddp" if name == AUTO else name for name in exchanges)), options)
    tuned[AUTO] = tuned.get("ddp", (None, None))[0], None
    for mbit in options.mbit if options.mbit is not None else [10, 100, 1000, 0]:
        jobs, names = [], []
        for exchange in exchanges:
            for job in timed(exchange, mbit, tuned[exchange][0], options):
                jobs.append(job)
                names.append(exchange)
        found, rows = measure(options, mbit or None, jobs), []
        for exchange in exchanges:
            own = [one for name, one in zip(names, found, strict=True) if name == exchange]
            rows.append(to_target(exchange, mbit or None, tuned[exchange], own, options))
        yield rows


def tuning(options: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    """Learning rates and steps to the target, no more."""
    exchanges = options.exchange or [name for name in EXCHANGES if name not in ("none", AUTO)]
    found = steps_to_target(exchanges, options)
    yield [{"mbit": None, "exchange": name, "lr": one[0], "steps_to_target": one[1]} for name, one in found.items()]


def timed(exchange: str, mbit: float, rate: float | None, options: argparse.Namespace) -> list[dict[str, Any]]:
    """The jobs that time the exchange: one that loads loops, and one that counts; for `auto` one with each seed."""
    if rate is None:
        return []
    if exchange == AUTO:
        whole = {"exchange": exchange, "steps": options.most, "lr": rate, "target": options.target}
        return [{**whole, "seed": seed} for seed in (0, *range(options.seeds))]
    # Of outer loops the first round, in which loops are loaded, and one more: a step has its share of it.
    first = ROUND if exchange.startswith("outer:") else 3
    dense = exchange in ("ddp", "fp16")
    steps = options.steps or (2 * ROUND if first == ROUND else 6 if mbit == 10 and dense else 12 if mbit == 10 else 30)
    job = {"exchange": exchange, "steps": steps, "lr": rate, "first": first}
    return [job] if first == ROUND else [{**job, "steps": 4}, job]


def to_target(
    exchange: str,
    mbit: float | None,
    tuned: Tuned,
    found: list[dict[str, Any]],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """The row of an exchange. `seconds_of_loading`: how much longer the first steps took when code was loaded."""
    rate, reached = tuned
    row: dict[str, Any] = {"mbit": mbit, "exchange": exchange, "lr": rate, "steps_to_target": reached}
    failed = [one for one in found if "failed" in one]
    if failed or not found:
        return row | (failed[0] if failed else {})
    row |= found[-1]
    row["seconds_of_loading"] = max(0.0, found[0]["seconds_of_first"] - found[-1]["seconds_of_first"])
    if exchange == AUTO:
        runs = found[1:]
        if any(one["steps_to_target"] is None for one in runs):
            return row
        row["steps_to_target"] = statistics.mean(one["steps_to_target"] for one in runs)
        row["seconds_of_first"] = statistics.mean(one["seconds_of_first"] for one in runs)
        row["seconds_to_target"] = statistics.mean(one["seconds"] for one in runs)
        return row | {"runs": [{name: one[name] for name in ("steps_to_target", "seconds", "choice")} for one in runs]}
    first = ROUND if exchange.startswith("outer:") else 3
    row["steps_to_target"] = reached
    row["seconds_to_target"] = row["seconds_of_first"] + row["seconds_a_step"] * (reached - first)
    row["interface_bytes_to_target"] = round(row["interface_bytes_a_step"] * reached)
    return row


def steps_to_target(exchanges: list[str], options: argparse.Namespace) -> dict[str, Tuned]:
    """The learning rate that reaches the target first, and after how many steps, the mean over seeds; None where none
    does.
    """
    if options.tuned:
        known = {row["exchange"]: row for row in json.loads(options.tuned.read_text(encoding="utf-8"))["rows"]}
        return {name: (known[name]["lr"], known[name]["steps_to_target"]) for name in exchanges}
    rates = options.rate or RATES[options.task]
    runs = [(name, rate, seed) for name in exchanges for rate in rates for seed in range(options.seeds)]
    jobs = [
        {"exchange": name, "steps": options.most, "lr": rate, "seed": seed, "target": options.target}
        for name, rate, seed in runs
    ]
    found = measure(options, None, jobs)
    tuned: dict[str, Tuned] = dict.fromkeys(exchanges, (None, None))
    for name in exchanges:
        for rate in rates:
            own = [one.get("steps_to_target") for one, run in zip(found, runs, strict=True) if run[:2] == (name, rate)]
            best = tuned[name][1]
            if all(own) and (best is None or statistics.mean(own) < best):
                tuned[name] = rate, statistics.mean(own)
    return tuned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=["wide", *RATES], default="wide")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--mbit", type=float, action="append", help="0 for unshaped; may be repeated")
    parser.add_argument("--exchange", action="append", help="may be repeated")
    parser.add_argument("--outer", action="store_true", help="compare outer loops; with --task digits or text")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument(
        "--repeat", type=int, default=1, help="rounds over all exchanges of a link, of the wide network"
    )
    parser.add_argument("--against", help="an exchange whose steps alternate with those of the others: their ratio")
    parser.add_argument("--seeds", type=int, default=3, help="runs to the target")
    parser.add_argument("--rate", type=float, action="append", help="a learning rate to try; may be repeated")
    parser.add_argument("--most", type=int, default=600, help="steps within which the target is to be reached")
    parser.add_argument("--bucket-mb", type=float, default=100)
    parser.add_argument("--limit", type=float, default=900, help="seconds for the exchanges over one link")
    parser.add_argument("--target", help="accuracy=… or loss=… on validation data")
    parser.add_argument("--data", type=Path, help="the folder of the text")
    parser.add_argument("--only-tune", action="store_true", help="find learning rates and steps to the target, no more")
    parser.add_argument("--tuned", type=Path, help="take learning rates and steps to the target from this report")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--add", action="store_true", help="keep the rows of --out that are not measured anew")
    parser.add_argument("--least", action="store_true", help="with --add: the shorter step of those measured")
    options = parser.parse_args()
    options.target = options.target or TARGETS.get(options.task)
    task = tuning if options.only_tune else wide if options.task == "wide" else training
    with alone():
        for number, rows in enumerate(task(options)):
            for row in rows:
                print(json.dumps(row), flush=True)
            if options.out:
                write(options, rows, options.add or number > 0, number == 0)


def write(options: argparse.Namespace, rows: list[dict[str, Any]], add: bool, first: bool) -> None:
    """The report after the rows of a link: what is measured stays, whatever ends the program later. `add`: together
    with what it held; `first`: of this program.
    """
    command = ("python " + " ".join(sys.argv)).replace(str(options.data), "FOLDER")
    commands = [command]
    if add and options.out.exists():
        before = json.loads(options.out.read_text(encoding="utf-8"))
        known = {(row["mbit"], row["exchange"]): row for row in before["rows"]}
        for row in rows:
            place = row["mbit"], row["exchange"]
            old = known.get(place, {}).get("seconds_a_step", math.inf)
            if not (options.least and old < row.get("seconds_a_step", math.inf)):
                known[place] = row
        rows = list(known.values())
        commands = [*before["commands"], command] if first else before["commands"]
    report = {"commands": commands, "task": options.task, "workers": options.workers, "target": options.target}
    report |= {**provenance(), "rows": rows}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
