"""What a training step costs, predicted: seconds and bytes of each compressor and topology; where compression pays.

A step is compute, encoding, transfer and decoding, one after the other:

    seconds = compute + sharing · (encode + decode + copies) + max(0, max(wire, host) − overlap · compute)
    wire = phases · latency + 8 · bytes over the busiest link / (efficiency · bandwidth)
    copies = 32 d · (vectors copied / memory_bandwidth + vectors copied into new memory / fresh_bandwidth)

`host` is the processor's own time for moving bytes, which runs beside the wire. The bytes, phases and copies of each
topology are those of `telegrad.runtime.topologies`. Uncompressed gradients travel by the better of a ring and a
recursive doubling all-reduce. The comparison with measured steps is in docs/theory-costs.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from telegrad.errors import ConfigError
from telegrad.theory.ranges import ABOVE_0, COUNT, FROM_1, SHARE, Range, check, check_all

__all__ = [
    *("TOPOLOGIES", "Cluster", "Profile", "StepCost", "TopologyName"),
    *("all_reduce", "break_even", "checked_topology", "step_cost"),
]

TopologyName = Literal["allgather", "two_phase", "server", "hierarchical"]
TOPOLOGIES: tuple[TopologyName, ...] = ("allgather", "two_phase", "server", "hierarchical")
DENSE = "identity"
_BANDWIDTH = Range(open_low=True, infinite=True, what="bits per second")
_SECONDS = Range(what="seconds")
_FOREVER = Range(what="seconds", infinite=True)


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
    measures both). Raises `ConfigError` for values out of range.
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
            },
        )


@dataclass(frozen=True)
class Profile:
    """What a compressor makes of a gradient of `d` entries: `bits` of a message, `omega` = E‖C(x) − x‖²/‖x‖² on such a
    gradient, and this machine's seconds to encode and pack one, and to unpack and add up one; of these `encode_call`
    and `decode_call` are spent however short the message is. Raises `ConfigError` for values out of range.
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

    def __post_init__(self) -> None:
        whole, call = (
            dict.fromkeys(("encode", "decode"), _FOREVER),
            dict.fromkeys(("encode_call", "decode_call"), _SECONDS),
        )
        bits, omega = Range(infinite=True, what="bits"), Range(infinite=True)
        check_all(vars(self), {"d": COUNT, "bits": bits, "omega": omega, **whole, **call})


@dataclass(frozen=True)
class StepCost:
    """One predicted step in seconds, and its parts: `compute`, `encode`, `decode`, `copies` of whole gradients, and
    `transfer`. `sent` is the bytes that a worker hands to its link in a step.
    """

    spec: str
    topology: str
    seconds: float
    compute: float
    encode: float
    decode: float
    transfer: float
    sent: float
    copies: float = 0.0


@dataclass(frozen=True)
class _Traffic:
    """Bits that leave a worker, bits over the busiest link, one-way latencies; and what the busiest rank does one after
    the other: encodings and decodings of whole gradients (in how many `calls`, where they are cut), and
    vectors as long as the gradient that it copies, or copies into `fresh` memory. Setting one to zero is half a copy:
    it writes and does not read.
    """

    sent: float
    busiest: float
    phases: float
    encodings: float
    decodings: float
    copies: float
    fresh: float = 0.0
    calls: tuple[float, float] | None = None
    inside: float = 0.0


def _allgather(cluster: Cluster, b: float, dense: float, unbiased: bool) -> _Traffic:
    others = cluster.workers - 1
    # The estimate takes the gradient's place in memory, which is set to zero.
    return _Traffic(others * b, others * b, 2, 1, cluster.workers, 0.5)


def _two_phase(cluster: Cluster, b: float, dense: float, unbiased: bool) -> _Traffic:
    m = cluster.workers
    back = b if unbiased else dense
    bits = (m - 1) / m * (b + back)
    again = 1 / m if unbiased else 0.0
    # The gradient cut into shards, this rank's own estimate set to zero, all estimates decoded from zero, and joined.
    return _Traffic(
        bits, bits, 4, 1 + again, 1 + (1 if unbiased else 0), 2.5 + 0.5 / m, calls=(m + (1 if unbiased else 0), 2 * m)
    )


def _server(cluster: Cluster, b: float, dense: float, unbiased: bool) -> _Traffic:
    others = cluster.workers - 1
    # The server's estimate set to zero; packed, put in line for every other rank, and read by the server itself.
    return _Traffic(b, others * (b + dense), 4, 1, cluster.workers, 0.5, others + 2)


