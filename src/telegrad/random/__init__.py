"""Keyed, counter-based random numbers: a `Key` names a stream, which is the same wherever it is drawn."""

from telegrad.random.key import Key

__all__ = ["Key"]
