"""Distributed optimisation methods, one a file."""

from telegrad.methods.base import Method
from telegrad.methods.diana import DIANA
from telegrad.methods.ef14 import EF14
from telegrad.methods.ef21 import EF21
from telegrad.methods.ef21_sgdm import EF21SGDM
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.sgd import SGD

__all__ = ["DIANA", "EF14", "EF21", "EF21SGDM", "SGD", "GradientMethod", "Method"]
