"""What a training step costs, predicted: seconds and bytes of each compressor and topology; where compression pays.

A step is compute, encoding, transfer and decoding, one after the other:

    seconds = compute + sharing · (encode + decode + copies) + max(0, max(wire, host) − overlap · compute)
    wire = latencies + Σ over phases: bits over the busiest link / (efficiency · bandwidth), or 0 within a burst
    copies = 32 d · (vectors copied / memory_bandwidth + vectors copied into new memory / fresh_bandwidth)

`host` is the processor's own time for moving bytes, which runs beside the wire. A phase passes at once when it is no
longer than the burst that the link earned while it paused; of a longer one TCP wins nothing that can be relied on.
`telegrad.theory.exchanges` counts the bytes, calls and copies of each topology. Uncompressed gradients travel by the
better of a ring and a recursive doubling all-reduce. The comparison with measured steps is in
docs/measurements/cost-model.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from telegrad.theory.cluster import Cluster, Profile
from telegrad.theory.exchanges import TOPOLOGIES, TopologyName, checked_topology, traffic
from telegrad.theory.ranges import ABOVE_0, COUNT, Range, check

__all__ = [
    "TOPOLOGIES",
    "Cluster",
    "Profile",
    "StepCost",
    "TopologyName",
    "all_reduce",
    "break_even",
    "checked_topology",
    "step_cost",
]

DENSE = "identity"
_SECONDS = Range(what="seconds")


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


def step_cost(cluster: Cluster, profile: Profile, topology: TopologyName) -> StepCost:
    """The predicted step of `profile`'s compressor over `topology`. Raises `ConfigError` for an unknown topology."""
    there = traffic(cluster, profile, topology)
    encode = cluster.sharing * _in_calls(profile.encode, profile.encode_call, *there.encodings)
    encode_again = cluster.sharing * _in_calls(profile.encode_estimate, profile.encode_call, *there.again)
    decode = cluster.sharing * _in_calls(profile.decode, profile.decode_call, *there.decodings)
    copies = there.copies / cluster.memory_bandwidth + there.fresh / cluster.fresh_bandwidth
    copying = cluster.sharing * copies * 32.0 * profile.d
    # What lies between the phases; before the first one the link pauses for the rest of the step.
    between = (decode / len(there.phases) + encode_again) if len(there.phases) > 1 else 0.0
    before = cluster.compute + encode + encode_again + decode + copying - between
    wire = 0.0
    if cluster.workers > 1:
        wire = there.latencies * cluster.latency
        wire += _carried(cluster, list(zip((before, between), there.phases, strict=False)))
    wire += there.inside / cluster.node_bandwidth
    return _cost(cluster, (profile.spec, topology), encode + encode_again, decode, wire, there.sent, copying)


def _in_calls(whole: float, call: float, times: float, calls: float) -> float:
    """Seconds of so many `times` what takes `whole` seconds in one call, in so many `calls`."""
    return times * whole + (calls - times) * min(call, whole) if calls else 0.0


def _carried(cluster: Cluster, phases: Sequence[tuple[float, float]]) -> float:
    """Seconds that a link needs for each phase's payload, after the seconds that it pauses before; in the step that
    every later one is like.
    """
    saved, seconds = cluster.burst, 0.0
    for _ in range(2):
        seconds = 0.0
        for pause, payload in phases:
            bits = payload / cluster.efficiency
            # An endless bandwidth earns the whole burst in no time at all.
            saved = min(cluster.burst, saved + (pause * cluster.bandwidth if pause else 0.0))
            if bits <= saved:
                saved -= bits
            else:
                saved, seconds = 0.0, seconds + bits / cluster.bandwidth
    return seconds


def all_reduce(cluster: Cluster, d: int, bits: float = 32.0, convert: float = 0.0, spec: str = DENSE) -> StepCost:
    """The predicted step of an all-reduce of `d` numbers of so many `bits`: the better of a ring, which sends
    2(M − 1)/M of the tensor in 2(M − 1) phases, and of recursive doubling, which sends it ⌈log2 M⌉ times in as many.
    `convert`: seconds to convert to and from such numbers. Raises `ConfigError` for values out of range.
    """
    check(d=(d, COUNT), bits=(bits, ABOVE_0), convert=(convert, _SECONDS))
    m, tensor, convert = cluster.workers, bits * d, cluster.sharing * convert
    rounds = math.ceil(math.log2(m))
    ways = [(2 * (m - 1) / m * tensor, 2 * (m - 1)), (rounds * tensor, rounds)]

    def cost(sent: float, latencies: float) -> StepCost:
        wire = latencies * cluster.latency + _carried(cluster, [(cluster.compute + convert, sent)])
        return _cost(cluster, (spec, "all-reduce"), convert, 0.0, wire, sent)

    return min((cost(*way) for way in ways), key=lambda step: step.seconds)


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
