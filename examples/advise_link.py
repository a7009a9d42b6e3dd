"""What to send over your link: the adviser, on a gradient of your own model.

python examples/advise_link.py --mbit 100 --workers 8

Encoding and decoding are timed here; ω and bits are those of the gradient. Gradients of a later step than the first say
more: train for a while, then ask.
"""

import argparse

import torch
from sklearn.datasets import load_digits
from torch import nn

from telegrad.theory.advice import recommend
from telegrad.theory.cost_model import Cluster
from telegrad.theory.profiles import profile

SPECS = ("auto(bits=1)", "auto(bits=0.1)", "importance(k=0.1)", "randk(k=0.1)")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mbit", type=float, default=100, help="of a worker's link")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--compute", type=float, default=0.02, help="seconds of a step without communication")
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()

    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    model = nn.Sequential(nn.Linear(64, options.width), nn.ReLU(), nn.Linear(options.width, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(20):
        rows = torch.randint(len(labels), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        optimizer.step()
    gradient = torch.cat([parameter.grad.reshape(-1) for parameter in model.parameters()])

    cluster = Cluster(workers=options.workers, bandwidth=options.mbit * 1e6, compute=options.compute)
    advice = recommend(cluster, [profile(spec, gradient) for spec in SPECS])
    for one in advice.predictions[:5]:
        print(f"{one.name:32} {1e3 * one.step.seconds:8.1f} ms a step, {one.factor:5.2f} times the steps")
    print("take:", advice.choice.name if advice.compress else "no compression")
    print(*(f"  {reason}" for reason in advice.reasons), sep="\n")


if __name__ == "__main__":
    main()
