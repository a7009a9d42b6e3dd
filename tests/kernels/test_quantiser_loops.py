"""The compiled passes of quantisers give, to the byte, what their numpy forms give, for every number of threads."""

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.kernels.coding import symbols
from telegrad.kernels.histograms.by_sixteenth_octave import magnitude_histogram
from telegrad.kernels.quantising.dither_frequencies import (
    bucket_of,
    contexts_of,
    counted,
    expected_bits,
    frequencies,
    symbol_of,
)
from telegrad.kernels.quantising.dithered_density import dithered_density
from telegrad.kernels.quantising.dithered_rounding import contexts_at, far_magnitudes, rows_at, signed_symbols
from telegrad.kernels.quantising.rounding import rounded_to_steps, times_steps
from telegrad.kernels.statistics.magnitudes import largest_magnitude, sums_of_squares

N = 70_003
KEY = tg.Key(seed=5)


def vector(dtype=torch.float32, n=N):
    generator = torch.Generator().manual_seed(3)
    return (torch.randn(n, generator=generator, dtype=torch.float64) ** 3).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    "spec",
    [
        *("qsgd(levels=3, bucket=512)", "qsgd(levels=300)", "terngrad", "dithering(norm=inf, levels=200)"),
        *("eden(bits=1)", "eden(bits=2.3)", "eden(bits=1, coder=entropy)", "ecdq(bits=2)", "ecdq(bits=0.5)"),
        *("eden(bits=0.7, coder=trellis)", "ecdq(bits=1.5, coder=trellis)"),
        *("mlmc(fixed_point)", "fixed_point(level=3)"),
    ],
)
def test_messages_and_estimates_are_the_same_in_all_forms(spec, dtype, disable_numba, threads):
    compressor, v = tg.compressor(spec), vector(dtype)
    threads(2)
    message = tg.pack(compressor.encode(v, KEY))
    estimate = tg.unpack(message).decode()
    threads(1)
    assert tg.pack(compressor.encode(v, KEY)) == message
    disable_numba()
    assert tg.pack(compressor.encode(v, KEY)) == message
    assert torch.equal(tg.unpack(message).decode(), estimate)


def test_rounding_follows_its_definition():
    v, steps = vector(torch.float64), torch.tensor([0.7, 2.0])
    each = steps.double().repeat_interleave(40_000)[:N]
    y, u = v.abs() / each, KEY.uniform(N)
    expected = v.sign() * (y.floor() + (u < y - y.floor()))
    symbol = rounded_to_steps(v, steps.double(), 40_000, KEY, 120)
    assert symbol.dtype == torch.int8
    assert torch.equal(symbol.double(), expected)
    assert torch.equal(times_steps(symbol, steps.double(), 40_000, torch.float64), expected * each)


def test_the_histogram_of_magnitudes_is_that_of_logarithms():
    """Entries within 1e-9 of an edge may fall on either side."""
    v = vector(torch.float64)
    top = float(v.abs().max())
    octaves = -16 * torch.log2(v.abs() / top)
    place = octaves[(octaves - octaves.round()).abs() > 1e-9].floor().clamp(max=799).long()
    near = N - len(place)
    counts = magnitude_histogram(v, top)
    assert counts.sum() == N
    assert int(np.abs(counts - np.bincount(place.numpy(), minlength=800)).sum()) == near
    assert magnitude_histogram(torch.tensor([1.0, 0.0, 0.5, -1.0]), 1.0)[[0, 16, 799]].tolist() == [2, 1, 1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("top", [1.0, 0.7, 3e38, 1e-38, 2.0**-149])
def test_the_histogram_is_that_of_rounded_quotients_at_every_edge(top, dtype, disable_numba):
    top = float(torch.tensor(top, dtype=dtype))
    near = (top * 2.0 ** (-np.arange(810) / 16)).astype(str(dtype).removeprefix("torch."))
    whole = near.view(f"i{near.itemsize}")
    around = np.maximum(whole[:, None] + np.arange(-3, 4), 0).reshape(-1).astype(whole.dtype).view(near.dtype)
    v = torch.from_numpy(np.append(np.minimum(around, top), 0.0).astype(near.dtype))
    counts = magnitude_histogram(-v, top)
    assert counts.sum() == len(v)
    disable_numba()
    assert np.array_equal(magnitude_histogram(v, top), counts)


@pytest.mark.parametrize(("ratio", "size"), [(0.3, 1), (2.5, 7), (900.0, 60), (2.0**20, 100)])
def test_frequencies_are_the_same_in_both_forms(ratio, size, disable_numba):
    counts = counted(bucket_of(np.random.default_rng(0).integers(1, 10**6, size)))
    true = np.random.default_rng(1).integers(0, 100, 800)
    frequency, expected = frequencies(ratio, counts, 15), expected_bits(ratio, counts, 15, true)
    assert frequency.min() >= 1
    assert (frequency.sum(1) == 1 << 15).all()
    disable_numba()
    assert np.array_equal(frequencies(ratio, counts, 15), frequency)
    assert expected_bits(ratio, counts, 15, true) == expected


@pytest.mark.parametrize("step", [1e-3, 0.3, 1.0, 40.0])
def test_the_density_of_dithered_entries_is_the_same_in_both_forms(step, disable_numba):
    """Between its points it is linear: so its integral over both signs, by trapezia, is 1."""
    shares = np.append(0.0, np.sort(np.random.default_rng(0).random(400)))
    edge, shares = np.append(0.0, 3.0 * 2.0 ** (-np.arange(400)[::-1] / 16)) / step, shares / shares[-1]
    at, density = dithered_density(edge, shares)
    assert (np.diff(at) >= 0).all()
    assert 2 * np.trapezoid(density, at) == pytest.approx(1.0, abs=1e-9)
    disable_numba()
    for found, expected in zip(dithered_density(edge, shares), (at, density), strict=True):
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_short_vectors_have_the_counts_of_long_ones(dtype, disable_numba):
    """Sixteenths of an octave, by a quotient each and by a table of leading bits: edges, zeros and subnormals too."""
    x = torch.randn(20_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64).pow(3).to(dtype)
    x[:800] = float(x.abs().max()) * 2.0 ** (-torch.arange(800, dtype=torch.float64) / 16).to(dtype)
    x[800:810], top = 0.0, float(x.abs().max())
    few = magnitude_histogram(x, top)
    assert few.sum() == len(x)
    assert np.array_equal(magnitude_histogram(x.repeat(2), top), 2 * few)
    disable_numba()
    assert np.array_equal(magnitude_histogram(x, top), few)


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int64])
def test_far_magnitudes_are_listed_in_order(kind, disable_numba, threads):
    symbol = np.random.default_rng(0).integers(-40, 40, 140_001).astype(kind)
    expected = np.abs(symbol)[np.abs(symbol) >= 16]
    threads(2)
    assert np.array_equal(far_magnitudes(symbol, 16), expected)
    disable_numba()
    assert np.array_equal(far_magnitudes(symbol, 16), expected)
    assert len(far_magnitudes(symbol[:0], 16)) == 0


