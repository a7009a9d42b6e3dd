"""The five vectors of B14, with signs and order of one key."""

from telegrad.lab.vectors import DISTRIBUTIONS, quantile_vector
from telegrad.random import Key


def quantile_vectors(d=100_000):
    """Name to vector, in the order of the table's columns."""
    return {name: quantile_vector(name, d, Key(0)) for name in DISTRIBUTIONS}
