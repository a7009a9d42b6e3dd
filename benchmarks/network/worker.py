"""One worker of the network benchmark: trains by DDP with the exchanges it is told, one after the other, or by itself
with outer loops, and times its steps.
"""

# Annotations must be real types here: DDP looks at those of its hooks.

import argparse
import contextlib
import gc
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
OUTER = "outer:"
MOST_TRIALS = 80  # steps within which `auto` is to have chosen, before steps are timed
AnyHandle = telegrad.ddp.Handle | telegrad.outer.Handle | None


@dataclass(frozen=True)
class Job:
    """An exchange to time. `steps` are timed after `warm` ones, or are the most that training to a target may take;
    then the `first` are timed apart: loops are loaded in them, and PowerSGD's hook sends two steps uncompressed.
    `against`: another exchange, whose steps alternate with those that are timed.
    """

    exchange: str
    steps: int = 10
    warm: int = 3
    first: int = 3
    lr: float = 0.1
    seed: int = 0
    target: str | None = None
    against: str | None = None


def network(name: str, task: Task | None = None) -> nn.Module:
    """`wide`: 11.55 million parameters in four layers, quick to compute and slow to send. `digits`: 0.55 million, for
    images. `text`: a transformer of 0.11 million.
    """
    if name == "text":
        assert task is not None
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


def exchange(
    model: nn.Module, optimizer: torch.optim.Optimizer, name: str, seed: int, trains: bool = True
) -> AnyHandle:
    """Register what the benchmark calls `name`: ddp, fp16, powersgd(1), none, a telegrad spec, or outer:SPEC."""
    if name.startswith(OUTER):
        return telegrad.outer.register(model, optimizer, name.removeprefix(OUTER), seed=seed)
    if name == "ddp":
        return None
    if name == "none":

        def local(_: None, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:
            future: torch.futures.Future[torch.Tensor] = torch.futures.Future()
            future.set_result(bucket.buffer())
            return future

        model.register_comm_hook(None, local)
    elif name == "fp16":  # that for bfloat16 wants NCCL
        model.register_comm_hook(dist.group.WORLD, default_hooks.fp16_compress_hook)
    elif name.startswith("powersgd("):
        rank = int(name[len("powersgd(") : -1])
        state = powerSGD_hook.PowerSGDState(dist.group.WORLD, matrix_approximation_rank=rank, start_powerSGD_iter=2)
        state.iter = 0 if trains else 2  # its first two steps are uncompressed, which is not what is timed
        model.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    else:
        spec, _, topology = name.partition("@")
        return telegrad.ddp.register(model, spec, topology=topology or "allgather", seed=seed)
    return None


def sent(what: str = "bytes") -> int:
    """Bytes, or packets, that the kernel counts as sent by this worker's interface."""
    return int((COUNTERS / f"tx_{what}").read_text())


def latency(rounds: int = 20) -> float:
    """Seconds of an all-to-all of next to nothing, all ranks at once: the median of those of this rank."""
    mine, seconds = torch.zeros(dist.get_world_size()), []
    for _ in range(rounds):
        began = time.perf_counter()
        dist.all_to_all_single(torch.empty_like(mine), mine)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


class Stepper:
    """The wide network with an exchange, which makes one step after the other."""

    def __init__(self, name: str, seed: int, bucket_mb: float) -> None:
        generator = torch.Generator().manual_seed(dist.get_rank())
        self.inputs = torch.randn(16, 1024, generator=generator)
        self.targets = torch.randn(16, 512, generator=generator)
        self.model = wrapped(network("wide"), bucket_mb)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)
        self.handle = exchange(self.model, self.optimizer, name, seed, trains=False)

    def seconds(self) -> float:
        """Of a step."""
        began = time.perf_counter()
        self.optimizer.zero_grad()
        nn.functional.mse_loss(self.model(self.inputs), self.targets).backward()
        self.optimizer.step()
        return time.perf_counter() - began


