"""The numbers that are allowed: a range in words, and the error that names the culprit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real

from telegrad.errors import ConfigError

__all__ = ["ABOVE_0", "COUNT", "FROM_0", "FROM_1", "SHARE", "Range", "check", "check_all"]


@dataclass(frozen=True)
class Range:
    """Numbers from `low` (above it, where `open_low`) up to `high` (below it, where `open_high`); `whole` ones only;
    infinity only where `infinite`. `what` they are, for the error.
    """

    low: float = 0.0
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False
    whole: bool = False
    infinite: bool = False
    what: str = "a number"

    @property
    def allowed(self) -> str:
        """The range in words."""
        kind = "an integer" if self.whole else self.what
        low = f"above {self.low:g}" if self.open_low else f"from {self.low:g}"
        if math.isinf(self.high):
            return f"{kind} {low}"
        return f"{kind} {low} and below {self.high:g}" if self.open_high else f"{kind} {low} up to {self.high:g}"

    def instead_of(self, value: object) -> str:
        """The range in words for the error about `value`: infinity is called by its name."""
        if not self.infinite and isinstance(value, float) and math.isinf(value):
            return f"{self.allowed}, and not infinite,"
        return self.allowed

    def fits(self, value: object) -> bool:
        """Whether `value` is a number in the range that a float64 holds."""
        if isinstance(value, bool) or not isinstance(value, Real):
            return False
        try:
            number = float(value)
        except OverflowError:
            return False
        above = number > self.low if self.open_low else number >= self.low
        below = number < self.high if self.open_high else number <= self.high
        if not (above and below) or (math.isinf(number) and not self.infinite):
            return False
        return not self.whole or number == int(number)


ABOVE_0 = Range(open_low=True)
FROM_0 = Range()
FROM_1 = Range(low=1)
COUNT = Range(low=1, whole=True)
SHARE = Range(high=1)


def check(**given: tuple[object, Range]) -> None:
    """Raise `ConfigError` for the first of these values that is not in its range: `check(d=(d, COUNT))`."""
    for name, (value, allowed) in given.items():
        if not allowed.fits(value):
            raise ConfigError(f"{name}={value}: {allowed.instead_of(value)} is allowed")


def check_all(values: Mapping[str, object], ranges: Mapping[str, Range]) -> None:
    """`check` the values that have a range."""
    check(**{name: (values[name], allowed) for name, allowed in ranges.items()})
