"""Which worker holds which examples, and in what order it visits them."""

import pytest
import torch

from telegrad.errors import ConfigError
from telegrad.random import Key
from telegrad.runtime.partition import batch_rows, partition

TARGETS = torch.arange(1000) % 10


@pytest.mark.parametrize("dirichlet", [None, 0.3, 100.0])
def test_shares_are_disjoint_complete_and_large_enough(dirichlet):
    shares = partition(TARGETS, 10, 7, dirichlet, 5, Key(1))
    assert torch.equal(torch.cat(shares).sort().values, torch.arange(1000))
    assert min(len(share) for share in shares) >= 5


def test_homogeneous_shares_differ_by_at_most_one_row():
    sizes = {len(share) for share in partition(TARGETS, 10, 7, None, 1, Key(1))}
    assert sizes == {142, 143}


def test_a_small_concentration_gives_workers_few_classes():
    def largest_class_share(dirichlet):
        shares = partition(TARGETS, 10, 5, dirichlet, 1, Key(3))
        return sum(torch.bincount(TARGETS[s], minlength=10).max().item() / len(s) for s in shares) / 5

    assert largest_class_share(0.05) > 0.4
    assert largest_class_share(1000.0) < 0.15


def test_a_concentration_of_zero_sorts_by_class_and_cuts_evenly():
    targets = torch.where(torch.arange(1000) % 4 == 0, 1.0, -1.0)
    shares = partition(targets, 2, 7, 0.0, 1, Key(3))
    assert {len(share) for share in shares} == {142, 143}
    assert torch.equal(torch.cat(shares).sort().values, torch.arange(1000))
    classes = [set(targets[share].tolist()) for share in shares]
    assert classes == [{-1.0}] * 5 + [{-1.0, 1.0}, {1.0}]


def test_same_key_same_shares_another_key_others():
    first, again, other = (partition(TARGETS, 10, 4, 0.5, 1, Key(seed)) for seed in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        ((TARGETS, 10, 300, None, 16), "workers"),
        ((TARGETS, 10, 0, None, 16), "workers"),
        ((TARGETS, None, 4, 0.5, 16), "dirichlet"),
        ((TARGETS, 10, 4, -0.5, 16), "dirichlet"),
        ((TARGETS, 10, 50, 0.001, 10), "dirichlet"),
    ],
)
def test_impossible_splits_name_the_culprit(arguments, culprit):
    with pytest.raises(ConfigError, match=culprit):
        partition(*arguments, Key(0))


@pytest.mark.parametrize("size", [1, 3, 7, 20, 33])
def test_batches_visit_every_row_once_an_epoch(size):
    rows = torch.arange(100, 120)
    visited = torch.cat([batch_rows(rows, step, size, Key(5)) for step in range(20)])
    assert len(visited) == 20 * size
    for epoch in range(size):
        assert torch.equal(visited[20 * epoch : 20 * (epoch + 1)].sort().values, rows)


def test_epochs_differ_in_order_and_no_batch_size_means_all_rows():
    rows = torch.arange(50)
    epochs = [batch_rows(rows, step, 50, Key(5)) for step in range(2)]
    assert not torch.equal(*epochs)
    assert torch.equal(batch_rows(rows, 3, None, Key(5)), rows)


def test_batches_of_like_length_hold_every_row_once_an_epoch_and_waste_little():
    lengths = Key(3).integers(1000, 60) + 3
    rows = torch.arange(0, 1000, 2)
    key = Key(0).fold(rank=1)
    epoch = [batch_rows(rows, step, 10, key, lengths) for step in range(50)]
    assert torch.cat(epoch).sort().values.equal(rows)
    again = [batch_rows(rows, step, 10, key, lengths) for step in range(50, 100)]
    assert torch.cat(again).sort().values.equal(rows)
    assert not torch.cat(epoch).equal(torch.cat(again))

    def padded(batches):
        return sum(int(lengths[batch].max()) * len(batch) for batch in batches)

    plain = padded([batch_rows(rows, step, 10, key) for step in range(50)])
    assert padded(epoch) < 1.2 * int(lengths[rows].sum()) < 0.8 * plain
    # Lengths come in random order from batch to batch, not from short to long.
    longest = torch.tensor([float(lengths[batch].max()) for batch in epoch])
    assert abs(float(torch.corrcoef(torch.stack([longest, torch.arange(50.0)]))[0, 1])) < 0.5


def test_batches_of_like_length_cross_epochs_without_a_break():
    lengths = torch.arange(25) % 5
    rows = torch.arange(25)
    taken = torch.cat([batch_rows(rows, step, 10, Key(0), lengths) for step in range(5)])
    assert taken.bincount().tolist() == [2] * 25
