"""What the error of the first messages means for the learning rate, said once, by one rank."""

from __future__ import annotations

import logging

from telegrad.runtime.exchange import Exchange

__all__ = ["RateAdvice"]

_log = logging.getLogger("telegrad.ddp")


class RateAdvice:
    """Tells how large ω/M is on a run's own gradients, and whether plain training's learning rate fits (B7.4): at level
    INFO where it does, as a WARNING where the second moment more than doubles.

    Args:
        spec: the method or compressor, for the message.
        workers: M, the senders whose messages are averaged.
        twice: whether estimates are compressed once more, by the same compressor, on their way back (C2.2).
    """

    def __init__(self, spec: str, workers: int, twice: bool = False) -> None:
        self._spec, self._workers, self._twice, self._told = spec, workers, twice, False

    @classmethod
    def of(cls, exchange: Exchange) -> RateAdvice | None:
        """That of an exchange, on rank 0; None on the others."""
        (member,) = exchange.members
        twice = str(exchange.downlink.compressor) == str(getattr(exchange.method, "compressor", None))
        workers = exchange.topology.method_workers(member.workers)
        return cls(str(exchange.method), workers, twice) if member.rank == 0 else None

    def tell(self, omega: float | None) -> None:
        """Say it, the first time that `omega` is known and not 0."""
        if self._told or not omega:
            return
        self._told = True
        factor = (1 + omega / self._workers) * (1 + omega if self._twice else 1)
        said = f"{self._spec}: ω = {omega:.3g} on these gradients, ω/M = {omega / self._workers:.3g}"
        if self._twice:
            said += f", and ω once more on the way back: the second moment is {factor:.3g} times as large"
        if factor <= 2:
            _log.info("%s; the learning rate of training without compression fits", said)
        else:
            _log.warning(
                "%s; the learning rate of training without compression may be %.3g times too high: lower it, or take "
                "more bits, for example auto(bits=1)",
                said,
                factor,
            )
