"""The simulator and torch.distributed: the same run, bit for bit."""

import pytest
from launch import launch, outputs

import telegrad as tg
from telegrad.runtime.distributed import train_distributed


def test_four_gloo_ranks_end_as_four_simulated_workers():
    """Parameters, records and ledger after 50 steps, for methods of every kind and every topology, and a warm start."""
    ended = launch("rank_equals_simulator.py", 4)
    assert [one.code for one in ended] == [0] * 4, outputs(ended)
    assert sum(one.output.count("compared") for one in ended) == 22


def test_without_a_process_group_it_says_how_to_start():
    with pytest.raises(tg.ConfigError, match="torchrun"):
        train_distributed("digits", "sgd(identity)")