def _hierarchical(cluster: Cluster, b: float, dense: float, unbiased: bool) -> _Traffic:
    nodes = math.ceil(cluster.workers / cluster.node)
    inside = 2 * (cluster.node - 1) * dense
    # The node's first rank: every gradient received and read, their sum in float64 and back, the estimate packed, put
    # in line for the others, and read.
    fresh = 3 * cluster.node + 4 if cluster.node > 1 else 0
    return _Traffic((nodes - 1) * b, (nodes - 1) * b, 6, 1, nodes, 0.5, fresh, inside=inside)


_TRAFFIC: dict[TopologyName, Callable[[Cluster, float, float, bool], _Traffic]] = {
    "allgather": _allgather,
    "two_phase": _two_phase,
    "server": _server,
    "hierarchical": _hierarchical,
}


def checked_topology(name: str) -> TopologyName:
    """The name of a topology that the model knows. Raises `ConfigError` for another."""
    found = next((known for known in TOPOLOGIES if known == name), None)
    if found is None:
        raise ConfigError(f"topology={name}: {', '.join(TOPOLOGIES)} are allowed")
    return found


def step_cost(cluster: Cluster, profile: Profile, topology: TopologyName) -> StepCost:
    """The predicted step of `profile`'s compressor over `topology`. Raises `ConfigError` for an unknown topology."""
    traffic = _TRAFFIC[checked_topology(topology)](cluster, profile.bits, 32.0 * profile.d, profile.unbiased)
    wire = _wire(cluster, traffic.busiest, traffic.phases if cluster.workers > 1 else 0.0)
    wire += traffic.inside / cluster.node_bandwidth
    encode_calls, decode_calls = traffic.calls or (traffic.encodings, traffic.decodings)
    copies = traffic.copies / cluster.memory_bandwidth + traffic.fresh / cluster.fresh_bandwidth
    return _cost(
        cluster,
        (profile.spec, topology),
        cluster.sharing * _in_calls(profile.encode, traffic.encodings, profile.encode_call, encode_calls),
        cluster.sharing * _in_calls(profile.decode, traffic.decodings, profile.decode_call, decode_calls),
        wire,
        traffic.sent,
        cluster.sharing * copies * 32.0 * profile.d,
    )


def _in_calls(whole: float, times: float, call: float, calls: float) -> float:
    """Seconds of so many `times` what takes `whole` seconds in one call, in so many `calls`."""
    return times * whole + (calls - times) * min(call, whole)


def all_reduce(cluster: Cluster, d: int, bits: float = 32.0, convert: float = 0.0, spec: str = DENSE) -> StepCost:
    """The predicted step of an all-reduce of `d` numbers of so many `bits`: the better of a ring, which sends
    2(M − 1)/M of the tensor in 2(M − 1) phases, and of recursive doubling, which sends it ⌈log2 M⌉ times in as many.
    `convert`: seconds to convert to and from such numbers. Raises `ConfigError` for values out of range.
    """
    check(d=(d, COUNT), bits=(bits, ABOVE_0), convert=(convert, _SECONDS))
    m, tensor = cluster.workers, bits * d
    rounds = math.ceil(math.log2(m))
    ways = [(2 * (m - 1) / m * tensor, 2 * (m - 1)), (rounds * tensor, rounds)]
    steps = [
        _cost(cluster, (spec, "all-reduce"), cluster.sharing * convert, 0.0, _wire(cluster, *way), way[0])
        for way in ways
    ]
    return min(steps, key=lambda step: step.seconds)


def _wire(cluster: Cluster, bits: float, phases: float) -> float:
    return phases * cluster.latency + bits / (cluster.efficiency * cluster.bandwidth)


def _cost(
    cluster: Cluster,
    name: tuple[str, str],
    encode: float,
    decode: float,
    wire: float,
    sent: float,
    copies: float = 0.0,
) -> StepCost:
    host = cluster.sharing * sent / cluster.host_bandwidth
    transfer = max(0.0, max(wire, host) - cluster.overlap * cluster.compute)
    seconds = cluster.compute + encode + decode + copies + transfer
    return StepCost(*name, seconds, cluster.compute, encode, decode, transfer, sent / 8, copies)


def break_even(cost: Callable[[Cluster], float], dense: Callable[[Cluster], float], cluster: Cluster) -> float | None:
    """The bandwidth in bits per second below which `cost` is less than `dense`, both as functions of the cluster.

    None where compression never pays; infinity where it always does (up to 1e15 bits per second).
    """

    def gain(bandwidth: float) -> float:
        there = replace(cluster, bandwidth=bandwidth)
        return dense(there) - cost(there)

    low, high = 1.0, 1e15
    if gain(low) <= 0:
        return None
    if gain(high) > 0:
        return math.inf
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if gain(middle) > 0 else (low, middle)
        if high / low < 1 + 1e-9:
            break
    return high
