"""telegrad: gradients as telegrams: short, exactly metered, unbiased."""

from telegrad import compressors, methods, mlmc, portfolio, workloads
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
from telegrad.wire.file import load, save
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
    "compressors",
    "load",
    "method",
    "methods",
    "mlmc",
    "pack",
    "portfolio",
    "save",
    "simulate",
    "unpack",
    "workloads",
]
