"""telegrad: gradients as telegrams: short, exactly metered, unbiased."""

import importlib
from typing import TYPE_CHECKING, Any

# These register every name that a spec may use.
from telegrad import compressors, methods, mlmc, portfolio, workloads  # noqa: F401
from telegrad.adapters.attach import attach
from telegrad.catalogue import catalogue, compressor, method
from telegrad.citation import citation
from telegrad.compressors.base import Compressor
from telegrad.errors import (
    CommunicationError,
    ConfigError,
    DataError,
    DivergedError,
    DriftError,
    InputError,
    NonFiniteError,
    SpecError,
    TelegradError,
    TelegradWarning,
    WireError,
)
from telegrad.methods.base import Method
from telegrad.mlmc.ladder import Ladder
from telegrad.random import Key
from telegrad.runtime import ddp, outer
from telegrad.runtime.simulate import simulate
from telegrad.runtime.topologies.base import Topology
from telegrad.runtime.training import Result
from telegrad.spec import register
from telegrad.theory.diagnosis import diagnose
from telegrad.version import __version__  # noqa: F401
from telegrad.wire.code import Code
from telegrad.wire.file import load, save
from telegrad.wire.message import pack, unpack
from telegrad.workloads import task

if TYPE_CHECKING:
    from telegrad.runtime import fsdp

__all__ = [
    "Code",
    "CommunicationError",
    "Compressor",
    "ConfigError",
    "DataError",
    "DivergedError",
    "DriftError",
    "InputError",
    "Key",
    "Ladder",
    "Method",
    "NonFiniteError",
    "Result",
    "SpecError",
    "TelegradError",
    "TelegradWarning",
    "Topology",
    "WireError",
    "attach",
    "catalogue",
    "citation",
    "compressor",
    "ddp",
    "diagnose",
    "fsdp",
    "load",
    "method",
    "outer",
    "pack",
    "register",
    "save",
    "simulate",
    "task",
    "unpack",
]


# Loaded when asked for: torch's half of a sharded model takes as long as all of telegrad, and an adapter needs its
# framework.
_LATE = {
    "fsdp": "telegrad.runtime.fsdp",
    "accelerate": "telegrad.adapters.accelerate",
    "flower": "telegrad.adapters.flower",
    "lightning": "telegrad.adapters.lightning",
    "transformers": "telegrad.adapters.transformers",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        return importlib.import_module(_LATE[name])
    raise AttributeError(f"module 'telegrad' has no attribute {name!r}")
