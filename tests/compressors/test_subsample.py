"""Subsampling (0.8) against enumeration over all subsets."""

import itertools

import pytest
import torch

import telegrad as tg
from cases import T1, numbers
from telegrad.wire.positions import Nested, Subset

X = torch.tensor([5.1, -2.7, 1.3, 0.65, -1.3, 0.0], dtype=torch.float64)


@pytest.mark.parametrize("fraction", [0.01, 0.3, 0.5, 1.0])
def test_with_identity_it_is_rand_k(fraction):
    sub = tg.compressor(f"subsample(identity, fraction={fraction})")
    k = max(1, round(6 * fraction))
    assert sub.omega(6) == tg.compressor(f"randk(k={k})").omega(6)
    assert sub.variance(X) == pytest.approx(tg.compressor(f"randk(k={k})").variance(X), rel=1e-12, abs=1e-12)
    estimate = numbers(sub.encode(X, tg.Key(4)))
    kept = estimate != 0
    assert torch.allclose(estimate[kept], X[kept] * 6 / k, rtol=1e-12)


@pytest.mark.parametrize("inner", ["natural", "qsgd(levels=2)", "terngrad", "importance(k=2)"])
def test_variance_is_that_of_the_subset_and_of_the_inner_one(inner):
    """E‖C − x‖² = (d/k − 1)‖x‖² + E var_A((d/k) x_S), over the 20 subsets of three of six entries."""
    found = tg.compressor(f"subsample({inner}, fraction=0.5)").variance(X)
    parts = [tg.compressor(inner).variance(2 * X[list(s)]) for s in itertools.combinations(range(6), 3)]
    assert found == pytest.approx(float(X.square().sum()) + sum(parts) / 20, rel=1e-12)


def test_what_the_inner_one_sees_is_the_subset_alone():
    """Equal entries: QSGD's norm is that of k entries scaled by d/k, not of d entries with zeros."""
    v = torch.ones(400)
    code = tg.compressor("subsample(qsgd(levels=1), fraction=0.25)").encode(v, tg.Key(0))
    values = numbers(code)
    assert set(values.tolist()) == {0.0, 4.0 * 10}
    (term,) = code.terms
    assert isinstance(term.positions, Nested)
    assert term.positions.outer.size == 100


def test_dense_inner_messages_need_the_seed_only():
    (term,) = tg.compressor("subsample(eden(bits=1), fraction=0.5)").encode(torch.arange(64.0), tg.Key(0)).terms
    assert isinstance(term.positions, Subset)
    assert term.positions.size == 32


def test_subsets_nest():
    """The inner subset's places are told as places of the outer one."""
    c = tg.compressor("subsample(randk(k=0.5), fraction=0.5)")
    code = c.encode(torch.arange(1.0, 41.0), tg.Key(2))
    values = numbers(tg.unpack(tg.pack(code)))
    kept = values.nonzero().squeeze(1)
    assert len(kept) == 10
    assert torch.equal(values[kept], 4 * torch.arange(1.0, 41.0).double()[kept])
    assert c.omega(40) == 3


def test_it_takes_qsgd_below_its_fewest_bits():
    v = torch.randn(20_000, generator=torch.Generator().manual_seed(0))
    whole = tg.compressor("qsgd(levels=100)").encode(v, tg.Key(0)).nbits
    part = tg.compressor("subsample(qsgd(levels=50), fraction=0.25)").encode(v, tg.Key(0)).nbits
    assert part < 0.3 * whole + 200


def test_biased_parts_and_odd_fractions_are_refused():
    for spec in (
        "subsample(sign, fraction=0.5)",
        "subsample(identity, fraction=0.0)",
        "subsample(identity, fraction=1.5)",
    ):
        with pytest.raises(tg.SpecError, match="subsample"):
            tg.compressor(spec)
    assert tg.compressor("subsample(identity, fraction=0.5)").variance(T1) == pytest.approx(21.25)
