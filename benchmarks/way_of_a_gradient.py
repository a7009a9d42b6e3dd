"""The way of a gradient through DDP's hook: the Python calls of a step, and the files that they are in, in order.

    python benchmarks/way_of_a_gradient.py identity "mlmc(stopk(s=0.01, values=sign))"

One gloo rank, a model of two layers in one bucket, the fourth step: everything is compiled and warm. Printed for each
compressor: how many calls of how many functions in how many files, how often the next call is in another file, and a
table of the files with what each is about, the first sentence of its docstring.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import tempfile
import threading
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import telegrad as tg

SOURCE = Path(tg.__file__).parent


class Tracer:
    """Notes calls of functions of telegrad while `on`: the file and the function's name."""

    def __init__(self) -> None:
        self.on, self.calls = False, list[tuple[str, str]]()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if self.on and event == "call" and name.startswith(f"{SOURCE}{os.sep}"):
            self.calls.append((Path(name).relative_to(SOURCE).as_posix(), frame.f_code.co_qualname))


def calls(spec: str) -> list[tuple[str, str]]:
    """Of the fourth step with the compressor or method."""
    tracer = Tracer()
    model = DistributedDataParallel(nn.Sequential(nn.Linear(200, 50), nn.Tanh(), nn.Linear(50, 10)))
    threading.setprofile(tracer)  # for the thread of the exchange, too
    try:
        with tg.ddp.register(model, spec):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for step in range(4):
                optimizer.zero_grad()
                loss = model(torch.randn(16, 200)).square().mean()
                if step == 3:
                    tracer.on = True
                    sys.setprofile(tracer)
                loss.backward()
                optimizer.step()
            sys.setprofile(None)
            tracer.on = False
    finally:
        threading.setprofile(None)
    return tracer.calls


def about(file: str) -> str:
    """The first sentence of the module's docstring."""
    text = ast.get_docstring(ast.parse((SOURCE / file).read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").split(". ")[0].rstrip(".")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specs", nargs="+", metavar="SPEC")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        for spec in options.specs:
            found = calls(spec)
            files = [file for file, _ in found]
            changes = sum(one != other for one, other in pairwise(files))
            print(
                f"{spec}: {len(found)} calls of {len(set(found))} functions in {len(set(files))} files, "
                f"{changes} changes of file\n"
            )
            print("| file | calls | about |\n|---|---:|---|")
            for file in dict.fromkeys(files):
                print(f"| `{file}` | {files.count(file)} | {about(file)} |")
            print()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
