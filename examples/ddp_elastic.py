"""A run that survives the loss of a worker: checkpoints every 10 steps, and torchrun starts all ranks again.

    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    torchrun --nproc-per-node=2 --max-restarts=3 examples/ddp_elastic.py --folder runs/elastic

What a rank remembers of its gradients (here EF21's) is in the checkpoint, so the run goes on as if nothing had happened
and ends with the parameters of a run that was never interrupted, bit for bit.
Without the variable, restarted ranks may look for each other at the addresses of the old ones (PyTorch issue 135712).
"""

import argparse
import os
import signal
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import telegrad


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--kill-at", type=int, default=None, help="the last rank kills itself here, the first time")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    dist.init_process_group("gloo")
    rank = dist.get_rank()

    torch.manual_seed(0)
    model = DistributedDataParallel(nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 1)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    handle = telegrad.ddp.register(model, "ef21_sgdm(topk(k=0.05))")

    start, path = 0, options.folder / f"rank{rank}.pt"
    # A rank may have been lost while it wrote: go on from the newest step that all ranks have.
    kept = torch.load(path) if path.exists() else {}
    common = [None] * dist.get_world_size()
    dist.all_gather_object(common, list(kept))
    shared = set.intersection(*map(set, common))
    if shared:
        start = max(shared)
        model.module.load_state_dict(kept[start]["model"])
        optimizer.load_state_dict(kept[start]["optimizer"])
        handle.load_state_dict(kept[start]["telegrad"])

    first_try = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    for step in range(start, options.steps):
        if step == options.kill_at and rank == dist.get_world_size() - 1 and first_try:
            os.kill(os.getpid(), signal.SIGKILL)
        generator = torch.Generator().manual_seed(1000 * step + rank)
        inputs = torch.randn(32, 20, generator=generator)
        optimizer.zero_grad()
        (model(inputs) - inputs[:, :1].sin()).square().mean().backward()
        optimizer.step()
        if (step + 1) % 10 == 0:
            state = {"model": model.module.state_dict(), "optimizer": optimizer.state_dict()}
            newest = {step + 1: {**state, "telegrad": handle.state_dict()}}
            torch.save({**dict(sorted(kept.items())[-1:]), **newest}, path.with_suffix(".new"))
            path.with_suffix(".new").replace(path)
            kept = newest
    if rank == 0:
        print(f"from step {start} to {options.steps}")
        torch.save(model.module.state_dict(), options.folder / "final.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
