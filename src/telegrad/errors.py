"""Everything telegrad raises or warns with.

Each message says what was given, what is allowed, and what to write instead.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = [
    "CommunicationError",
    "ConfigError",
    "DataError",
    "DivergedError",
    "DriftError",
    "InputError",
    "NonFiniteError",
    "SpecError",
    "TelegradError",
    "TelegradWarning",
    "WireError",
]


class TelegradError(Exception):
    """The root of all errors that telegrad raises on purpose."""


class SpecError(TelegradError, ValueError):
    """A spec string or one of its arguments is wrong: unknown name, bad value, k larger than d, or parts that do not
    fit.
    """


class WireError(TelegradError, ValueError):
    """Bytes that are not a message telegrad packed: truncated, damaged, foreign, or of another version."""


class InputError(TelegradError, TypeError):
    """A tensor of a kind that cannot be compressed, a call without what it needs (a key, a file of the right kind), or
    what a class of yours returns that is no message.
    """


class NonFiniteError(TelegradError, ArithmeticError):
    """A gradient holds NaN or infinity, or what would be sent overflows the tensor's dtype."""


class DivergedError(TelegradError, ArithmeticError):
    """A training run has only non-finite gradients left. `records` holds its evaluations so far."""

    def __init__(self, message: str, records: Sequence[dict[str, float | int]] = ()) -> None:
        super().__init__(message)
        self.records = list(records)


class CommunicationError(TelegradError, RuntimeError):
    """An exchange between ranks failed: a worker is lost, or the network is down."""


class DriftError(TelegradError, RuntimeError):
    """The parameters differ between ranks that should hold the same."""


class DataError(TelegradError, FileNotFoundError):
    """A data set or run directory is missing, empty, or not what it should be."""


class ConfigError(TelegradError, ValueError):
    """An experiment's configuration is wrong."""


class TelegradWarning(UserWarning):
    """The root of all warnings that telegrad emits."""
