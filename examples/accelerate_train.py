"""Accelerate with compressed gradients. Against a plain script one line differs, besides the import.

torchrun --nproc-per-node=2 examples/accelerate_train.py    # on CPU, `accelerate launch` starts one process only
"""

import argparse

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch import nn

import telegrad


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    attached = telegrad.accelerate.attach(accelerator, "auto(bits=1)")

    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    test, train = order[:360], order[360:]
    model = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    data = torch.utils.data.TensorDataset(images[train], labels[train])
    loader = torch.utils.data.DataLoader(data, batch_size=16, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)

    for epoch in range(options.epochs):
        for inputs, targets in loader:
            accelerator.backward(nn.functional.cross_entropy(model(inputs), targets))
            optimizer.step()
            optimizer.zero_grad()
        with torch.no_grad():
            right = accelerator.unwrap_model(model)(images[test].to(accelerator.device)).argmax(1).cpu() == labels[test]
        comm = {"comm/bits_up": float("nan"), "comm/ratio": 1.0} | attached.metrics()  # none where one process runs
        accelerator.print(
            f"epoch {epoch + 1}: test accuracy {right.float().mean():.1%}, "
            f"{comm['comm/bits_up']:.0f} bits up a step, {comm['comm/ratio']:.1f} times fewer bits"
        )
    accelerator.end_training()


if __name__ == "__main__":
    main()
