"""All methods on logistic regression: their theorems' bounds, and the squared gradient norm against what it cost.

    python benchmarks/methods bounds --data FOLDER --out benchmarks/results/methods-bounds.json
    python benchmarks/methods compare --data FOLDER --out benchmarks/results/methods.json
    python benchmarks/methods figure benchmarks/results/methods.json --dataset a9a --workers 10 --out FILE.png

`bounds`: at theory's steps, what was measured beside the bound of its theorem, on a9a, w8a, mushrooms and phishing,
with the l2 and with the nonconvex regulariser, 10 and 100 workers, data split at random and sorted by label; the exit
status is 1 where a bound does not hold. `compare`: every method at theory's step times 1, 8, 64, 512, 4096 (as long as
that helps), data sorted by label; where theory gives no step, 0.01/L stands in its place. All gradients are full.
`figure`: one problem drawn, the tables of all printed.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from bounds import bounds_of
from case import DATASETS, REGULARISERS, SPLITS, Case
from compare import COMPARED, compared

from telegrad.lab.runner import provenance


def to_text(head: dict[str, Any], rows: list[dict[str, Any]]) -> str:
    """JSON, a row a line, with six digits a number."""
    short = json.loads(json.dumps(rows), parse_float=lambda text: float(f"{float(text):.6g}"))
    lines = ",\n ".join(json.dumps(row, ensure_ascii=False) for row in short)
    return f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n {lines}\n]}}\n'


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["bounds", "compare", "figure"])
    parser.add_argument("results", type=Path, nargs="*", help="of compare: what the figure shows")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--dataset", action="append", choices=DATASETS)
    parser.add_argument("--workers", type=int, action="append")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    if options.what == "figure":
        from figure import draw, tables

        found = [row for file in options.results for row in json.loads(file.read_text(encoding="utf-8"))["rows"]]
        draw(found, (options.dataset or ["a9a"])[0], (options.workers or [10])[0], options.out)
        return print(tables(found))
    began, rows = time.time(), []
    datasets, counts = options.dataset or DATASETS, options.workers or [10, 100]

    def save(found: list[dict[str, Any]]) -> None:
        rows.extend(found)
        shown = {name: value for name, value in found[-1].items() if name != "curve"}
        print(f"{time.time() - began:.0f} s: {shown}", flush=True)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        command = ("python " + " ".join(sys.argv)).replace(str(options.data), "FOLDER")
        options.out.write_text(to_text({"command": command, **provenance()}, rows), encoding="utf-8")

    with ProcessPoolExecutor(options.processes) as pool:
        if options.what == "bounds":
            cases = [
                Case(dataset, regulariser, workers, split, options.data)
                for dataset in datasets
                for regulariser in REGULARISERS
                for workers in counts
                for split in SPLITS
            ]
            for found in pool.map(bounds_of, cases, [options.steps] * len(cases)):
                save(found)
        else:
            jobs = [
                (Case(dataset, "l2", workers, "sorted", options.data), name)
                for workers in counts
                for dataset in datasets
                for name in COMPARED
            ]
            for row in pool.map(compared, *zip(*jobs, strict=True), [options.steps] * len(jobs)):
                save([row])
    broken = [row for row in rows if "bound" in row and not row["measured"] <= row["bound"]]
    for row in broken:
        print("above its bound:", row)
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
