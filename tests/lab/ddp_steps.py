"""A rank that takes steps of DDP with the method and the dtype that are named: `ddp_steps.py SPEC DTYPE`."""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import telegrad


def main(spec, dtype):
    dist.init_process_group("gloo")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 10))
    model = DistributedDataParallel(model.to(getattr(torch, dtype)))
    handle = telegrad.ddp.register(model, spec)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    torch.manual_seed(dist.get_rank())
    for _ in range(40 if spec == "auto" else 3):  # `auto` tries one way after the other
        optimizer.zero_grad()
        model(torch.randn(8, 64, dtype=getattr(torch, dtype))).square().mean().backward()
        optimizer.step()
    handle.remove()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
