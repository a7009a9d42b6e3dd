"""What a step's cost is predicted from: the machines with their links, and what a compressor makes of a gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

from telegrad.theory.ranges import COUNT, FROM_1, SHARE, Range, check_all

__all__ = ["Cluster", "Profile"]

_BANDWIDTH = Range(open_low=True, infinite=True, what="bits per second")
_SECONDS = Range(what="seconds")
_FOREVER = Range(what="seconds", infinite=True)
_BITS = Range(what="bits")


@dataclass(frozen=True)
class Cluster:
    """The machines.

    `workers`; `bandwidth`: bits per second of a worker's link, in each direction at once; `latency`: seconds one way;
    `compute`: seconds of forward and backward; `node`: workers within a machine, joined by links of `node_bandwidth`
    (for `hierarchical`); `efficiency`: the share of the bandwidth that carries payload (packet headers and
    acknowledgements take the rest); `overlap`: the share of `compute` during which messages may already travel;
    `sharing`: how many workers share the processor that encodes and decodes; `host_bandwidth`: bits per second that
    this processor moves into and out of sockets; `memory_bandwidth`: bits per second at which it copies a gradient,
    and `fresh_bandwidth`: into memory that the system has to hand out first (`telegrad.theory.profiles.copy_bandwidth`
    measures both); `burst`: bits that a link which has paused carries at once, as shapers allow it; it earns them at
    `bandwidth`. Raises `ConfigError` for values out of range.
    """

    workers: int
    bandwidth: float
    latency: float = 1e-4
    compute: float = 0.0
    node: int = 1
    node_bandwidth: float = math.inf
    efficiency: float = 0.92
    overlap: float = 0.0
    sharing: float = 1.0
    host_bandwidth: float = math.inf
    memory_bandwidth: float = math.inf
    fresh_bandwidth: float = math.inf
    burst: float = 0.0

    def __post_init__(self) -> None:
        bandwidths = ("bandwidth", "node_bandwidth", "host_bandwidth", "memory_bandwidth", "fresh_bandwidth")
        check_all(
            vars(self),
            {
                "workers": COUNT,
                **dict.fromkeys(bandwidths, _BANDWIDTH),
                **dict.fromkeys(("latency", "compute"), _SECONDS),
                "node": Range(low=1, high=self.workers, whole=True),
                "efficiency": Range(high=1, open_low=True),
                "overlap": SHARE,
                "sharing": FROM_1,
                "burst": _BITS,
            },
        )


@dataclass(frozen=True)
class Profile:
    """What a compressor makes of a gradient of `d` entries: `bits` of a message, `omega` = E‖C(x) − x‖²/‖x‖² on such a
    gradient, and this machine's seconds to encode and pack one, and to unpack and add up one; of these `encode_call`
    and `decode_call` are spent, and `frame` bits sent, however short the message is.

    `again`: seconds to encode an estimate in place of a gradient, which has other values (default: as many); `pieces`:
    in how many messages a gradient is sent, as DDP's buckets are. Raises `ConfigError` for values out of range.
    """

    spec: str
    d: int
    bits: float
    omega: float
    encode: float
    decode: float
    unbiased: bool = True
    encode_call: float = 0.0
    decode_call: float = 0.0
    again: float | None = None
    frame: float = 0.0
    pieces: int = 1

    def __post_init__(self) -> None:
        whole, call = (
            dict.fromkeys(("encode", "decode"), _FOREVER),
            dict.fromkeys(("encode_call", "decode_call"), _SECONDS),
        )
        counts = dict.fromkeys(("d", "pieces"), COUNT)
        bits, omega = Range(infinite=True, what="bits"), Range(infinite=True)
        again = {"again": _FOREVER} if self.again is not None else {}
        check_all(vars(self), {**counts, "bits": bits, "omega": omega, **whole, **call, **again, "frame": _BITS})

    @property
    def encode_estimate(self) -> float:
        """Seconds to encode an estimate: `again` where it is known."""
        return self.encode if self.again is None else self.again
