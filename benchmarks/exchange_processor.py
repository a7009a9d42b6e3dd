"""What the cost model says of the processor, against processor time measured: docs/measurements/cost-model.md.

    python benchmarks/exchange_processor.py --out benchmarks/results/exchange_processor.json

Workers are processes of this machine that train the network benchmark's 11.54 million parameters by DDP over gloo. What
is measured is the processor time of the thread that exchanges gradients, of the busiest rank, the median of twelve
steps: other work on the machine hardly changes it, as it does the time of a step. The prediction is made of what one
process needs by itself for an encoding, a decoding and a copy, in processor time too. A few minutes on two quiet cores.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn
from torch.nn.parallel import DistributedDataParallel

sys.path.insert(0, str(Path(__file__).parent / "network"))
from worker import network

import telegrad as tg
from telegrad.lab.runner import provenance
from telegrad.theory.cost_model import Cluster, Profile, checked_topology, step_cost
from telegrad.theory.profiles import profile

STEPS, WARM = 12, 4
SPECS = ("mlmc(stopk(s=0.01, values=sign))", "importance(k=0.01)")
ROWS = [(spec, topology, 4) for topology in ("allgather", "two_phase") for spec in SPECS]


def worker(rank: int, workers: int, spec: str, topology: str, port: int, found: Any) -> None:
    """One rank: puts the processor time of its exchange into `found[rank]`."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=workers)
    model = DistributedDataParallel(network("wide"), bucket_cap_mb=100)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    tg.ddp.register(model, spec, topology=topology)
    generator = torch.Generator().manual_seed(rank)
    inputs, targets = torch.randn(16, 1024, generator=generator), torch.randn(16, 512, generator=generator)
    spent = []
    for step in range(WARM + STEPS):
        before = exchange_seconds()
        optimizer.zero_grad()
        nn.functional.mse_loss(model(inputs), targets).backward()
        optimizer.step()
        if step >= WARM:
            spent.append(exchange_seconds() - before)
    found[rank] = statistics.median(spent)
    dist.barrier()
    dist.destroy_process_group()


def exchange_seconds() -> float:
    """Processor time so far of the thread that exchanges gradients."""
    for thread in threading.enumerate():
        if thread.name == "telegrad-exchange" and thread.ident is not None:
            return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return 0.0


def measured(spec: str, topology: str, workers: int, port: int) -> float:
    """Seconds a step of the busiest rank."""
    found = mp.get_context("spawn").Array("d", workers)
    mp.start_processes(worker, (workers, spec, topology, port, found), workers, start_method="spawn")
    return max(found)


def processor_seconds(call: Callable[[], Any], repeats: int = 9, before: Callable[[], Any] = tuple) -> float:
    """The least processor time of `repeats` calls, after one that loads the loops; `before` each something else."""
    spent = []
    for _ in range(repeats + 1):
        before()
        began = time.thread_time()
        call()
        spent.append(time.thread_time() - began)
    return min(spent[1:])


def alone(spec: str, x: torch.Tensor) -> Profile:
    """What the compressor makes of x, with the processor time that one process needs."""
    compressor, key, out = tg.compressor(spec), tg.Key(0), torch.zeros(len(x))
    message = tg.pack(compressor.encode(x, key))
    speeds = (
        processor_seconds(lambda: tg.pack(compressor.encode(x, key))) / len(x),
        processor_seconds(lambda: tg.unpack(message).add_to(out), before=out.zero_) / len(x),
    )
    return profile(spec, x, speeds={str(compressor): speeds})


def predicted(profile: Profile, topology: str, workers: int, memory: float) -> tuple[float, float]:
    """Seconds a step for encoding and decoding, and for copies."""
    name, _, node = topology.partition("(node=")
    there = Cluster(workers, 1e9, node=int(node.rstrip(")")) if node else 1, memory_bandwidth=memory)
    cost = step_cost(there, profile, checked_topology(name))
    return cost.encode + cost.decode, cost.copies


def gradient() -> torch.Tensor:
    """The gradient at the first step, rank 0's batch."""
    model, generator = network("wide"), torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(16, 1024, generator=generator), torch.randn(16, 512, generator=generator)
    nn.functional.mse_loss(model(inputs), targets).backward()
    return torch.cat([p.grad.reshape(-1) for p in model.parameters() if p.grad is not None])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    x = gradient()
    memory = 32 * len(x) / processor_seconds(partial(torch.empty_like(x).copy_, x))
    profiles = {spec: alone(spec, x) for spec in SPECS}
    rows = []
    for number, (spec, topology, workers) in enumerate(ROWS):
        seconds = measured(spec, topology, workers, 29700 + number)
        coding, copies = predicted(profiles[spec], topology, workers, memory)
        rows.append({"spec": spec, "topology": topology, "workers": workers, "measured": seconds})
        rows[-1] |= {"coding": coding, "copies": copies}
        print(
            f"{spec:34} {topology:22} {workers} workers: measured {1e3 * seconds:6.1f} ms, "
            f"coding {1e3 * coding:6.1f} ({coding / seconds - 1:+.0%}), with copies {1e3 * (coding + copies):6.1f} "
            f"({(coding + copies) / seconds - 1:+.0%})",
            flush=True,
        )
        if options.out:
            report = {"command": "python " + " ".join(sys.argv), **provenance(), "memory_bandwidth": memory}
            report |= {"profiles": [vars(one) for one in profiles.values()], "rows": rows}
            options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
