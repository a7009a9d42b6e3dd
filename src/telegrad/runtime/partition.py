"""Which worker holds which training examples, and in what order it visits them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import ConfigError
from telegrad.random import Key

__all__ = ["batch_rows", "partition"]

_ATTEMPTS = 100
_WINDOW = 32  # batches among which examples of like length are put together


def partition(
    targets: Tensor, classes: int | None, workers: int, dirichlet: float | None, smallest: int, key: Key
) -> list[Tensor]:
    """The rows of each worker: disjoint, together all of them, each at least `smallest` rows.

    Homogeneous (`dirichlet=None`): a random permutation cut into shares whose sizes differ by at most one.
    Heterogeneous: the examples of every class are shared out in proportions drawn from a symmetric Dirichlet law of
    that concentration (small values: few classes a worker), drawn again until every share is large enough. Raises
    `ConfigError` where that cannot be. With a concentration of 0 the examples are sorted by class and cut into equal
    shares: as unlike as equal shares can be.
    """
    rows = len(targets)
    if workers < 1 or rows < workers * smallest:
        raise ConfigError(
            f"{rows} training examples cannot give {workers} workers {smallest} each; lower workers or batch_size"
        )
    if dirichlet is None:
        return _cut(key.permutation(rows), workers)
    if classes is None:
        raise ConfigError(
            "dirichlet splits by class, and this workload's targets are not classes; write dirichlet: null"
        )
    if dirichlet < 0:
        raise ConfigError(f"dirichlet={dirichlet}: a concentration from 0 is allowed, for example 0.5")
    if dirichlet == 0:
        order = key.permutation(rows)
        return _cut(order[targets[order].argsort(stable=True)], workers)
    _, label = torch.unique(targets, return_inverse=True)
    generator = key.generator()
    for _ in range(_ATTEMPTS):
        owner = _owners(label.numpy(), workers, dirichlet, generator)
        counts = np.bincount(owner, minlength=workers)
        if counts.min() >= smallest:
            return [torch.from_numpy(np.flatnonzero(owner == worker)) for worker in range(workers)]
    raise ConfigError(
        f"dirichlet={dirichlet} left some of {workers} workers with fewer than {smallest} examples "
        f"in {_ATTEMPTS} draws; raise dirichlet, or lower workers or batch_size"
    )


def _cut(order: Tensor, workers: int) -> list[Tensor]:
    """Neighbours in this order for each worker, in shares whose sizes differ by at most one."""
    ends = -(-torch.arange(workers + 1) * len(order) // workers)
    return [order[ends[i] : ends[i + 1]].sort().values for i in range(workers)]


def _owners(label: np.ndarray, workers: int, concentration: float, generator: np.random.Generator) -> np.ndarray:
    owner = np.empty(len(label), dtype=np.int64)
    for which in range(label.max() + 1):
        rows = generator.permutation(np.flatnonzero(label == which))
        shares = generator.dirichlet(np.full(workers, concentration))
        cuts = np.round(np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        for worker, part in enumerate(np.split(rows, cuts)):
            owner[part] = worker
    return owner


def batch_rows(rows: Tensor, step: int, batch_size: int | None, key: Key, lengths: Tensor | None = None) -> Tensor:
    """The rows of a worker's batch number `step`: its `rows` in a new random order every epoch, without a break
    between epochs.

    `key` names the worker. With batch_size None the batch is all of its rows. With `lengths` (one a row of the whole
    split), batches are of like length: of every 32 batches in the random order, the examples are sorted by length and
    cut into batches again, which come in random order.
    """
    if batch_size is None:
        return rows
    place = torch.arange(step * batch_size, (step + 1) * batch_size)
    epoch, offset = place // len(rows), place % len(rows)
    picked = []
    for e in epoch.unique().tolist():
        order, places = _order(key, e, len(rows)), offset[epoch == e]
        picked.append(
            order[places]
            if lengths is None
            else _of_like_length(order, lengths[rows], places, batch_size, key.fold(epoch=e))
        )
    return rows[torch.cat(picked)]


def _of_like_length(order: Tensor, lengths: Tensor, places: Tensor, batch_size: int, key: Key) -> Tensor:
    """The entries of `order` at `places` after every window of it has been sorted by length, batch by batch."""
    span = _WINDOW * batch_size
    picked = []
    for window in (places // span).unique().tolist():
        members = order[window * span : (window + 1) * span]
        batches = members[lengths[members].argsort(stable=True)].split(batch_size)
        mixed = torch.cat([batches[i] for i in key.fold(window=window).permutation(len(batches)).tolist()])
        picked.append(mixed[places[places // span == window] - window * span])
    return torch.cat(picked)


@lru_cache(maxsize=256)
def _order(key: Key, epoch: int, rows: int) -> Tensor:
    return key.fold(epoch=epoch).permutation(rows)
