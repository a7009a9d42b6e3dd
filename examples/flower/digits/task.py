"""The model and the data: scikit-learn's digits, unequally shared out."""

import torch
from sklearn.datasets import load_digits
from torch import nn


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


def data(partition=None, partitions=1):
    """The test set, or one client's share of the rest: share i is i + 1 times as large as share 0."""
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))
    test, train = order[:360], order[360:]
    if partition is None:
        return images[test], labels[test]
    unit = len(train) // sum(range(1, partitions + 1))
    start = unit * sum(range(1, partition + 1))
    rows = train[start : start + unit * (partition + 1)]
    return images[rows], labels[rows]


def train(model, images, labels, epochs, lr):
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    for _ in range(epochs):
        for rows in torch.randperm(len(labels)).split(16):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
            optimizer.step()


@torch.no_grad()
def accuracy(model, images, labels):
    return (model(images).argmax(1) == labels).float().mean().item()
