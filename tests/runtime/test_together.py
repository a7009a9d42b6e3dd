"""Gradients that workers ask for at one point are computed together, and methods see the same."""

import pytest
import torch

import telegrad as tg
from problems import f4
from telegrad.runtime.flat import FlatModel
from telegrad.runtime.gradients import LoopGradients
from telegrad.runtime.oracle import TaskOracle
from telegrad.runtime.pieces import pieces_of
from telegrad.runtime.together import Together

METHODS = [
    "marina(randk(k=4), probability=0.3)",
    "dasha_page(randk(k=4), probability=0.3)",
    "dasha_mvr(randk(k=4), first_batches=2)",
    "ef21_page(topk(k=4), probability=0.3)",
    "adiana(randk(k=4), mu=1.0)",
    "local_sgd(randk(k=4), local_lr=0.001, participation=0.5)",
    "scaffnew(probability=0.3)",
    "tamuna(probability=0.3, cohort=4)",
]


@pytest.mark.parametrize("batch_size", [None, 1])
@pytest.mark.parametrize("method", METHODS)
def test_a_run_is_the_same_as_with_one_gradient_after_another(method, batch_size):
    setting = {"workers": 5, "steps": 12, "lr": 0.002, "batch_size": batch_size}
    ours, plain = (tg.simulate(f4(), method, gradients=way, **setting) for way in ("vmap", "loop"))
    torch.testing.assert_close(ours.parameters, plain.parameters, rtol=1e-10, atol=1e-12)
    assert ours.ledger.gradients == plain.ledger.gradients
    assert ours.records[-1]["train_loss"] == pytest.approx(plain.records[-1]["train_loss"])


class Counting(LoopGradients):
    """Notes of how many workers gradients were computed at once."""

    def __init__(self, task, model):
        super().__init__(task, model)
        self.calls = []

    def __call__(self, batches, buffers):
        self.calls.append(len(batches))
        return super().__call__(batches, buffers)


def oracles(workers):
    task = f4()
    model = task.model(tg.Key())
    parameters = dict(model.named_parameters())
    flat = FlatModel(parameters, pieces_of(parameters, "model"))

    def oracle(rank):
        own = task.train.rows(torch.tensor([rank]))
        return TaskOracle(rank, task, model, flat, lambda number: own, own, None)

    found = {rank: oracle(rank) for rank in range(workers)}
    compute = Counting(task, model)
    return found, Together(found, compute, flat), compute.calls, flat.vector()


def begin(found, together, cohort):
    for rank in cohort:
        found[rank].begin()
    together.begin(cohort)


def test_the_second_who_asks_at_a_point_has_it_computed_for_all_others():
    found, together, calls, x = oracles(5)
    begin(found, together, range(5))
    got = [found[rank].gradient(x) for rank in range(5)]
    assert calls == [4]
    expected = oracles(5)[0]
    for rank, oracle in expected.items():
        oracle.together = None
        assert torch.equal(got[rank], oracle.gradient(x))
    assert [oracle.gradients for oracle in found.values()] == [1] * 5


def test_who_is_not_in_the_cohort_or_at_a_further_sample_is_left_out():
    found, together, calls, x = oracles(5)
    begin(found, together, [0, 2, 3])
    found[3].next_sample()
    for rank in (0, 2, 3):
        found[rank].gradient(x)
    assert calls == [1]


def test_points_of_ones_own_are_computed_one_by_one():
    found, together, calls, x = oracles(3)
    begin(found, together, range(3))
    for rank in range(3):
        found[rank].gradient(x + rank)
    assert calls == []


def test_the_same_point_in_the_next_step_is_computed_anew():
    found, together, calls, x = oracles(3)
    for _ in range(2):
        begin(found, together, range(3))
        for rank in range(3):
            found[rank].gradient(x)
    assert calls == [2, 2]
