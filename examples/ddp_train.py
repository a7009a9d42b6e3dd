"""An ordinary DDP script. Against plain DDP two lines differ: the import of telegrad, and `telegrad.ddp.register`.

torchrun --nproc-per-node=2 examples/ddp_train.py
"""

import torch
import torch.distributed as dist
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import telegrad


def main(epochs=12, batch_size=16):
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(0)

    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    test, train = order[:360], order[360:]
    mine = train[rank::world][: len(train) // world]

    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU(),
        nn.Linear(64, 10),
    )  # fmt: skip
    model = DistributedDataParallel(model)
    handle = telegrad.ddp.register(model, "auto(bits=1)")

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(epochs):
        for rows in mine[torch.randperm(len(mine))].split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()
        with torch.no_grad():
            accuracy = (model.module(images[test]).argmax(1) == labels[test]).float().mean()
        if rank == 0:
            print(f"epoch {epoch + 1}: test accuracy {accuracy:.1%}, sent {handle.ledger.sent[rank] / 8e3:.0f} kB")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
