"""Quantisers of N(0, 1) against the constants of A21.4 and A21.5."""

import numpy as np
import pytest
import torch

from telegrad.kernels.quantising.gaussian_cells import (
    dead_zone,
    dead_zone_centroids,
    dead_zone_rate,
    entropy_coded_omega,
    lloyd_max,
    lloyd_max_omega,
)


@pytest.mark.parametrize(
    ("bits", "distortion", "omega", "centroids"),
    [
        (1, 0.363380, 0.570796, [0.797885]),
        (2, 0.117482, 0.133121, [0.452780, 1.510418]),
        (3, 0.034548, 0.035784, [0.245094, 0.756005, 1.343909, 2.151946]),
        (4, 0.009501, 0.009592, None),
    ],
)
def test_lloyd_max_constants(bits, distortion, omega, centroids):
    found, kept = lloyd_max(bits)
    assert 1 - kept == pytest.approx(distortion, abs=6e-7)
    assert lloyd_max_omega(bits) == pytest.approx(omega, abs=6e-7)
    if centroids:
        assert found == pytest.approx(centroids, abs=6e-7)


@pytest.mark.parametrize("bits", range(1, 9))
def test_lloyd_max_is_where_no_centroid_wants_to_move(bits):
    """Centroids are the means of their cells, by quadrature; and the rate is Panter and Dite's at many bits."""
    centroids, kept = lloyd_max(bits)
    z = np.linspace(0, 10, 2_000_001)
    weight = np.exp(-(z**2) / 2)
    cell = np.searchsorted((centroids[1:] + centroids[:-1]) / 2, z)
    means = np.bincount(cell, weight * z) / np.bincount(cell, weight)
    # The last few cells are thin, and the rule of rectangles has a step of 5e-6.
    assert np.abs(means - centroids).max() < 1e-4
    if bits >= 6:
        assert 1 - kept == pytest.approx(np.sqrt(3) * np.pi / 2 / 4**bits, rel=0.06)


def test_fractions_of_bits():
    assert lloyd_max_omega(0.25) == pytest.approx(1.570796 / 0.25 - 1, rel=1e-6)
    # Half of the entries at one bit and half at two keep half of the sum of the energies.
    assert lloyd_max_omega(1.5) == pytest.approx(1 / (1 - (0.363380 + 0.117482) / 2) - 1, rel=1e-5)


@pytest.mark.parametrize(
    ("rate", "omega"),
    [(0.02, 49.0), (0.09, 11.05), (0.25, 3.75), (0.49, 1.657), (1, 0.534), (2, 0.0976), (3, 0.0227)],
)
def test_the_dead_zone_reaches_the_table(rate, omega):
    entropy, kept = dead_zone_rate(*dead_zone(rate))
    assert entropy == pytest.approx(rate, rel=1e-6)
    assert 1 / kept - 1 == pytest.approx(omega, rel=3e-3)
    assert entropy_coded_omega(rate) == pytest.approx(omega, rel=3e-3)
    # Shannon's bound for the Gaussian law.
    assert 1 - kept > 4.0**-rate


def test_the_dead_zones_rate_and_centroids_are_those_of_a_sample():
    z = torch.randn(400_000, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    zero, step = dead_zone(1.0)
    symbol = torch.where(z.abs() < zero, 0.0, ((z.abs() - zero) / step).floor() + 1)
    share = torch.bincount(symbol.long()).double() / len(z)
    signed = torch.cat([share[:1], share[1:] / 2, share[1:] / 2])
    signed = signed[signed > 0]
    assert float(-(signed * signed.log2()).sum()) == pytest.approx(1.0, rel=5e-3)
    centroids = dead_zone_centroids(zero, step, 5)
    assert float(z.abs()[symbol == 1].mean()) == pytest.approx(float(centroids[1]), rel=5e-3)


def test_centroids_lie_in_their_cells_however_far_out():
    for zero, step in ((0.5, 1.0), (0.5, 0.01), (3.2, 8.0), (5e-4, 1e-3)):
        centroids = dead_zone_centroids(zero, step, 300)
        left = zero + step * torch.arange(300, dtype=torch.float64)
        assert float(centroids[0]) == 0.0
        assert bool((centroids[1:] >= left * (1 - 1e-7)).all())
        assert bool((centroids[1:] <= (left + step) * (1 + 1e-7)).all())
