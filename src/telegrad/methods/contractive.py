"""Refusing, at construction, a compressor that error feedback cannot live with."""

from __future__ import annotations

from contextlib import suppress

from telegrad.compressors.base import Compressor
from telegrad.errors import SpecError
from telegrad.methods.base import Method

__all__ = ["require_contractive"]


def require_contractive(
    method: Method, compressor: Compressor, instead: str = "unbiased compressors go with sgd(…)"
) -> None:
    """Raise `SpecError` where `compressor` has no alpha > 0 for vectors of any usual size: the memory would grow
    without bound. `instead`: where an unbiased one goes.
    """
    if method.allow_unsupported:
        return
    for d in (10**exponent for exponent in range(1, 9)):
        with suppress(SpecError):  # a count k may exceed this d
            if compressor.alpha(d) > 0.0:
                return
    cls = type(method)
    raise SpecError(
        f"{cls.spec_name} needs a contractive compressor (alpha > 0), and {compressor} is not one; "
        f"{instead}, or unscaled: randk(k=0.01, scaled=false). For example `{cls.example}`; "
        "to explore without theory, write allow_unsupported=true"
    )
