"""One worker of the network benchmark: trains by DDP with the exchange it is told, or by itself with an outer loop, and
times its steps.
"""

# Annotations must be real types here: DDP looks at those of its hooks.

import argparse
import contextlib
import itertools
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks, powerSGD_hook
from torch.nn.parallel import DistributedDataParallel

import telegrad
from telegrad.random import Key
from telegrad.spec import build
from telegrad.workloads.base import Task

COUNTERS = Path("/sys/class/net/eth0/statistics")
HEADER_NBYTES = 14 + 20 + 32
"""Ethernet, IPv4 and TCP with timestamps: what the interface counts for a packet beyond its load."""


WORKLOADS = {"digits": "digits", "text": "text(layers=2, width=64, held_out_windows=100)"}


def network(name: str, task: Task | None) -> nn.Module:
    """`wide`: 11.55 million parameters in four layers, quick to compute and slow to send. `digits`: 0.55 million, for
    images. `text`: a transformer of 0.11 million.
    """
    if name == "text":
        return task.model(Key())
    torch.manual_seed(0)
    if name == "wide":
        sizes = [1024, 2048, 2048, 2048, 512]
        layers: list[nn.Module] = []
        for inputs, outputs in itertools.pairwise(sizes):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(1024, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip


OUTER = "outer:"
AnyHandle = telegrad.ddp.Handle | telegrad.outer.Handle | None


def exchange(model: nn.Module, optimizer: torch.optim.Optimizer, name: str) -> AnyHandle:
    """Register what the benchmark calls `name`: ddp, fp16, powersgd(1), none, a telegrad spec, or outer:SPEC."""
    if name.startswith(OUTER):
        return telegrad.outer.register(model, optimizer, name.removeprefix(OUTER))
    if name == "ddp":
        return None
    if name == "none":

        def local(_: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
            future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        model.register_comm_hook(None, local)
    elif name == "fp16":
        model.register_comm_hook(dist.group.WORLD, default_hooks.fp16_compress_hook)
    elif name.startswith("powersgd"):
        rank = int(name[len("powersgd(") : -1])
        state = powerSGD_hook.PowerSGDState(dist.group.WORLD, matrix_approximation_rank=rank, start_powerSGD_iter=2)
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    else:
        spec, _, topology = name.partition("@")
        return telegrad.ddp.register(model, spec, topology=topology or "allgather")
    return None


def sent(what: str = "bytes") -> int:
    """Bytes, or packets, that the kernel counts as sent by this worker's interface."""
    return int((COUNTERS / f"tx_{what}").read_text())


def time_steps(
    model: nn.Module, optimizer: torch.optim.Optimizer, handle: AnyHandle, steps: int, warm: int
) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(dist.get_rank())
    inputs = torch.randn(16, 1024, generator=generator)
    targets = torch.randn(16, 512, generator=generator)
    seconds = []
    for step in range(steps + warm):
        if step == warm:
            dist.barrier()
            packets = sent("packets")
            bytes_before, booked = sent(), handle.ledger.sent[dist.get_rank()] if handle else 0
        began = time.perf_counter()
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
    measured: dict[str, Any] = {
        "seconds_a_step": typical(seconds[warm:], handle),
        "slowest_step": max(seconds[warm:]),
        "interface_bytes_a_step": (sent() - bytes_before) / steps,
        "interface_packets_a_step": (sent("packets") - packets) / steps,
    }
    if handle is not None:
        ledger = (handle.ledger.sent[dist.get_rank()] - booked) / 8 / steps
        expected = ledger + HEADER_NBYTES * measured["interface_packets_a_step"]
        measured["ledger_bytes_a_step"] = ledger
        measured["interface_over_ledger_and_headers"] = measured["interface_bytes_a_step"] / expected
    choice = getattr(handle, "choice", None)
    if choice is not None:
        options = [[str(one.way), one.seconds, one.factor, one.measured] for one in choice.options]
        measured |= {"choice": str(choice.way), "settled": choice.settled, "reason": choice.reason, "options": options}
        measured |= {"first_step": seconds[0], "seconds_before": sum(seconds[:warm])}
    return measured


def typical(seconds: list[float], handle: AnyHandle) -> float:
    """The median; the mean for outer loops, whose rounds are rare and long."""
    return (statistics.mean if isinstance(handle, telegrad.outer.Handle) else statistics.median)(seconds)


@dataclass(frozen=True)
class Target:
    """What training is for: `accuracy=0.95`, or `loss=2.3` nats, on the validation split."""

    metric: Literal["accuracy", "loss"]
    value: float

    @classmethod
    def read(cls, text: str) -> "Target":
        metric, _, value = text.partition("=")
        return cls(metric, float(value))

    @torch.no_grad()
    def is_reached(self, task: Task, model: nn.Module) -> bool:
        inputs, targets = task.validation.inputs, task.validation.targets
        if self.metric == "loss":
            return float(task.loss(model, inputs, targets)) <= self.value
        return float((model(inputs).argmax(1) == targets).float().mean()) >= self.value


def time_to_target(
    task: Task,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    handle: AnyHandle,
    target: Target,
    limit: int,
    first: int,
) -> dict[str, float | None]:
    """Train for `limit` steps, or until the target is reached, at which is looked every tenth step. The `first` steps
    are timed apart: loops are loaded in them, and PowerSGD's hook sends two steps uncompressed.
    """
    rank, world = dist.get_rank(), dist.get_world_size()
    outer = isinstance(handle, telegrad.outer.Handle)
    rows = torch.arange(len(task.train))[rank::world]
    generator = torch.Generator().manual_seed(rank)
    seconds: list[float] = []
    reached = None
    bytes_before = 0
    for step in range(1, limit + 1):
        if step == first + 1:
            bytes_before = sent()
        picked = rows[torch.randint(len(rows), (16,), generator=generator)]
        began = time.perf_counter()
        optimizer.zero_grad()
        task.loss(model, task.train.inputs[picked], task.train.targets[picked]).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
        if step % 10 == 0:
            with handle.at_global_parameters() if outer else contextlib.nullcontext():
                if target.is_reached(task, model if outer else model.module):
                    reached = step
                    break
    return {
        "steps_to_target": reached,
        "seconds_of_first": sum(seconds[:first]),
        "seconds_a_step": typical(seconds[first:], handle),
        "interface_bytes_a_step": (sent() - bytes_before) / len(seconds[first:]),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["wide", *WORKLOADS])
    parser.add_argument("exchange")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--warm", type=int, default=3, help="steps before those that are timed")
    parser.add_argument("--first", type=int, default=3, help="steps that are timed apart, of training to a target")
    parser.add_argument("--bucket-mb", type=float, default=100, help="DDP's bucket_cap_mb")
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--target", type=Target.read, default="accuracy=0.95", help="accuracy=… or loss=…")
    parser.add_argument("--data", type=Path, help="the folder of the text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    task = build(WORKLOADS[options.task], "workload").load(options.data, Key()) if options.task in WORKLOADS else None
    model = network(options.task, task)
    if not options.exchange.startswith(OUTER):
        # One bucket, unless told otherwise: PyTorch's PowerSGD hook stood still with several on gloo.
        # All ranks start alike from one seed; sending the parameters would take minutes over the slowest links.
        model = DistributedDataParallel(model, bucket_cap_mb=options.bucket_mb, init_sync=False)
    if options.task == "text":
        optimizer: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), lr=options.lr)
    else:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3 if options.task == "wide" else options.lr)
    handle = exchange(model, optimizer, options.exchange)
    if task is None:
        found: dict[str, Any] = dict(time_steps(model, optimizer, handle, options.steps, options.warm))
    else:
        found = time_to_target(task, model, optimizer, handle, options.target, options.steps, options.first)
    if dist.get_rank() == 0:
        print(json.dumps({"parameters": sum(p.numel() for p in model.parameters()), **found}), flush=True)
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
