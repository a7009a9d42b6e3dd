"""FSDP2 with compressed gradients. Against plain FSDP2 two lines differ: the import, and `telegrad.fsdp.register`.

torchrun --nproc-per-node=2 examples/fsdp_train.py
"""

import argparse

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import telegrad


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spec", default="auto(bits=1)")
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)

    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    test, mine = order[:360], order[360 + rank :: world]

    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    mesh = init_device_mesh("cpu", (world,))
    for layer in model:
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    handle = telegrad.fsdp.register(model, options.spec)

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    draws = torch.Generator().manual_seed(1 + rank)
    for _ in range(options.steps):
        rows = mine[torch.randint(len(mine), (32,), generator=draws)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    with torch.no_grad():
        accuracy = (model(images[test]).argmax(1) == labels[test]).float().mean().item()
    ledger = handle.gathered_ledger()
    if rank == 0:
        dense = 32 * sum(p.numel() for p in model.parameters()) * options.steps
        print(f"{options.spec}: test accuracy {accuracy:.1%}, sent {dense / ledger.bits_up_per_worker:.1f} times less")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
