"""Numbers with units as people write them: bandwidths, times and counts."""

from __future__ import annotations

import math
import re

from telegrad.errors import ConfigError

__all__ = ["parse_bandwidth", "parse_count", "parse_seconds"]

_NUMBER = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*([^\s\d]*)\s*")
_PREFIXES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9, "min": 60.0, "h": 3600.0, "": 1.0}
_BANDWIDTHS = {f"{prefix}bit": size for prefix, size in _PREFIXES.items()} | {
    f"{prefix}B": 8 * size for prefix, size in _PREFIXES.items()
}


def parse_bandwidth(text: str, name: str = "bandwidth") -> float:
    """Bits per second from `1Gbit`, `10 Mbit/s`, `100Mbps`, `12.5MB/s`. Raises `ConfigError` for anything else."""
    value, unit = _split(text, name, "a bandwidth such as 1Gbit, 100Mbit/s or 12.5MB/s")
    word = unit.removesuffix("/s")
    word = word.removesuffix("ps") + "it" if word.endswith("bps") else word
    word = "k" + word[1:] if word.startswith("K") else word
    if word not in _BANDWIDTHS:
        raise ConfigError(f"{name}={text}: unknown unit {unit!r}; allowed are bit, kbit, Mbit, Gbit, Tbit, or B, kB, …")
    return _positive(value * _BANDWIDTHS[word], name, text, "a bandwidth above 0")


def parse_seconds(text: str, name: str = "time") -> float:
    """Seconds from `0.1ms`, `20us`, `2s` or `3`. Raises `ConfigError` for anything else, and below 0."""
    value, unit = _split(text, name, "a time such as 0.1ms, 20us or 2s")
    if unit not in _SECONDS:
        raise ConfigError(f"{name}={text}: unknown unit {unit!r}; allowed are s, ms, us, ns, min, h")
    seconds = value * _SECONDS[unit]
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ConfigError(f"{name}={text}: a time from 0 is allowed")
    return seconds


def parse_count(text: str, name: str = "count") -> int:
    """A whole number from `25e6`, `25M` or `1024`. Raises `ConfigError` for anything else, and below 1."""
    value, unit = _split(text, name, "a number such as 25e6 or 25M")
    sizes = _PREFIXES | {"K": 1e3, "B": 1e9}
    if unit not in sizes:
        raise ConfigError(f"{name}={text}: unknown unit {unit!r}; allowed are k, M, G (or B), T")
    count = _positive(value * sizes[unit], name, text, "a number from 1")
    if count < 1 or abs(count - round(count)) > 1e-6 * count:
        raise ConfigError(f"{name}={text}: a whole number from 1 is allowed")
    return round(count)


def _split(text: str, name: str, wanted: str) -> tuple[float, str]:
    match = _NUMBER.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ConfigError(f"{name}={text}: {wanted} is wanted")
    return float(match[1]), match[2]


def _positive(value: float, name: str, text: str, allowed: str) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name}={text}: {allowed} is allowed")
    return value
