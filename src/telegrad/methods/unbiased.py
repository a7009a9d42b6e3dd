"""Refusing a compressor that is not unbiased, and the constant that methods with shifts take from an unbiased one."""

from __future__ import annotations

import math

from telegrad.compressors.base import Compressor
from telegrad.errors import SpecError
from telegrad.methods.base import Method
from telegrad.spec import Registered

__all__ = ["momentum_of", "require_unbiased", "shift_rate_of"]


def require_unbiased(method: Method, compressor: Compressor) -> None:
    """Raise `SpecError` where `compressor` is biased: its errors would not average out."""
    if not compressor.unbiased and not method.allow_unsupported:
        cls = type(method)
        raise SpecError(
            f"{cls.spec_name} needs an unbiased compressor, and {compressor} is not one; contractive compressors go "
            f"with ef21(…), or made unbiased by mlmc(…) or induced(…). For example `{cls.example}`; to explore without "
            "theory, write allow_unsupported=true"
        )


def shift_rate_of(method: Registered, compressor: Compressor, d: int) -> float:
    """1/(1 + omega(d)). Raises `SpecError` where no finite omega is known."""
    omega = compressor.omega(d)
    if not math.isfinite(omega):
        raise SpecError(
            f"{method}: no finite omega is known of {compressor} for {d} entries; give the rate that depends on it, "
            f"for example {type(method).spec_name}(…, shift_rate=0.1)"
        )
    return 1 / (1 + omega)


def momentum_of(method: Registered, compressor: Compressor, d: int, given: float | None, omega: float = -1.0) -> float:
    """The a of DASHA: `given`, or 1/(2 omega + 1), with `omega` that of the compressor at d entries unless told.
    Raises `SpecError` where no finite omega is known.
    """
    if given is not None:
        return given
    known = compressor.omega(d) if omega < 0 else omega
    if not math.isfinite(known):
        raise SpecError(
            f"{method}: no finite omega is known of {compressor} for {d} entries; give the rate that depends on it, "
            f"for example {type(method).spec_name}(…, rate=0.05)"
        )
    return 1 / (2 * known + 1)
