"""Two checkouts of telegrad side by side in one run: what `telegrad bench encode` and `decode` time, as ratios.

    python benchmarks/versions.py --before ../before/src --part encode --size 1e4 1e6 25e6 --json versions.json

A process for each checkout holds the same tensor; the two take turns, call by call, so that what else the machine does
strikes both alike. `ratio` is the median over the turns of the time before over the time now: above 1, this checkout is
quicker. `before` and `now` are the medians in microseconds. Run it when nothing else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
SPECS = (
    "mlmc(stopk(s=0.01, values=sign))",
    "mlmc(stopk(s=0.01))",
    "importance(k=0.01)",
    "topk(k=0.01)",
    "randk(k=0.01)",
    "mlmc(fixed_point)",
    "eden(bits=1)",
    "qsgd(levels=20, bucket=512)",
    "ecdq(bits=2)",
    "identity",
)
SECONDS = {10_000: 0.02, 1_000_000: 0.05}

# What both processes run: it uses only what both checkouts have.
WORKER = """
import sys, time, json, warnings
warnings.simplefilter("ignore")
import torch
import telegrad as tg
from telegrad.wire.code import add_codes
torch.set_num_threads(int(sys.argv[1]))
for line in sys.stdin:
    order = json.loads(line)
    if "spec" in order:
        size = order["size"]
        z = torch.randn(size, generator=torch.Generator().manual_seed(size))
        x = z if order["vector"] == "gauss" else z.pow(5)
        out, compressor, turn = torch.zeros_like(x), tg.compressor(order["spec"]), iter(range(1 << 62))
        key = lambda: tg.Key().fold(step=next(turn), rank=0)
        if order["part"] == "encode":
            call = lambda: tg.pack(compressor.encode(x, key()))
        else:
            data = [tg.pack(compressor.encode(x, key())) for _ in range(8)]
            one = lambda: tg.unpack(data[next(turn) % 8]).add_to(out)
            all_of_them = lambda: add_codes([tg.unpack(one) for one in data], out, 1 / 8)
            call = one if order["part"] == "decode" else all_of_them
        call()
        print(0.0, flush=True)
        continue
    count, spent = 0, 0.0
    while spent < order["seconds"]:
        began = time.perf_counter()
        call()
        spent += time.perf_counter() - began
        count += 1
    print(spent / count, flush=True)
"""


class Checkout:
    """A process that times calls of one checkout."""

    def __init__(self, source: Path, threads: int) -> None:
        command, places = [sys.executable, "-c", WORKER, str(threads)], {**os.environ, "PYTHONPATH": str(source)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=places, cwd=source
        )

    def ask(self, **order: object) -> float:
        """Have it do what the order says, and wait for the seconds that it took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, required=True, help="the src folder of the other checkout")
    parser.add_argument("--part", choices=["encode", "decode", "eight"], nargs="+", default=["encode", "decode"])
    parser.add_argument("--size", type=float, nargs="+", default=[1e4, 1e6, 25e6])
    parser.add_argument("--vector", choices=["gauss", "heavy"], default="gauss")
    parser.add_argument("--spec", nargs="+", default=SPECS)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    before, now = (Checkout(source.resolve(), given.threads) for source in (given.before, ROOT / "src"))
    rows = []
    for part in given.part:
        for size in map(int, given.size):
            for spec in given.spec:
                for checkout in (before, now):
                    checkout.ask(part=part, size=size, vector=given.vector, spec=spec)
                seconds = SECONDS.get(size, 0.0)
                pairs = [
                    tuple(checkout.ask(seconds=seconds) for checkout in ((before, now), (now, before))[turn % 2])
                    for turn in range(given.turns)
                ]
                pairs = [pair[:: 1 - 2 * (turn % 2)] for turn, pair in enumerate(pairs)]
                ratio = statistics.median(old / new for old, new in pairs)
                old, new = (statistics.median(one) * 1e6 for one in zip(*pairs, strict=True))
                rows.append({"part": part, "size": size, "spec": spec, "before": old, "now": new, "ratio": ratio})
                print(f"{part:7}{size:>11,} {spec:36}{old:12.1f}{new:12.1f} us {ratio:7.2f}", flush=True)
    if given.json:
        about = {"vector": given.vector, "threads": given.threads, "turns": given.turns}
        given.json.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
