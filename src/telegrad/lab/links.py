"""How long messages travel: over three links, by the cost model of `telegrad.theory`."""

from __future__ import annotations

from dataclasses import dataclass

from telegrad.theory.cost_model import Cluster, Profile, all_reduce, step_cost

__all__ = ["LINKS", "Link", "transfer_seconds"]


@dataclass(frozen=True)
class Link:
    """What joins each worker to the others: bits per second in each direction, and seconds one way."""

    name: str
    bandwidth: float
    latency: float


LINKS = (Link("10 Mbit/s", 1e7, 0.02), Link("100 Mbit/s", 1e8, 0.005), Link("10 Gbit/s", 1e10, 5e-5))


def transfer_seconds(link: Link, workers: int, parameters: int, steps: float, bits: float, uncompressed: bool) -> float:
    """Seconds that the messages of `steps` steps travel, in which a worker sends `bits` in all.

    Compressed messages go to all workers (all-gather), uncompressed gradients of so many `parameters` by the better
    all-reduce. Computing and encoding are left out: in the simulator all workers share a processor.
    """
    if not steps:
        return 0.0
    cluster = Cluster(workers=workers, bandwidth=link.bandwidth, latency=link.latency)
    if uncompressed:
        return steps * all_reduce(cluster, parameters).seconds
    message = Profile("", parameters, bits / steps, omega=0.0, encode=0.0, decode=0.0)
    return steps * step_cost(cluster, message, "allgather").seconds
