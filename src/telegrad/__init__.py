"""telegrad: gradients as telegrams: short, exactly metered, unbiased."""

from telegrad import compressors as _compressors
from telegrad import methods as _methods
from telegrad import mlmc as _mlmc
from telegrad import workloads as _workloads
from telegrad.catalogue import catalogue, compressor, method
from telegrad.errors import (
    ConfigError,
    DataError,
    DivergedError,
    InputError,
    NonFiniteError,
    SpecError,
    TelegradError,
    TelegradWarning,
    WireError,
)
from telegrad.random import Key
from telegrad.runtime.simulate import Result, simulate
from telegrad.wire.code import Code
from telegrad.wire.message import pack, unpack

__version__ = "0.1.0"

__all__ = [
    "Code",
    "ConfigError",
    "DataError",
    "DivergedError",
    "InputError",
    "Key",
    "NonFiniteError",
    "Result",
    "SpecError",
    "TelegradError",
    "TelegradWarning",
    "WireError",
    "catalogue",
    "compressor",
    "method",
    "pack",
    "simulate",
    "unpack",
]
