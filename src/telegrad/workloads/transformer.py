"""A small decoder-only transformer that predicts the next symbol.

A. Vaswani et al., "Attention is all you need", NeurIPS 2017, with the normalisation before each part and GELU, as in
A. Radford et al., "Language models are unsupervised multitask learners", 2019. It has no dropout, which would draw
from torch's global generator.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Transformer"]


class _Block(nn.Module):
    """Causal attention of several heads, then two linear layers, each added to what came in."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.attention = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, length, width = x.shape
        parts = self.attention(self.norm1(x)).view(n, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        # Written out, as torch's fused attention has no rule for vmap over workers.
        scores = query @ key.transpose(-1, -2) / math.sqrt(width // self.heads)
        later = torch.ones(length, length, dtype=torch.bool, device=x.device).triu(1)
        mixed = scores.masked_fill(later, -math.inf).softmax(dim=-1) @ value
        x = x + self.projection(mixed.transpose(1, 2).reshape(n, length, width))
        return x + self.narrow(functional.gelu(self.wide(self.norm2(x))))


class Transformer(nn.Module):
    """Symbols (n, length ≤ context), int64 in 0 … symbols − 1, to logits (n, length, symbols) of the symbol after
    each.
    """

    def __init__(self, symbols: int, layers: int, width: int, heads: int, context: int) -> None:
        super().__init__()
        self.symbols = nn.Embedding(symbols, width)
        self.places = nn.Embedding(context, width)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, symbols)

    def forward(self, x: Tensor) -> Tensor:
        places = self.places(torch.arange(x.shape[-1], device=x.device))
        return self.head(self.norm(self.blocks(self.symbols(x) + places)))
