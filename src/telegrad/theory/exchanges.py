"""What an exchange of compressed gradients moves and computes, topology by topology (`telegrad.runtime.topologies`)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from telegrad.errors import ConfigError
from telegrad.theory.cluster import Cluster, Profile

__all__ = ["TOPOLOGIES", "TopologyName", "Traffic", "checked_topology", "traffic"]

TopologyName = Literal["allgather", "two_phase", "server", "hierarchical"]
TOPOLOGIES: tuple[TopologyName, ...] = ("allgather", "two_phase", "server", "hierarchical")


@dataclass(frozen=True)
class Traffic:
    """What a step's exchange takes of a link, and of the processor of the busiest rank.

    `sent`: bits that leave a worker; `phases`: bits over the busiest link, all-to-all by all-to-all; `latencies`: one
    way, one after the other; `inside`: bits between the workers of a node; `encodings`, `again` (of estimates) and
    `decodings`: pairs of how many whole gradients and in how many calls; `copies`: vectors as long as the gradient that
    are copied, and `fresh`: into new memory. Setting one to zero is half a copy: it writes and does not read.
    """

    sent: float
    phases: tuple[float, ...]
    latencies: float
    encodings: tuple[float, float]
    decodings: tuple[float, float]
    copies: float
    again: tuple[float, float] = (0.0, 0.0)
    fresh: float = 0.0
    inside: float = 0.0


def _message(profile: Profile, cuts: int = 1) -> float:
    """Bits of a whole gradient's messages, each piece of it cut into so many."""
    return profile.bits + (cuts * profile.pieces - 1) * profile.frame


def _allgather(cluster: Cluster, profile: Profile) -> Traffic:
    m, pieces = cluster.workers, profile.pieces
    bits = (m - 1) * _message(profile)
    # The estimate takes the gradient's place in memory, which is set to zero.
    return Traffic(bits, (bits,), 2, (1, pieces), (m, m * pieces), 0.5)


def _two_phase(cluster: Cluster, profile: Profile) -> Traffic:
    m, pieces, compressed = cluster.workers, profile.pieces, profile.unbiased
    up = (m - 1) / m * _message(profile, m)
    down = up if compressed else (m - 1) / m * 32.0 * profile.d
    # Every rank's messages for this rank's shard, and every rank's estimate of its own.
    decodings = (2, 2 * m * pieces) if compressed else (1, m * pieces)
    # The gradient cut into shards, this rank's own estimate set to zero, all estimates decoded from zero, and joined.
    copies = 2.5 + 0.5 / m
    again = (1 / m, float(pieces)) if compressed else (0.0, 0.0)
    return Traffic(up + down, (up, down), 4, (1, m * pieces), decodings, copies, again)


def _server(cluster: Cluster, profile: Profile) -> Traffic:
    m, pieces = cluster.workers, profile.pieces
    up, down = (m - 1) * _message(profile), (m - 1) * 32.0 * profile.d
    # The server's estimate set to zero; packed, put in line for every other rank, and read by the server itself.
    return Traffic(_message(profile), (up, down), 4, (1, pieces), (m, m * pieces), 0.5, fresh=m + 1)


def _hierarchical(cluster: Cluster, profile: Profile) -> Traffic:
    nodes, pieces = math.ceil(cluster.workers / cluster.node), profile.pieces
    inside = 2 * (cluster.node - 1) * 32.0 * profile.d
    # The node's first rank: every gradient received and read, their sum in float64 and back, the estimate packed, put
    # in line for the others, and read.
    fresh = 3 * cluster.node + 4 if cluster.node > 1 else 0
    bits = (nodes - 1) * _message(profile)
    return Traffic(bits, (bits,), 6, (1, pieces), (nodes, nodes * pieces), 0.5, fresh=fresh, inside=inside)


_TRAFFIC: dict[TopologyName, Callable[[Cluster, Profile], Traffic]] = {
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


def traffic(cluster: Cluster, profile: Profile, topology: str) -> Traffic:
    """What an exchange along the topology takes. Raises `ConfigError` for an unknown one."""
    return _TRAFFIC[checked_topology(topology)](cluster, profile)
