"""What was sent, read from the ledger of a DDP run: by rank, by field of the messages, by piece of the model.

torchrun --nproc-per-node=2 examples/read_ledger.py
"""

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import telegrad


def main(steps=20, spec="mlmc(stopk(s=0.05))"):
    dist.init_process_group("gloo")
    torch.manual_seed(dist.get_rank())
    net = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    model = DistributedDataParallel(net)
    with telegrad.ddp.register(model, spec, granularity="tensor") as handle:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(steps):
            optimizer.zero_grad()
            model(torch.randn(32, 64)).square().mean().backward()
            optimizer.step()
        ledger = handle.gathered_ledger()  # all ranks call it
    if dist.get_rank() == 0:
        dense = 32 * sum(p.numel() for p in net.parameters()) * steps
        print(f"{steps} steps of {spec}: {dense / ledger.bits_up_per_worker:.1f} times fewer bits than uncompressed")
        for rank in ledger.ranks:
            print(f"rank {rank} sent {ledger.sent[rank] / 8e3:.1f} kB over the network, copies and lengths included")
        fields = sum(ledger.up, type(ledger.up[0])())
        for name, bits in fields.most_common():
            print(f"  {name:8} {bits / fields.total():5.1%} of the messages' bits")
        for piece, own in ledger.by_piece.items():
            print(f"  {piece:16} {own.total() / 8e3:8.1f} kB")
        levels = sorted(ledger.levels.items())
        print("levels drawn:", ", ".join(f"{level} {count} times" for level, count in levels[:5]), "…")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
