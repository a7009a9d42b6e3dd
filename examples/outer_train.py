"""Local steps and a compressed outer loop: digits on several ranks, without DDP.

torchrun --nproc-per-node=2 examples/outer_train.py --spec sparseloco --every 10
"""

import argparse

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn

import telegrad


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spec", default="outer(mlmc(stopk(s=0.01)))")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()

    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    targets = torch.tensor(digits.target)
    own = torch.arange(300 + rank, len(inputs), ranks)  # the first 300 are for validation

    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    handle = telegrad.outer.register(model, optimizer, options.spec, every=options.every)  # the line that is new

    order = torch.Generator().manual_seed(rank)
    for _ in range(options.steps):
        rows = own[torch.randint(len(own), (32,), generator=order)]
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(inputs[rows]), targets[rows]).backward()
        optimizer.step()
    handle.synchronise()

    right = (model(inputs[:300]).argmax(1) == targets[:300]).float().mean()
    ledger = handle.gathered_ledger()
    if rank == 0:
        print(f"{options.spec}: accuracy {right:.3f}, {ledger.bits_up_per_worker / 8e3:.1f} kB sent by a worker")
    handle.remove()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