def test_the_cells_of_the_dither_are_those_of_its_edges():
    seed = KEY.to_int()
    dither = tg.Key(seed).uniform(N).numpy()[7:] - 0.5
    cells, negative = contexts_at(seed, 7, N)
    assert np.array_equal(cells, contexts_of(dither))
    assert np.array_equal(negative, dither < 0)


@pytest.mark.parametrize(("bits", "columns"), [(2, 9), (11, 300)])
def test_buckets_and_signs_of_symbols_come_back(bits, columns, disable_numba):
    """Magnitudes up to 2^bits, whose buckets hold several from 16 on."""
    seed, n = KEY.to_int(), 5000
    sent = np.random.default_rng(0).integers(-(2**bits), 2**bits, n).astype(np.int16)
    magnitudes, back = symbol_of((np.arange(columns) + 1) // 2), np.empty((2, n), dtype=np.int16)
    cells, negative = contexts_at(seed, 0, n)
    rows = rows_at(sent, columns, seed, 0, n)
    assert np.array_equal(rows // columns, cells)
    signed_symbols((rows % columns).astype(np.uint16), negative, magnitudes, back[0])
    assert np.array_equal(back[0], np.sign(sent) * symbol_of(bucket_of(np.abs(sent.astype(np.int64)))))
    disable_numba()
    assert np.array_equal(rows_at(sent, columns, seed, 0, n), rows)
    signed_symbols((rows % columns).astype(np.uint16), negative, magnitudes, back[1])
    assert np.array_equal(back[1], back[0])


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int64])
def test_folding_counts_and_groups_come_back(kind, disable_numba):
    info = np.iinfo(kind)
    values = np.random.default_rng(0).integers(max(info.min, -(2**62)), min(info.max, 2**62), 5000).astype(kind)
    folded = symbols.folded(values)
    assert folded.itemsize == values.itemsize
    assert [int(x) for x in folded[:50]] == [2 * int(x) if x >= 0 else -2 * int(x) - 1 for x in values[:50]]
    assert np.array_equal(symbols.unfolded(folded), values)
    small = (folded & 3).astype(np.uint8)
    joined, counts = symbols.joined(small, 4, 3), symbols.counted(small, 4)
    assert joined[0] == small[0] + 4 * small[1] + 16 * small[2]
    assert np.array_equal(symbols.parted(joined, 4, 3, 5000), small)
    assert counts.tolist() == np.bincount(small).tolist()
    assert symbols.counted(small, 3) is None
    disable_numba()
    assert np.array_equal(symbols.folded(values), folded)
    assert np.array_equal(symbols.joined(small, 4, 3), joined)
    assert np.array_equal(symbols.parted(joined, 4, 3, 5000), small)


@pytest.mark.parametrize("width", [1, 3, 8, 33, 62])
def test_fixed_widths_are_the_same_in_both_forms(width, disable_numba, threads):
    values = np.random.default_rng(0).integers(0, 1 << width, 140_001)
    threads(2)
    packed = symbols.fixed_width(values, width)
    assert np.array_equal(symbols.from_fixed_width(packed, len(values), width), values)
    short = symbols.fixed_width(values[:1001], width)
    disable_numba()
    assert np.array_equal(symbols.fixed_width(values[:1001], width), short)
    assert np.array_equal(packed[: len(short) - 1], short[:-1])
    assert np.array_equal(symbols.from_fixed_width(short, 1001, width), values[:1001])


def test_magnitudes():
    v = vector()
    assert largest_magnitude(v) == float(v.abs().max())
    assert np.isnan(largest_magnitude(torch.tensor([1.0, float("nan"), float("-inf")])))
    assert largest_magnitude(torch.tensor([1.0, float("-inf")])) == float("inf")
    assert largest_magnitude(torch.zeros(0)) == 0.0
    exact = [float(part.double().square().sum()) for part in v.split(512)]
    assert sums_of_squares(v, 512).tolist() == pytest.approx(exact, rel=1e-13)
