"""The declared class of every compressor: variance(x) never exceeds omega(d) ‖x‖² or (1 − alpha(d)) ‖x‖² (0.3, 0.4)."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from cases import COMPRESSORS, by_spec

# What the rounding of values to the tensor's own dtype may add, relative to the second moment: ulp²/4, twice over.
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-9, torch.bfloat16: 2.0**-16}


def adversaries(d):
    """Vectors at which one compressor or another is at its worst, or nearly."""
    places = torch.arange(d, dtype=torch.float64)
    yield torch.ones(d, dtype=torch.float64)
    yield torch.where(places == d // 2, -3.0, 0.0)
    for ratio in (0.5, 0.9, 0.999, 2.0**-9):
        yield ratio**places
    yield 1 / (1 + places)
    yield 1 + places / 64
    for small in (1 / (1 + d**0.5), 4 / 3, 1 / 3, 0.5, *(2.0**-n * (1 - 1e-12) for n in range(1, 8))):
        yield torch.where(places == 0, 1.0, small)
    for bits in range(2, 8):
        steps = 2**bits - 1
        yield torch.where(places == 0, float(steps), 1.0)  # half a step of the mid-tread grid (A16)
        yield torch.where(places == 0, float(steps), 1.0 + 2 * places.remainder(steps / 2))
    generator = torch.Generator().manual_seed(d)
    for power in (1, 3, 9):
        for _ in range(4):
            yield torch.randn(d, generator=generator, dtype=torch.float64) ** power


def assert_within_class(compressor, x):
    d, energy, slack = len(x), float(x.double().square().sum()), ROUNDING[x.dtype]
    relative = compressor.variance(x) / energy
    omega, alpha = compressor.omega(d), compressor.alpha(d)
    assert 0.0 <= alpha <= 1.0
    if compressor.unbiased:
        assert relative <= omega + slack * (1 + omega)
    else:
        assert omega == math.inf
    if alpha > 0.0:
        assert relative <= 1 - alpha + slack
    # An unbiased compressor is contractive as it stands only where omega < 1.
    if compressor.unbiased and omega < 1:
        assert alpha == pytest.approx(1 - omega)


@pytest.mark.parametrize("dtype", ROUNDING, ids=str)
@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_no_adversary_leaves_the_declared_class(compressor, dtype):
    for d in (1, 2, 7, 40):
        for x in adversaries(d):
            assert_within_class(compressor, x.to(dtype))


@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
@settings(max_examples=25)
@given(
    entries=st.lists(st.integers(-64, 64), min_size=1, max_size=24).filter(any),
    curve=st.sampled_from([1.0, 2.0, 5.0]),
)
def test_no_vector_that_a_search_finds_leaves_the_declared_class(compressor, entries, curve):
    v = torch.tensor(entries, dtype=torch.float64)
    assert_within_class(compressor, v.sign() * v.abs() ** curve / 7)
