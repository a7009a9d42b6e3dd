"""Text on terminals and pipes that know few characters (Windows' code pages, ASCII locales): signs are spelt out."""

from __future__ import annotations

import codecs
import sys
import unicodedata

__all__ = ["spell_out"]

_PAIRS = (
    "± +-;× x;· *;− -;– -;— -;… ...;‖ ||;√ sqrt ;∞ inf;≤ <=;≥ >=;≠ !=;≈ ~;→ ->;← <-;∈  in ;⌊ floor(;⌋ );"
    "α alpha;β beta;γ gamma;Δ Delta;δ delta;ε eps;η eta;λ lambda;μ mu;π pi;σ sigma;Σ sum ;τ tau;φ phi;"
    "ω omega;“ \";” \";’ ';‘ ';⌈ ceil(;⌉ );ℓ l;⁻ -;⁺ +;² ^2;³ ^3;⁰ ^0;¹ ^1;⁷ ^7;ᵀ ^T;₁ _1;₂ _2;½ 1/2;¼ 1/4;"
    "′ ';⟨ <;⟩ >;∇ grad ;ξ xi;κ kappa;∝ ~;↦ ->;µ mu;"
    "ν nu;χ chi;θ theta;⊙ *;⁴ ^4;ᵢ _i;\u0302 _hat;\u0304 _mean"
)
_SPELT = dict(pair.split(" ", 1) for pair in _PAIRS.split(";"))


def spell_out() -> None:
    """From now on, standard output and error write what their encoding lacks in letters, instead of failing."""
    codecs.register_error("telegrad.spelt", _spelt)
    for stream in (sys.stdout, sys.stderr):
        # What a program has put in the place of a stream may have no encoding of its own.
        if hasattr(stream, "reconfigure") and not (stream.encoding or "").lower().startswith("utf"):
            stream.reconfigure(errors="telegrad.spelt")


def _spelt(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_letters, error.object[error.start : error.end])), error.end


def _letters(sign: str) -> str:
    """ASCII for one character: as listed, else without its accents, else a question mark."""
    plain = unicodedata.normalize("NFKD", sign).encode("ascii", "ignore").decode()
    return _SPELT.get(sign) or plain or "?"
