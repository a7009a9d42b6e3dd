"""Keyed, stratified splits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from telegrad.random import Key

__all__ = ["stratified"]


def stratified(labels: Tensor, sizes: tuple[int, ...], key: Key) -> list[Tensor]:
    """Disjoint parts of 0 … n−1 of the given `sizes`, each with the classes in the proportions of `labels`.

    Within a class, the member at random place i of c gets the position (i + 1/2) / c in (0, 1); sorted by position,
    all classes advance in step, so every run of the sorted list holds them in proportion, up to an example a class and
    end. The parts are cut off one after the other, so a part does not depend on the sizes of those after it.

    `labels` has shape (n,); the sizes add up to at most n. Returns one sorted int64 tensor a size.
    """
    total = len(labels)
    if min(sizes, default=0) < 0 or sum(sizes) > total:
        raise ValueError(f"parts of {sizes} examples do not fit into {total}")
    shuffled = key.permutation(total).numpy()
    # The positions come from the integers (place, class size), so equal ones are equal on every machine.
    position = np.empty(total)
    shuffled_labels = labels.numpy()[shuffled]
    for label in np.unique(shuffled_labels):
        places = np.flatnonzero(shuffled_labels == label)
        position[places] = (np.arange(len(places)) + 0.5) / len(places)
    order = shuffled[np.argsort(position, kind="stable")]
    ends = np.cumsum(sizes)
    return [torch.from_numpy(np.sort(order[end - size : end])) for size, end in zip(sizes, ends, strict=True)]
