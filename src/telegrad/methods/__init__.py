"""Distributed optimisation methods, one a file."""

from telegrad.methods.adiana import ADIANA
from telegrad.methods.async_sgd import AsyncSGD
from telegrad.methods.asynchronous_method import AsynchronousMethod
from telegrad.methods.base import Method
from telegrad.methods.clock import Clock
from telegrad.methods.diana import DIANA
from telegrad.methods.ef14 import EF14
from telegrad.methods.ef21 import EF21
from telegrad.methods.ef21_sgdm import EF21SGDM
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.marina import MARINA
from telegrad.methods.oracle_method import OracleMethod
from telegrad.methods.scaffnew import Scaffnew
from telegrad.methods.sgd import SGD
from telegrad.methods.shadowheart import Shadowheart

__all__ = [
    "ADIANA",
    "DIANA",
    "EF14",
    "EF21",
    "EF21SGDM",
    "MARINA",
    "SGD",
    "AsyncSGD",
    "AsynchronousMethod",
    "Clock",
    "GradientMethod",
    "Method",
    "OracleMethod",
    "Scaffnew",
    "Shadowheart",
]
