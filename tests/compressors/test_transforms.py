"""Compressors that select in another basis: SRHT (A21) and the chunked cosine transform (A22)."""

import pytest
import torch

import telegrad as tg
from cases import numbers
from telegrad.wire.values.cosine import cosines

KEY = tg.Key(seed=22)
V = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)


def test_the_cosine_transform_of_the_reference():
    """A22: DCT-II of (1, 2, 3, 4), and its Top-2 keeps 29.97487 of the energy 30."""
    assert cosines(V, 4).tolist() == pytest.approx([5, -2.230442, 0, -0.158513], abs=6e-7)
    compressor = tg.compressor("dct(chunk=4, k=2)")
    assert float(compressor.encode(V).decode().square().sum()) == pytest.approx(29.97487, abs=6e-6)
    assert compressor.variance(V) == pytest.approx(30 - 29.97487, abs=6e-6)


@pytest.mark.parametrize(("d", "chunk"), [(1, 1), (5, 64), (64, 64), (1000, 64), (130, 4)])
def test_the_cosine_transform_is_orthonormal(d, chunk):
    v = torch.randn(d, generator=torch.Generator().manual_seed(d), dtype=torch.float64)
    y = cosines(v, chunk)
    assert torch.allclose(cosines(y, chunk, inverse=True), v, atol=1e-12)
    assert float(y.norm()) == pytest.approx(float(v.norm()), rel=1e-12)


def test_each_chunk_keeps_its_own_largest_coefficients():
    """Chunk by chunk against Top-k of the coefficients; the short end keeps up to k of its own."""
    v = torch.randn(22, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * torch.logspace(-6, 6, 22)
    decoded = tg.compressor("dct(chunk=8, k=3)").encode(v).decode()
    for part, found in zip(v.split(8), decoded.split(8), strict=True):
        y = cosines(part, 8)
        y[y.abs() < y.abs().sort().values[-3]] = 0.0
        assert torch.allclose(found, cosines(y, 8, inverse=True), rtol=1e-9, atol=1e-9 * float(part.norm()))


@pytest.mark.parametrize(("chunk", "k"), [(64, 32), (300, 7), (4096, 64)])
@pytest.mark.parametrize("d", [4097, 300_100])
def test_a_message_of_cosines_depends_on_no_number_of_threads(chunk, k, d, threads, disable_numba):
    """In float64, where the last bit of a sum would show; and in both forms."""
    compressor, v = tg.compressor(f"dct(chunk={chunk}, k={k})"), tg.Key(d).normal(d)
    data = tg.pack(compressor.encode(v))
    for count in (1, 2, 3):
        threads(count)
        assert tg.pack(compressor.encode(v)) == data
    disable_numba()
    assert tg.pack(compressor.encode(v)) == data


def test_where_the_cosine_class_is_attained():
    """alpha = k/chunk where all coefficients are equal."""
    x = cosines(torch.ones(64, dtype=torch.float64), 64, inverse=True)
    compressor = tg.compressor("dct(chunk=64, k=8)")
    assert compressor.variance(x) / 64 == pytest.approx(1 - compressor.alpha(64), rel=1e-9)
    assert compressor.alpha(6400) == 8 / 64
    assert compressor.alpha(10) == 8 / 10
    smooth = torch.linspace(-1, 1, 640, dtype=torch.float64)
    assert compressor.variance(smooth) < 1e-3 * float(smooth @ smooth)


def test_unfit_chunks_are_refused():
    with pytest.raises(tg.SpecError, match="1 to `chunk` coefficients"):
        tg.compressor("dct(chunk=8, k=9)")
    with pytest.raises(tg.SpecError, match="1 to 4096 entries"):
        tg.compressor("dct(chunk=5000)")


@pytest.mark.parametrize("d", [9, 100, 777])
def test_srht_has_rand_ks_variance_on_every_vector(d):
    """A21: omega = d/k − 1 exactly, for a one-hot vector, too; 400 draws, 5 standard errors, the mean likewise."""
    v = torch.zeros(d, dtype=torch.float64)
    v[3] = 2.0
    compressor = tg.compressor("srht(k=0.2)")
    k = round(0.2 * d)
    assert compressor.omega(d) == pytest.approx(d / k - 1)
    errors = torch.stack([numbers(compressor.encode(v, KEY.fold(draw=n))) for n in range(400)]) - v
    squared = errors.square().sum(1)
    assert abs(float(squared.mean()) - 4 * (d / k - 1)) <= 5 * float(squared.std()) / 400**0.5
    assert bool((errors.mean(0).abs() <= 5 * errors.std(0) / 400**0.5 + 1e-12).all())


def test_all_of_srhts_coordinates_are_the_vector():
    x = torch.randn(1000, generator=torch.Generator().manual_seed(4))
    code = tg.compressor("srht(k=1000)").encode(x, KEY)
    assert torch.allclose(code.decode(), x, atol=1e-5)
    assert code.nbits < 32 * 1000 + 400
