"""Chunked Top-k in bins, against its definition by hand."""

import pytest
import torch

import telegrad as tg


def test_each_chunk_keeps_its_own_largest_and_the_last_may_be_short():
    c = tg.compressor("chunk_topk(chunk=4, k=1, bins=none)")
    x = torch.tensor([1.0, -9, 9, 2, 0.1, 0.3, -0.2, 0, 5, -6])
    assert c.decode(c.encode(x)).tolist() == pytest.approx([0, -9, 0, 0, 0, 0.3, 0, 0, 0, -6])
    assert c.alpha(10) == 1 / 4


def test_entries_stand_for_the_mean_of_their_bin():
    """σ = √4.5: inner bins reach to 1.5 σ = 3.18; 1 and 2 share a bin, −1 is alone, 5 lies beyond."""
    c = tg.compressor("chunk_topk(chunk=8, k=8)")
    x = torch.tensor([1.0, 2, -1, 5, -2, 1, 0, 0], dtype=torch.float64)
    sigma = float(x[:6].square().mean().sqrt())
    assert 2 < 1.5 * sigma < 5
    expected = [4 / 3, 4 / 3, -1.5, 5, -1.5, 4 / 3, 0, 0]
    code = c.encode(x)
    assert c.decode(code).tolist() == pytest.approx(expected)
    assert c.variance(x) == pytest.approx(sum((a - b) ** 2 for a, b in zip(x.tolist(), expected, strict=True)))


def test_two_bits_a_value_and_gaps_within_chunks():
    """64 of 4096 entries: at most 2 bits a value and about 8 for a gap of 64, and the four means."""
    x = torch.randn(40 * 4096, generator=torch.Generator().manual_seed(0))
    code = tg.compressor("chunk_topk").encode(x)
    assert code.fields["value"] <= 2 * 40 * 64 + 64
    assert code.fields["scale"] == 4 * 32
    assert code.nbits < 40 * 64 * 11


def test_the_class_is_not_left_where_one_entry_towers_over_many():
    c = tg.compressor("chunk_topk(chunk=512, k=512)")
    for top in (1.0, 3.0, 30.0, 1000.0):
        for small in (0.0, 1e-3, 0.5, 0.99):
            x = torch.full((512,), small, dtype=torch.float64)
            x[::7], x[100] = 1.0, top
            assert c.variance(x) <= (1 - c.alpha(512)) * float(x.square().sum())
    assert c.alpha(512) > 0.2


def test_bins_are_even_in_number():
    with pytest.raises(tg.SpecError, match="an even number from 4 to 256, or none"):
        tg.compressor("chunk_topk(bins=3)")
