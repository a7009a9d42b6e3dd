"""Entropy-coded subtractive dithering (A26)."""

import contextlib
import dataclasses
import zlib

import numpy as np
import pytest
import torch

import telegrad as tg
from cases import numbers
from quantile_vectors import quantile_vectors
from telegrad.kernels.trellis.dithered_paths import dithered_paths, path_error
from telegrad.wire.values import DitheredPaths

KEY = tg.Key(seed=26)
VECTORS = quantile_vectors()


def coded(bits, x, key=KEY):
    code = tg.compressor(f"ecdq(bits={bits})").encode(x, key)
    return code, code.terms[0].values


@pytest.mark.parametrize("law", ["gauss", "lognormal"])
@pytest.mark.parametrize("bits", [0.3, 2])
def test_the_error_is_uniform_and_as_large_as_declared(law, bits):
    """Kolmogorov-Smirnov: N = 1e5, √N D below 2.23 (level 1e-4); mean square dΔ²/12 within 4 standard errors."""
    x = VECTORS[law]
    code, values = coded(bits, x)
    error = (numbers(code) - x.double()) / values.step + 0.5
    ordered, d = error.sort().values, len(x)
    assert float((ordered - (torch.arange(d) + 0.5) / d).abs().max()) * d**0.5 < 2.23
    squared, declared = float((error - 0.5).square().sum()), tg.compressor(f"ecdq(bits={bits})").variance(x)
    assert declared == pytest.approx(d * values.step**2 / 12, rel=1e-12)
    assert abs(squared - d / 12) <= 4 * (d / 180) ** 0.5
    # Independent of the entries, too: no correlation beyond 4 standard errors.
    assert abs(float((error - 0.5) @ x.double())) <= 4 * float(x.double().norm()) / 12**0.5


@pytest.mark.parametrize(
    ("bits", "omegas"), [(2, (0.097, 0.088, 0.070)), (0.49, (2.35, 2.35, 2.04))], ids=["2 bits", "0.49 bits"]
)
def test_the_errors_of_the_reference_at_measured_bits(bits, omegas):
    """A26.3 within 5 %, for Gauss, Laplace and t3."""
    for law, omega in zip(("gauss", "laplace", "t3"), omegas, strict=True):
        x = VECTORS[law]
        code, values = coded(bits, x)
        assert 8 * len(tg.pack(code)) == pytest.approx(bits * 1e5, rel=0.01)
        assert len(x) * values.step**2 / 12 / float(x.double().square().sum()) == pytest.approx(omega, rel=0.05)


@pytest.mark.parametrize("bits", [0.09, 0.25, 1, 4, 8])
@pytest.mark.parametrize("law", VECTORS)
def test_messages_have_as_many_bits_as_asked_for(law, bits):
    values = coded(bits, VECTORS[law])[1]
    if (law, bits) == ("expdecay", 8):  # three quarters of its entries are below the smallest step
        assert values.ratio == pytest.approx(2**19, rel=1e-3)
        return
    # Δ may not depend on the dither, so single messages scatter, by about 1 % on the lognormal vector at low rates.
    messages = [coded(bits, VECTORS[law], KEY.fold(draw=n))[0].nbits for n in range(5)]
    assert sum(messages) / 5 == pytest.approx(bits * 1e5, rel=0.02)


@pytest.mark.parametrize("bits", [0.3, 1, 2, 4])
@pytest.mark.parametrize("coder", ["scalar", "trellis"])
@pytest.mark.parametrize("d", [8_000, 65_536])
def test_entries_that_are_alike_take_few_bits_more_than_asked_for(bits, coder, d):
    """A law that ended with the largest would end where they lie: they took up to 1.8 times as many."""
    generator = torch.Generator().manual_seed(0)
    sign = torch.where(torch.rand(d, generator=generator) < 0.5, 1.0, -1.0)
    three = torch.randint(-1, 2, (d,), generator=generator).float()
    for x in (sign, torch.ones(d), three, 1e-30 * sign, 1000 * sign.half()):
        compressor = tg.compressor(f"ecdq(bits={bits}, coder={coder})")
        code = compressor.encode(x, KEY)
        assert code.nbits <= 1.12 * bits * d
        error = (code.decode().double() - x.double()).square().sum()
        assert float(error) == pytest.approx(compressor.variance(x), rel=0.05)


def test_a_law_ends_with_the_largest_where_no_number_lies_beyond():
    x = torch.full((5000,), torch.finfo(torch.float32).max)
    assert tg.compressor("ecdq(bits=4)").solved(x).law.top == float(x[0])
    assert tg.compressor("ecdq(bits=4)").solved(x / 2).law.top > float(x[0] / 2)


@pytest.mark.parametrize("law", ["gauss", "t3", "lognormal"])
@pytest.mark.parametrize("bits", [0.49, 2])
def test_the_loss_against_an_ideal_coder_that_knows_the_entries(law, bits):
    """The ideal coder gives q the probability of the empirical law given u (A26.3): at most 2 % is lost."""
    x = VECTORS[law].double()
    code, values = coded(bits, VECTORS[law])
    ordered, dither = x.sort().values, tg.Key(values.seed).uniform(len(x)) - 0.5
    low = (values.symbol - dither - 0.5) * values.step
    hits = torch.searchsorted(ordered, low + values.step) - torch.searchsorted(ordered, low)
    ideal = float(-(hits.clamp(min=1).double() / len(x)).log2().sum())
    assert code.fields["value"] <= 1.02 * ideal


