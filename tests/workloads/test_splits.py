import pytest
import torch

from telegrad.random import Key
from telegrad.workloads.splits import stratified


def test_parts_are_disjoint_and_in_proportion():
    labels = torch.tensor([0] * 600 + [1] * 300 + [2] * 100)
    parts = stratified(labels, (100, 200, 700), Key(1))
    assert torch.cat(parts).sort().values.equal(torch.arange(1000))
    for part, size in zip(parts, (100, 200, 700), strict=True):
        assert part.equal(part.sort().values)
        counts = labels[part].bincount(minlength=3)
        assert (counts - torch.tensor([0.6, 0.3, 0.1]) * size).abs().max() <= 2


def test_balanced_classes_give_exactly_balanced_parts():
    labels = torch.arange(1000) % 10
    assert all(labels[part].bincount().unique().numel() == 1 for part in stratified(labels, (50, 300), Key(2)))


def test_a_part_depends_on_the_key_and_not_on_the_sizes_after_it():
    labels = torch.arange(1000) % 10
    first = stratified(labels, (50, 300), Key(3))[0]
    assert first.equal(stratified(labels, (50, 20), Key(3))[0])
    assert not first.equal(stratified(labels, (50, 20), Key(4))[0])


def test_too_large_parts_are_refused():
    with pytest.raises(ValueError, match="do not fit into 10"):
        stratified(torch.arange(10), (6, 5), Key(0))
