"""What the frameworks' tests train: a small network on a smooth function, and a method with memory."""

import torch
from torch import nn

MEMORY = "ef21_sgdm(topk(k=0.1), momentum=0.3)"


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(256, 8, generator=generator)
    return torch.utils.data.TensorDataset(x, x[:, :4] * 2 + x[:, 4:].square())


def net():
    model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))
    for number, parameter in enumerate(model.parameters()):
        parameter.data.copy_(torch.linspace(-0.5, 0.5, parameter.numel()).view_as(parameter).sin() / (1 + number))
    return model


def sums(model):
    return [p.detach().double().sum().item() for p in model.parameters()]
