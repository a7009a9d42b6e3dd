"""Ladders from outside telegrad: what would bias their estimates is named before a message is made."""

import dataclasses
import re

import pytest
import torch

import telegrad as tg
from telegrad.mlmc import MLMC, Ladder, Levels
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats

X = torch.tensor([4.0, 2.0, 1.0, 0.5])


def made(coded="fp32", returned=(), **methods):
    """A ladder of two halves; some methods of its levels are these, or its `levels` returns something else."""

    class Halves(Levels):
        orthogonal = True

        def __init__(self, v):
            self.v, self.parts = v.double(), (torch.arange(2), torch.arange(2, len(v)))

        def norms(self):
            return torch.stack([self.v[part].norm() for part in self.parts])

        def costs(self):
            return torch.tensor([100.0, 200.0], dtype=torch.float64)

        def fixed_probabilities(self):
            return torch.tensor([0.5, 0.5])

        def base(self):
            return ()

        def residual(self, level):
            return self.part(self.parts[level - 1])

        def part(self, index):
            return (Term(IndexSet(len(self.v), index), Floats(self.v[index])),)

    changed = type("Changed", (Halves,), methods)

    class Own(Ladder):
        values = coded

        def omega(self, d, adaptive):
            return 1.0

        def levels(self, v):
            return changed(v) if returned == () else returned

    return MLMC(dataclasses.dataclass(frozen=True)(Own)())


def test_a_right_one_is_unbiased():
    compressor = made()
    assert torch.allclose(sum(p * estimate for p, estimate in compressor.enumerate_levels(X)), X.double())
    assert abs(compressor.variance(X) - ((20**0.5 + 1.25**0.5) ** 2 - 21.25)) < 1e-9


@pytest.mark.parametrize(
    ("ladder", "reason"),
    [
        ({"returned": None}, "Own.levels(v) returned None; an object of a class below telegrad.mlmc.Levels"),
        ({"coded": "fp31"}, "values='fp31'; allowed are fp32, bf16, log, sign"),
        ({"norms": lambda self: [1.0, 2.0]}, "Changed.norms() returned a list: a flat tensor of float64"),
        ({"norms": lambda self: torch.ones(())}, "Changed.norms() returned 1.0: a flat tensor of float64"),
        ({"norms": lambda self: torch.tensor([1.0, -1.0])}, "[1.0, -1.0]: finite numbers from 0 are wanted"),
        ({"norms": lambda self: torch.tensor([1.0, torch.nan])}, "finite numbers from 0 are wanted"),
        ({"norms": lambda self: torch.ones(1)}, "has 1 norms, 2 costs, 2 probabilities; one for each level"),
        ({"norms": lambda self: torch.tensor([20**0.5, 0.0])}, "a norm of 0 for level 2, which is not zero"),
        ({"norms": lambda self: torch.ones(2)}, "has the squared norm 1 at level 1, where residual(1) has 20"),
        ({"costs": lambda self: torch.zeros(2)}, "Changed.costs() returned [0.0, 0.0]: finite numbers above 0"),
        ({"fixed_probabilities": lambda self: torch.tensor([0.5, 0.9])}, "probabilities that sum to 1 are wanted"),
        ({"fixed_probabilities": lambda self: torch.tensor([1.0, 0.0])}, "finite numbers above 0 are wanted"),
        ({"base": lambda self: None}, "Changed.base() returned None; a tuple of terms is wanted"),
        ({"residual": lambda self, level: self.part(self.parts[level - 1])[0]}, "Changed.residual(1) returned a Term;"),
        ({"residual": lambda self, level: self.part(torch.tensor([1, 0]))}, "places that do not increase from 0 to 3"),
        (
            {"base": lambda self: self.part(torch.tensor([2]))},
            "do not add up to v: base() and residual(1) … residual(2)",
        ),
    ],
)
@pytest.mark.parametrize("call", ["encode", "variance"])
def test_what_would_bias_it_is_named(ladder, reason, call):
    with pytest.raises(tg.InputError, match=re.escape(reason)):
        made(**ladder).encode(X, tg.Key()) if call == "encode" else made(**ladder).variance(X)