def time_steps(job: Job, bucket_mb: float) -> dict[str, Any]:
    """The time of a step of the wide network, and what it sends; and its ratio to that of another exchange: the median
    over pairs of steps, one right after the other, so that whatever else the machine does disturbs both alike.
    """
    stepper, rank = Stepper(job.exchange, job.seed, bucket_mb), dist.get_rank()
    handle = stepper.handle
    before = [stepper.seconds() for _ in range(job.warm)]
    while "choice" in dir(handle) and not handle.choice.settled and len(before) < MOST_TRIALS:
        before.append(stepper.seconds())
    dist.barrier()
    packets = sent("packets")
    bytes_before, booked = sent(), handle.ledger.sent[rank] if handle else 0
    seconds = [stepper.seconds() for _ in range(job.steps)]
    measured: dict[str, Any] = {
        "seconds_a_step": statistics.median(seconds),
        "slowest_step": max(seconds),
        "first_step": before[0] if before else None,
        "seconds_before": sum(before),
        "latency": latency(),
        "interface_bytes_a_step": (sent() - bytes_before) / job.steps,
        "interface_packets_a_step": (sent("packets") - packets) / job.steps,
    }
    if handle is not None:
        ledger = (handle.ledger.sent[rank] - booked) / 8 / job.steps
        expected = ledger + HEADER_NBYTES * measured["interface_packets_a_step"]
        measured["ledger_bytes_a_step"] = ledger
        measured["interface_over_ledger_and_headers"] = measured["interface_bytes_a_step"] / expected
    if job.against:
        other = Stepper(job.against, job.seed, bucket_mb)
        for _ in range(job.warm):
            other.seconds()
        pairs = [(stepper.seconds(), other.seconds()) for _ in range(job.steps)]
        ratios = [own / its for own, its in pairs]
        measured |= {"against": job.against, "ratio": statistics.median(ratios)}
        measured["ratio_quartiles"] = statistics.quantiles(ratios, n=4)[::2]
        measured["seconds_beside"], measured["seconds_against"] = (
            statistics.median(own) for own in zip(*pairs, strict=True)
        )
    return {**measured, "parameters": entries(stepper.model), **chosen(handle)}


def wrapped(model: nn.Module, bucket_mb: float) -> nn.Module:
    """In one bucket, unless told otherwise: PyTorch's PowerSGD hook stood still with several on gloo. All ranks start
    alike from one seed; sending the parameters would take minutes over the slowest links.
    """
    return DistributedDataParallel(model, bucket_cap_mb=bucket_mb, init_sync=False)


def entries(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def chosen(handle: AnyHandle) -> dict[str, Any]:
    """End the exchange; what `auto` chose, and why."""
    if handle is not None:
        handle.remove()
    choice = getattr(handle, "choice", None)
    if choice is None:
        return {}
    options = [[str(one.way), one.seconds, one.factor, one.measured] for one in choice.options]
    return {"choice": str(choice.way), "settled": choice.settled, "reason": choice.reason, "options": options}


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


def time_to_target(name: str, task: Task, job: Job, bucket_mb: float) -> dict[str, Any]:
    """Train for `job.steps`, or until the target is reached, at which is looked every fifth step."""
    model = network(name, task)
    if not job.exchange.startswith(OUTER):
        model = wrapped(model, bucket_mb)
    kind = torch.optim.AdamW if name == "text" else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=job.lr)
    handle = exchange(model, optimizer, job.exchange, job.seed)
    rank, world = dist.get_rank(), dist.get_world_size()
    outer = isinstance(handle, telegrad.outer.Handle)
    target = Target.read(job.target) if job.target else None
    rows = torch.arange(len(task.train))[rank::world]
    generator = torch.Generator().manual_seed(rank + world * job.seed)
    seconds: list[float] = []
    reached = None
    bytes_before = 0
    for step in range(1, job.steps + 1):
        if step == job.first + 1:
            bytes_before = sent()
        picked = rows[torch.randint(len(rows), (16,), generator=generator)]
        began = time.perf_counter()
        optimizer.zero_grad()
        task.loss(model, task.train.inputs[picked], task.train.targets[picked]).backward()
        optimizer.step()
        seconds.append(time.perf_counter() - began)
        if target is not None and step % 5 == 0:
            with handle.at_global_parameters() if outer else contextlib.nullcontext():
                if target.is_reached(task, model if outer else model.module):
                    reached = step
                    break
    return {
        "steps_to_target": reached,
        "seconds": sum(seconds),
        "seconds_of_first": sum(seconds[: job.first]),
        "seconds_a_step": typical(seconds[job.first :], handle),
        "interface_bytes_a_step": (sent() - bytes_before) / len(seconds[job.first :]),
        "parameters": entries(model),
        **chosen(handle),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", choices=["wide", *WORKLOADS])
    parser.add_argument("jobs", type=json.loads, help="a JSON list of jobs")
    parser.add_argument("--bucket-mb", type=float, default=100, help="DDP's bucket_cap_mb")
    parser.add_argument("--data", type=Path, help="the folder of the text")
    options = parser.parse_args()
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    task = build(WORKLOADS[options.task], "workload").load(options.data, Key()) if options.task in WORKLOADS else None
    for job in options.jobs:
        told = Job(**job)
        if task is None:
            found = time_steps(told, options.bucket_mb)
        else:
            found = time_to_target(options.task, task, told, options.bucket_mb)
        gc.collect()
        if dist.get_rank() == 0:
            print(json.dumps(found), flush=True)
        dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
