"""Taking and adding at listed places, and many messages in one pass."""

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.kernels.coding import scatter
from telegrad.kernels.coding.scatter import add_at, narrow, taken
from telegrad.kernels.memory import zeros
from telegrad.random import Key
from telegrad.wire.code import add_codes

LONG = 400_001


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_parts_are_added_in_their_order_for_all_threads_and_forms(dtype, threads, disable_numba):
    """Ten numbers of very different size an entry: any other order of their sums would show."""
    parts, weight = [], 0.3
    for number in range(10):
        index = Key(number).subset(LONG, 150_000 + number)
        parts.append((index, Key(number).normal(len(index)) * 10.0 ** (number % 4)))
    expected = Key(99).normal(LONG).to(dtype)
    found = [expected.clone() for _ in range(3)]
    for index, numbers in parts:
        expected[index] += (numbers.to(dtype) * torch.tensor(weight, dtype=dtype)).to(dtype)
    for out, count in zip(found, (1, 2, 3), strict=True):
        threads(count)
        if count == 3:
            disable_numba()
        add_at(out, parts, weight)
        if dtype != torch.bfloat16:  # torch's own loop rounds once
            assert torch.equal(out, expected)
        assert torch.equal(out, found[0])


@pytest.mark.parametrize("count", [1, scatter._TOGETHER, scatter._TOGETHER + 1])
def test_places_at_the_edges_of_ranges_and_shares_are_met_once(count, threads, disable_numba):
    """All parts hold the first and last places of every range, in either integers; in between lie empty ones."""
    edges = torch.arange(0, LONG, scatter._RANGE)
    index = torch.cat([edges - 1, edges, edges + 1, torch.tensor([LONG - 2, LONG - 1])]).unique()[1:]
    parts, expected = [], torch.zeros(LONG, dtype=torch.float64)
    for number in range(count):
        own = index[:0] if number % 3 == 1 else index[number % 2 :]
        numbers = 3.0**number * (1 + torch.arange(len(own), dtype=torch.float64) / 64)
        parts.append((own.int() if number % 4 == 3 else own, numbers))
        expected[own] += 0.7 * numbers
    for threads_used in (1, 2, 3, 3):
        threads(threads_used)
        out = torch.zeros(LONG, dtype=torch.float64)
        add_at(out, parts, 0.7)
        assert torch.equal(out, expected)
        if threads_used == 3:
            disable_numba()


def test_places_are_listed_in_32_bits_as_long_as_these_suffice():
    for d in (scatter._RANGE + 1, 2**31):
        assert np.iinfo(narrow(d)).max >= d - 1
        assert narrow(d) == np.int32
    assert narrow(scatter._RANGE) == narrow(2**31 + 1) == np.int64


def test_messages_added_together_are_those_added_one_by_one(threads):
    """Sparse ones, dense ones and sums of both, made here or received, in their order."""
    x = Key(1).normal(LONG).float()
    specs = ["topk(k=0.01)", "qsgd(levels=4)", "importance(k=0.05)", "randk(k=0.02)", "topk(k=0.2, values=sign)"]
    codes = [tg.compressor(spec).encode(x, Key(2).fold(rank=rank)) for rank, spec in enumerate(specs)]
    codes += [tg.unpack(tg.pack(tg.compressor(spec).encode(x, Key(3)))) for spec in specs]
    one_by_one, together = torch.ones(LONG), torch.ones(LONG)
    for code in codes:
        code.add_to(one_by_one, 0.2)
    threads(2)
    add_codes(codes, together, 0.2)
    assert torch.equal(together, one_by_one)
    assert not torch.equal(together, torch.ones(LONG))
    add_codes([], together)
    assert torch.equal(together, one_by_one)
    with pytest.raises(ValueError, match=r"cannot be added to a tensor of shape \(3,\)"):
        add_codes(codes, torch.zeros(3))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64], ids=str)
def test_what_is_taken_lies_at_the_places(dtype):
    v, index = (100 * Key(0).normal(50)).to(dtype), torch.tensor([0, 7, 49])
    assert torch.equal(taken(v, index), v[index])
    assert taken(v, index[:0]).shape == (0,)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 5)], ids=str)
def test_zeros_are_zeros(shape, dtype):
    assert torch.equal(zeros(shape, dtype), torch.zeros(shape, dtype=dtype))
    assert zeros(shape, dtype).dtype == dtype
