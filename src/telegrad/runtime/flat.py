"""The model as one flat vector, pieces one after another, and torch optimizers that move such vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from telegrad.errors import ConfigError
from telegrad.runtime.pieces import Piece, by_parameter

__all__ = ["FlatModel", "OptimizerStep"]


class FlatModel:
    """A model's parameters as a vector, shape (d,), in the order of `pieces`, and back."""

    def __init__(self, parameters: dict[str, nn.Parameter], pieces: Sequence[Piece]) -> None:
        self.parameters, self.pieces = parameters, pieces
        dtypes = {p.dtype for p in parameters.values()}
        if len(dtypes) > 1:
            raise ConfigError(f"this method sees the model as one vector, and its parameters have dtypes {dtypes}")
        self._sizes = [piece.numel for piece in pieces]
        self.numel = sum(self._sizes)

    def vector(self) -> Tensor:
        """The parameters as they are, a copy."""
        return self.joined({name: p.detach() for name, p in self.parameters.items()})

    def joined(self, tensors: dict[str, Tensor]) -> Tensor:
        """One vector of a tensor for each parameter, a copy."""
        flat = {name: tensor.reshape(-1) for name, tensor in tensors.items()}
        parts = [flat[part.name][part.start : part.stop] for piece in self.pieces for part in piece.parts]
        return torch.cat(parts)

    def split(self, vector: Tensor) -> dict[str, Tensor]:
        """Views of a vector by parameter, in their shapes."""
        flat = by_parameter(vector.split(self._sizes), self.pieces)
        return {name: flat[name].view_as(parameter) for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def load(self, vector: Tensor) -> None:
        """Set the parameters."""
        for name, value in self.split(vector).items():
            self.parameters[name].copy_(value)


class OptimizerStep:
    """A step of a torch optimizer over a flat model, as a function: from x, with g as the gradient, to the next x.

    The optimizer keeps its own averages between calls.
    """

    def __init__(self, model: FlatModel, make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> None:
        own = {name: nn.Parameter(p.detach().clone()) for name, p in model.parameters.items()}
        self.model, self.lr = FlatModel(own, model.pieces), 0.0
        self.optimizer = make(list(own.values()))

    def __call__(self, x: Tensor, gradient: Tensor) -> Tensor:
        self.model.load(x)
        for name, value in self.model.split(gradient.to(x.dtype)).items():
            self.model.parameters[name].grad = value
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr
        self.optimizer.step()
        return self.model.vector()
