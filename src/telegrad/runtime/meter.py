"""What a handle tells a logger of its steps: bits, ratio, times, error."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from telegrad.runtime.exchange import Exchange
from telegrad.runtime.rate_advice import RateAdvice

__all__ = ["Meter", "Reading", "reading"]


@dataclass(frozen=True)
class Reading:
    """The account at the end of a step, since the start: bits that this rank sent and decoded, seconds, skipped steps.

    `error`: the squared error of this rank's own messages over the squared norm of its gradients, in the last step in
    which that was looked at; None before, and for methods whose messages are not of gradients.
    """

    steps: int = 0
    up: int = 0
    down: int = 0
    encode_seconds: float = 0.0
    wait_seconds: float = 0.0
    skipped: int = 0
    error: float | None = None


def reading(exchanges: Iterable[Exchange], steps: int, skipped: int) -> Reading:
    """The present reading of these exchanges, which are one rank's."""
    up = down = 0
    encode = wait = 0.0
    errors, squares = 0.0, 0.0
    for exchange in exchanges:
        rank = exchange.members[0].rank
        up += exchange.ledger.up[rank].total()
        down += exchange.ledger.down[rank].total()
        encode += exchange.seconds["encode"]
        wait += exchange.seconds["wait"]
        errors, squares = errors + exchange.error[0], squares + exchange.error[1]
    return Reading(steps, up, down, encode, wait, skipped, errors / squares if squares else None)


class Meter:
    """Readings at the ends of steps, and what lies between two of them. `advice` is told the first error."""

    def __init__(self, uncompressed_bits: int, advice: RateAdvice | None = None) -> None:
        self._uncompressed, self._advice = uncompressed_bits, advice
        self._before = self._newest = self._asked = Reading()

    def end_step(self, now: Reading) -> None:
        """A step has ended; a second reading of the same step replaces the first."""
        if now.steps != self._newest.steps:
            self._before = self._newest
        self._newest = now
        if self._advice is not None and now.error:
            self._advice.tell(now.error)
            self._advice = None

    def go_on_from(self, now: Reading) -> None:
        """A state was loaded, and with it the count of steps: what lies before `now` is of no step of this job."""
        self._before = self._newest = self._asked = now

    def last_step(self) -> dict[str, float]:
        """The figures of the last step; empty before there was one."""
        return self._between(self._before)

    def since_asked(self) -> dict[str, float]:
        """The mean figures of the steps since this was last asked; those of the last step where there was none."""
        found = self._between(self._asked) or self.last_step()
        self._asked = self._newest
        return found

    def _between(self, start: Reading) -> dict[str, float]:
        end = self._newest
        steps = end.steps - start.steps
        if steps <= 0:
            return {}
        up = (end.up - start.up) / steps
        figures = {
            "comm/bits_up": up,
            "comm/bits_down": (end.down - start.down) / steps,
            "comm/ratio": self._uncompressed / up if up else 0.0,
            "comm/encode_ms": 1e3 * (end.encode_seconds - start.encode_seconds) / steps,
            "comm/wait_ms": 1e3 * (end.wait_seconds - start.wait_seconds) / steps,
            "comm/skipped": float(end.skipped),
        }
        if end.error is not None:
            figures["comm/omega"] = end.error
        return figures
