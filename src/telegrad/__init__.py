"""telegrad: gradient compression for PyTorch, unbiased and exactly metered.

What needs torch is imported when it is first asked for: `import telegrad` and `telegrad --help` wait for nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

from telegrad.catalogue import catalogue, compressor, method
from telegrad.citation import citation
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
from telegrad.spec import register
from telegrad.version import __version__  # noqa: F401

if TYPE_CHECKING:
    from telegrad.adapters.attach import attach
    from telegrad.compressors.base import Compressor, Contractive, Unbiased
    from telegrad.context import Context
    from telegrad.methods.base import Method
    from telegrad.mlmc.ladder import Ladder
    from telegrad.random import Key
    from telegrad.runtime import ddp, fsdp, outer
    from telegrad.runtime.simulate import simulate
    from telegrad.runtime.topologies.base import Topology
    from telegrad.runtime.training import Result
    from telegrad.theory.diagnosis import diagnose
    from telegrad.wire.code import Code
    from telegrad.wire.file import load, save
    from telegrad.wire.message import pack, unpack
    from telegrad.workloads import task

__all__ = [
    "Code",
    "CommunicationError",
    "Compressor",
    "ConfigError",
    "Context",
    "Contractive",
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
    "Unbiased",
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


_LATE = {
    "telegrad.adapters.attach": ("attach",),
    "telegrad.compressors.base": ("Compressor", "Contractive", "Unbiased"),
    "telegrad.context": ("Context",),
    "telegrad.methods.base": ("Method",),
    "telegrad.mlmc.ladder": ("Ladder",),
    "telegrad.random": ("Key",),
    "telegrad.runtime.simulate": ("simulate",),
    "telegrad.runtime.topologies.base": ("Topology",),
    "telegrad.runtime.training": ("Result",),
    "telegrad.theory.diagnosis": ("diagnose",),
    "telegrad.wire.code": ("Code",),
    "telegrad.wire.file": ("load", "save"),
    "telegrad.wire.message": ("pack", "unpack"),
    "telegrad.workloads": ("task",),
}
_HOMES = {name: module for module, names in _LATE.items() for name in names}
_MODULES = {
    "ddp": "telegrad.runtime.ddp",
    "fsdp": "telegrad.runtime.fsdp",
    "outer": "telegrad.runtime.outer",
    "accelerate": "telegrad.adapters.accelerate",
    "flower": "telegrad.adapters.flower",
    "lightning": "telegrad.adapters.lightning",
    "transformers": "telegrad.adapters.transformers",
    "writers": "telegrad.adapters.writers",
}
_PACKAGES = (
    *("adapters", "compressors", "kernels", "lab", "methods", "mlmc", "portfolio", "random", "runtime", "theory"),
    *("wire", "workloads"),
)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
    elif name in _MODULES or name in _PACKAGES:
        found = importlib.import_module(_MODULES.get(name, f"telegrad.{name}"))
    else:
        raise AttributeError(f"module 'telegrad' has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
