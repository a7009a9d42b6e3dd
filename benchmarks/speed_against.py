"""How fast encoding or decoding is beside another version of telegrad, in one process: docs/measurements/speed.md.

    git worktree add ../older COMMIT
    python benchmarks/speed_against.py decode --against ../older --sizes 1e3 1e4 1e5

Both versions are loaded, and take turns: one call or a few of either, in changing order, repetition by repetition.
A cell's ratio is the median over the repetitions of this version's time over the other's. Decoding means unpacking
and adding into a dense vector; both decode the messages that the older version makes. `--warm` runs every call once, so
that no loop is compiled during a measurement. Cells above `--most` are told, and measured `--again` times more: the
ratio is then the median over these rounds.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

LEAST_SECONDS = 2e-3
"""Of one timing: short calls are repeated within it."""


class Version:
    """The telegrad below a folder, beside others in one process."""

    def __init__(self, source: Path) -> None:
        if not (source / "telegrad").is_dir():
            sys.exit(f"{source} holds no telegrad: name a folder with src/telegrad in it")
        self.source, self.modules = source, dict[str, Any]()
        with self.active():
            self.tg: Any = importlib.import_module("telegrad")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Within this, `import telegrad` finds this version: some modules are imported at their first use."""
        sys.modules.update(self.modules)
        sys.path.insert(0, str(self.source))
        try:
            yield
        finally:
            sys.path.remove(str(self.source))
            own = [name for name in sys.modules if name.split(".")[0] == "telegrad"]
            self.modules = {name: sys.modules.pop(name) for name in own}

    def encode(self, spec: str, x: torch.Tensor) -> Callable[[], Any]:
        """A call that encodes x to a packed message, with a key of its own each time."""
        compressor, key, steps = self.tg.compressor(spec), self.tg.Key(), iter(range(1 << 62))
        return lambda: self.tg.pack(compressor.encode(x, key.fold(step=next(steps), rank=0)))

    def decode(self, messages: Sequence[bytes], out: torch.Tensor) -> Callable[[], Any]:
        """A call that decodes the next of the messages and adds it."""
        turns = iter(range(1 << 62))
        return lambda: self.tg.unpack(messages[next(turns) % len(messages)]).add_to(out)


def calls(part: str, spec: str, size: int, now: Version, older: Version) -> list[Callable[[], Any]]:
    """What takes turns: this version's call, and the older one's."""
    x = torch.randn(size, generator=torch.Generator().manual_seed(size))
    with older.active():
        encode = older.encode(spec, x)
        messages = [encode() for _ in range(8)] if part == "decode" else []
    both = []
    for version in (now, older):
        with version.active():
            both.append(version.encode(spec, x) if part == "encode" else version.decode(messages, torch.zeros(size)))
            both[-1]()
    return both


def ratio(both: Sequence[Callable[[], Any]], versions: Sequence[Version], repeats: int) -> tuple[float, float, float]:
    """The median ratio of the times of the two calls, and either's least seconds."""
    counts = []
    for call, version in zip(both, versions, strict=True):
        with version.active():
            call()
            counts.append(max(1, round(LEAST_SECONDS / seconds(call, 3))))
    count, times = max(counts), [list[float](), list[float]()]
    for repeat in range(repeats):
        for which in (0, 1) if repeat % 2 else (1, 0):
            with versions[which].active():
                both[which]()
                times[which].append(seconds(both[which], count))
    return statistics.median(a / b for a, b in zip(*times, strict=True)), min(times[0]), min(times[1])


def seconds(call: Callable[[], Any], count: int) -> float:
    """The mean time of `count` calls."""
    began = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - began) / count


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("part", choices=("encode", "decode"))
    parser.add_argument("specs", nargs="*", help="compressors; the whole catalogue where none is given")
    parser.add_argument("--against", type=Path, required=True, help="a checkout of the other version")
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e3, 1e4, 1e5])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--most", type=float, default=1.03)
    parser.add_argument("--again", type=int, default=4)
    parser.add_argument("--warm", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, help="write the rows as JSON")
    arguments = parser.parse_args()
    now, older = Version(Path(__file__).parents[1] / "src"), Version(arguments.against / "src")
    versions, rows = (now, older), []
    with older.active():
        known = importlib.import_module("telegrad.lab.bench").whole_catalogue()
    for spec in arguments.specs or known:
        for size in map(int, arguments.sizes):
            try:
                both = calls(arguments.part, spec, size, now, older)
            except Exception as error:  # a version may not know it, or not at this size
                print(f"{spec} at {size:,}: {type(error).__name__}: {str(error).splitlines()[0]}", flush=True)
                continue
            if arguments.warm:
                continue
            found, mine, theirs = ratio(both, versions, arguments.repeats)
            if found > arguments.most and arguments.again:
                found = statistics.median(ratio(both, versions, arguments.repeats)[0] for _ in range(arguments.again))
            rows.append({"spec": spec, "size": size, "ratio": found, "seconds": mine, "older": theirs})
            mark = " <--" if found > arguments.most else ""
            print(f"{spec:48} {size:9,} {theirs * 1e6:10.1f} {mine * 1e6:10.1f} us {found:6.3f}{mark}", flush=True)
    if rows:
        ratios = [row["ratio"] for row in rows]
        mean, above = math.exp(statistics.fmean(map(math.log, ratios))), sum(one > arguments.most for one in ratios)
        print(
            f"{len(rows)} cells, geometric mean {mean:.3f}, largest {max(ratios):.3f}, {above} above {arguments.most}"
        )
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
