"""Compressors from outside telegrad: what they may not return is named before a number goes wrong."""

import dataclasses
import re

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.compressors.base import Encoded
from telegrad.wire.code import Term
from telegrad.wire.positions import All, IndexSet, Subset
from telegrad.wire.values import Floats

X = torch.linspace(-1, 2, 10)


def made(encode):
    """An unbiased compressor, registered nowhere, whose `_encode` is this."""

    class Own(tg.Unbiased):
        def omega(self, d):
            return 1.0

        def _encode(self, v, key):
            return encode(v, key)

        def _variance(self, v):
            return 0.0

    return dataclasses.dataclass(frozen=True)(Own)()


def listed(index, values=None):
    return made(lambda v, key: Encoded((Term(IndexSet(len(v), index), Floats(v[:2] if values is None else values)),)))


@pytest.mark.parametrize(
    ("compressor", "reason"),
    [
        (made(lambda v, key: None), "returned None; Encoded((Term(positions, values),)) is wanted"),
        (made(lambda v, key: v), "returned a tensor of torch.float32 and shape (10,); Encoded"),
        (made(lambda v, key: Encoded(Term(All(len(v)), Floats(v)))), "returned an Encoded; Encoded((Term"),
        (made(lambda v, key: Encoded((All(len(v)), Floats(v)))), "returned an All among the terms"),
        (made(lambda v, key: Encoded((), None)), "returned the level None; an integer is wanted"),
        (made(lambda v, key: Encoded((Term(len(v), Floats(v)),))), "whose positions are an int"),
        (made(lambda v, key: Encoded((Term(All(len(v)), v),))), "whose values are a tensor"),
        (made(lambda v, key: Encoded((Term(All(9), Floats(v[1:])),))), "returned All positions among 9 entries; v has"),
        (made(lambda v, key: Encoded((Term(All(10), Floats(v[1:])),))), "10 positions and 9 values"),
        (made(lambda v, key: Encoded((Term(All(10), Floats(v.reshape(2, 5))),))), "a flat tensor of floats is wanted"),
        (made(lambda v, key: Encoded((Term(All(10), Floats(v.double())),))), "write Floats(…).rounded(v.dtype"),
        (
            made(lambda v, key: Encoded((Term(Subset(10, 2, key), Floats(v[:2])),))),
            'a seed are wanted, key.fold(role="subset").to_int()',
        ),
        (listed([3, 5]), "returned IndexSet of a list; a flat tensor of int64 is wanted"),
        (listed(np.array([3, 5])), "returned IndexSet of a ndarray"),
        (listed(torch.tensor([3.0, 5.0])), "a flat tensor of int64 is wanted"),
        (listed(torch.tensor([5, 3])), "do not increase from 0 to 9"),
        (listed(torch.tensor([3, 3])), "do not increase from 0 to 9"),
        (listed(torch.tensor([-1, 3])), "do not increase from 0 to 9"),
        (listed(torch.tensor([3, 10])), "do not increase from 0 to 9"),
        (listed(torch.tensor([True, True])), "returned IndexSet of 2 marks; v has 10 entries"),
        (listed(torch.tensor([3, 5]), [1.0, 2.0]), "returned Floats of a list"),
        (listed(torch.tensor([3, 5]), torch.tensor([1, 2])), "returned Floats of a tensor of torch.int64"),
        (made(lambda v, key: Encoded((Term(All(10), Floats(v.mul_(2))),))), "changed v in place"),
    ],
)
def test_what_is_no_message_is_named(compressor, reason):
    with pytest.raises(tg.InputError, match=re.escape("Own._encode ") + ".*" + re.escape(reason)):
        compressor.encode(X.clone(), tg.Key())


@pytest.mark.parametrize(
    "index",
    [torch.tensor([3, 5]), torch.tensor([3, 5], dtype=torch.int32), torch.arange(10).eq(3) | torch.arange(10).eq(5)],
)
def test_what_is_a_message_is_sent(index):
    compressor = listed(index, X[[3, 5]])
    code = tg.unpack(tg.pack(compressor.encode(X, tg.Key())))
    assert code.decode().tolist() == [value if at in (3, 5) else 0.0 for at, value in enumerate(X.tolist())]


def test_a_code_outlives_its_vector():
    x = X.clone()
    code = made(lambda v, key: Encoded((Term(All(10), Floats(v)),))).encode(x, tg.Key())
    x.zero_()
    assert code.decode().equal(X)


def test_one_that_is_not_registered_has_its_own_name():
    assert str(listed(torch.tensor([3, 5]))) == "Own"

    class Mine(type(tg.compressor("topk(k=1)"))):
        pass

    assert str(Mine(3)) == "Mine(k=3)"
    with pytest.raises(tg.SpecError, match=re.escape("Mine(k='a'): int or float is wanted")):
        Mine("a")
    assert "Mine" in tg.citation(tg.compressor(Mine(3)))