def test_the_key_is_needed_to_decode():
    code, values = coded(2, VECTORS["gauss"])
    received = tg.unpack(tg.pack(code))
    assert torch.equal(received.decode(), code.decode())
    other = dataclasses.replace(values, seed=values.seed ^ 1)
    assert float((other.numbers() - values.numbers()).abs().max()) > values.step / 2


@pytest.mark.parametrize("bits", [0.05, 0.3, 2, 10])
def test_the_error_stays_below_the_declared_bound(bits):
    """Where the law cannot be told from few entries, the step is bounded instead, at the price of more bits."""
    compressor = tg.compressor(f"ecdq(bits={bits})")
    for x in (torch.ones(1), torch.ones(5000), torch.arange(7.0), torch.eye(60).reshape(-1), 2.0 ** -torch.arange(90)):
        assert compressor.variance(x) <= compressor.omega(x.numel()) * float(x.double().square().sum())
        code = compressor.encode(x, KEY)
        step = code.terms[0].values.step
        assert float((numbers(code) - x.double().reshape(-1)).abs().max()) <= step / 2 * (1 + 1e-12)


def test_entries_very_far_apart():
    x = torch.full((2000,), 1e-12, dtype=torch.float64)
    x[[3, 4]] = torch.tensor([1e18, -3.0], dtype=torch.float64)
    code, _ = coded(8, x)
    assert torch.equal(tg.unpack(tg.pack(code)).decode(), code.decode())
    assert np.isfinite(float(code.decode().sum()))


def test_unfit_bits_are_refused():
    with pytest.raises(tg.SpecError, match="bits a coordinate from 1e-6"):
        tg.compressor("ecdq(bits=0)")


def paths_coded(bits, x, key=KEY, states=8):
    code = tg.compressor(f"ecdq(bits={bits}, coder=trellis, states={states})").encode(x, key)
    return code, code.terms[0].values


@pytest.mark.parametrize("states", [8, 256])
def test_the_error_of_paths_is_the_same_wherever_the_entries_lie(states):
    """(A28.6): the mean square at x = 0, .3Δ and 1.1Δ within 3 standard errors of the first, and the mean 0 within 4,
    over 60 keys; N = 6,400 entries each. Neighbours of a path are correlated: errors of whole messages are compared.
    """
    d, step = 6400, 0.37
    found = []
    for place in (0.0, 0.3, 1.1):
        x = torch.full((d,), place * step / 2, dtype=torch.float64)
        squares, means = [], []
        for draw in range(60):
            key = KEY.fold(draw=draw)
            side = step if key.fold(role="side").to_int() & 1 else -step
            symbol = dithered_paths(x, side, draw, states)
            error = DitheredPaths(symbol, states, draw, side, 1.0, np.ones(1)).numbers() - x
            squares.append(float(error.square().mean()) / step**2)
            means.append(float(error.mean()) / step)
        found.append((np.mean(squares), np.std(squares) / 60**0.5))
        assert abs(np.mean(means)) <= 4 * np.std(means) / 60**0.5
    for mean, deviation in found:
        assert abs(mean - found[0][0]) <= 3 * 2**0.5 * deviation
        assert mean == pytest.approx(path_error(states, d), rel=0.01)


@pytest.mark.parametrize(
    ("bits", "omegas"), [(1, (0.395, 0.377, 0.304, 0.0136)), (2, (0.0757, 0.0676, 0.0537, 0.00108))]
)
def test_what_paths_gain_at_measured_bits(bits, omegas):
    """Without: .563, .542, .441, .0187 and .0985, .0889, .0704, .00147; Gauss, Laplace, t3, lognormal."""
    for law, omega in zip(("gauss", "laplace", "t3", "lognormal"), omegas, strict=True):
        x = VECTORS[law]
        code, _ = paths_coded(bits, x)
        squared = float((numbers(code) - x.double()).square().sum())
        assert 8 * len(tg.pack(code)) == pytest.approx(bits * 1e5, rel=0.02)
        assert squared <= 1.02 * omega * float(x.double().square().sum())
        declared = tg.compressor(f"ecdq(bits={bits}, coder=trellis)").variance(x)
        assert squared == pytest.approx(declared, rel=0.02)


@pytest.mark.parametrize(("d", "states"), [(1, 8), (2, 256), (100, 8), (100, 256), (2000, 8)])
def test_paths_are_unbiased_at_every_length(d, states):
    """z-test of a few entries, 250 draws, z = 5 (level 6e-7 each)."""
    x = torch.randn(d, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    estimates = torch.stack([numbers(paths_coded(3, x, KEY.fold(draw=n), states)[0])[:100] for n in range(250)])
    assert bool(((estimates.mean(0) - x[:100]).abs() <= 5 * estimates.std(0) / 250**0.5 + 1e-12).all())


@pytest.mark.parametrize("d", [3000, 300_000])
def test_far_symbols_of_paths_come_back(d):
    """Their last bits steer the path, and travel apart."""
    x = torch.randn(d, generator=torch.Generator().manual_seed(2)) ** 7
    code, values = paths_coded(6, x)
    assert float(values.symbol.abs().max()) > 1 << 12
    data = tg.pack(code)
    received = tg.unpack(data)
    assert torch.equal(received.terms[0].values.symbol, values.symbol)
    assert torch.equal(received.decode(), code.decode())
    for place in range(40, len(data) - 4, len(data) // 50):
        damaged = bytearray(data[:-4])
        damaged[place] ^= 1
        sealed = bytes(damaged) + zlib.crc32(damaged).to_bytes(4, "little")
        with contextlib.suppress(tg.WireError):
            assert tg.unpack(sealed).decode().shape == x.shape
