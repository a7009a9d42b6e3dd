"""Distributed optimisation methods, one a file."""

from telegrad.methods.base import Method
from telegrad.methods.ef14 import EF14
from telegrad.methods.ef21 import EF21
from telegrad.methods.ef21_sgdm import EF21SGDM
from telegrad.methods.sgd import SGD

__all__ = ["EF14", "EF21", "EF21SGDM", "SGD", "Method"]
