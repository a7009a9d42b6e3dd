"""The simulator: traces by hand, reproducibility, accounts, and unhappy gradients."""

import dataclasses
import math
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import telegrad as tg
from telegrad.errors import ConfigError, DivergedError, SpecError, TelegradWarning
from telegrad.methods import Clock
from telegrad.workloads import Split, Task

SHORT = {"steps": 12, "workers": 4, "batch_size": 8, "lr": 0.1}


class _Quadratics(nn.Module):
    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, inputs):
        a, b = inputs[:, :2], inputs[:, 2:]
        return 0.5 * (a * (self.x - b) ** 2).sum(1)


@dataclasses.dataclass(frozen=True, eq=False)
class _T2(Task):
    """Problem T2 of the reference: one example a worker, f_j(x) = ½ Σ a_j (x − b_j)²."""

    poison: float = 0.0
    metric: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False
    classes = None
    train = validation = test = Split(torch.tensor([[1.0, 2, 1, 0], [3, 1, 0, 1]]).double(), torch.zeros(2))

    def model(self, key):
        return _Quadratics()

    def loss(self, model, inputs, targets):
        return model(inputs).mean()

    def augment(self, inputs, key):
        step = dict(key.path[-1:]).get("step", dict(key.path).get("step"))
        return inputs * (math.nan if step in self.poisoned else 1.0)

    def score(self, model, split):
        return float(model(split.inputs).mean().detach())

    @property
    def poisoned(self):
        return set(range(int(self.poison), int(self.poison) + 1)) if self.poison else set()


@pytest.mark.parametrize(
    ("method", "lr", "points"),
    [
        ("sgd(identity)", 0.25, [(0.125, 0.125)]),  # C1
        # C2
        ("sgd(topk(k=1))", 0.25, [(0.125, 0.125), (0.234375, 0.234375), (0.33007812, 0.33007812)]),
        ("ef14(topk(k=1))", 0.25, [(0.125, 0.125), (0.234375, 0.234375), (0.1953125, 0.234375)]),  # C4
        ("ef21(topk(k=1))", 0.25, [(0.125, 0.125), (0.203125, 0.21875), (0.2265625, 0.3125)]),  # C5
        (
            "ef21_sgdm(topk(k=1), momentum=0.5)",
            0.25,
            [(0.125, 0.125), (0.2265625, 0.234375), (0.29736328, 0.32226562)],
        ),  # C6
    ],
)
@pytest.mark.parametrize("gradients", ["vmap", "loop"])
def test_hand_traces_on_t2(method, lr, points, gradients):
    for steps, point in enumerate(points, start=1):
        result = tg.simulate(_T2(), method, workers=2, steps=steps, batch_size=1, lr=lr, gradients=gradients)
        torch.testing.assert_close(result.parameters["x"], torch.tensor(point, dtype=torch.float64), rtol=0, atol=1e-8)


def test_ef21_converges_where_compressed_sgd_sticks():
    stuck = tg.simulate(_T2(), "sgd(topk(k=1))", workers=2, steps=200, batch_size=1, lr=0.25).parameters["x"]
    right = tg.simulate(_T2(), "ef21(topk(k=1))", workers=2, steps=400, batch_size=1, lr=0.12).parameters["x"]
    torch.testing.assert_close(stuck, torch.tensor([0.25, 0.33008], dtype=torch.float64), rtol=0, atol=1e-5)
    torch.testing.assert_close(right, torch.tensor([1 / 4, 1 / 3], dtype=torch.float64), rtol=0, atol=1e-9)


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_same_seed_same_result_and_no_global_randomness():
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first = tg.simulate("digits", "sgd(mlmc(stopk(s=0.05, values=sign)))", seed=3, **SHORT)
    torch.manual_seed(7)
    again = tg.simulate("digits", "sgd(mlmc(stopk(s=0.05, values=sign)))", seed=3, **SHORT)
    other = tg.simulate("digits", "sgd(mlmc(stopk(s=0.05, values=sign)))", seed=4, **SHORT)
    assert _same(first.parameters, again.parameters)
    assert first.ledger.to_dict() == again.ledger.to_dict()
    assert not _same(first.parameters, other.parameters)
    torch.manual_seed(123)
    tg.simulate("digits", "sgd(randk(k=0.1))", **SHORT)
    assert torch.equal(torch.get_rng_state(), before)


def test_chunks_and_the_loop_change_last_bits_only_and_no_draw():
    """Rand-k's choice does not depend on values: a changed draw would show in the parameters, far above rounding."""
    results = [
        tg.simulate("digits", "sgd(randk(k=0.1))", **SHORT, **how)
        for how in ({}, {"chunk": 1}, {"chunk": 3}, {"gradients": "loop"})
    ]
    for other in results[1:]:
        assert other.ledger.to_dict() == results[0].ledger.to_dict()
        for name, value in results[0].parameters.items():
            torch.testing.assert_close(other.parameters[name], value, rtol=1e-4, atol=1e-5)


def test_thread_count_changes_no_draw():
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = tg.simulate("digits", "sgd(randk(k=0.1))", **SHORT)
        torch.set_num_threads(2)
        two = tg.simulate("digits", "sgd(randk(k=0.1))", **SHORT)
    finally:
        torch.set_num_threads(threads)
    assert one.ledger.to_dict() == two.ledger.to_dict()
    for name, value in one.parameters.items():
        torch.testing.assert_close(two.parameters[name], value, rtol=1e-4, atol=1e-5)


def test_granularity_tensor_sends_a_message_a_tensor():
    whole, each = (tg.simulate("digits", "sgd(topk(k=0.01))", granularity=g, **SHORT) for g in ("model", "tensor"))
    assert not _same(whole.parameters, each.parameters)


def test_records_cover_the_run():
    result = tg.simulate("digits", "sgd(identity)", steps=10, workers=4, batch_size=8, evaluate_every=4)
    assert [record["step"] for record in result.records] == [0, 4, 8, 10]
    assert math.isnan(result.records[0]["train_loss"])
    assert result.records[-1]["epoch"] == pytest.approx(10 * 4 * 8 / 1197)
    bits = [record["bits_up_per_worker"] for record in result.records]
    assert bits == sorted(bits)
    assert bits[-1] == 10 * tg.compressor("identity").encode(torch.ones(12314)).nbits


def test_progress_is_told_every_step():
    told = []
    tg.simulate("digits", "sgd(identity)", steps=5, workers=2, progress=told.append)
    assert [record["step"] for record in told] == [1, 2, 3, 4, 5]


def test_a_bad_step_is_skipped_on_all_workers_and_leaves_no_trace():
    """Poisoning step 2 of 5 must give what 4 clean steps give, memory and momentum of the method included."""
    with pytest.warns(TelegradWarning, match=r"step 2 is skipped on all workers: worker \d, model: .*NaN"):
        result = tg.simulate(
            _T2(poison=2), "ef21_sgdm(topk(k=1), momentum=0.5)", workers=2, steps=5, batch_size=1, lr=0.25
        )
    clean = tg.simulate(_T2(), "ef21_sgdm(topk(k=1), momentum=0.5)", workers=2, steps=4, batch_size=1, lr=0.25)
    assert torch.equal(result.parameters["x"], clean.parameters["x"])
    assert result.ledger.skipped_steps == 1
    assert result.ledger.to_dict()["up"] == clean.ledger.to_dict()["up"]


def test_ten_bad_steps_in_a_row_are_a_divergence():
    with pytest.warns(TelegradWarning, match="skipped"), pytest.raises(DivergedError, match="lower the rate") as caught:
        tg.simulate("quadratic", "sgd(identity)", lr=1e30, steps=60, workers=4)
    assert caught.value.records[0]["step"] == 0


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_uncompressed_run_is_torch_itself(optimizer):
    """One worker, no compression: the numbers of a plain torch loop with this optimizer, weight decay and schedule."""
    settings = {"lr": 0.05, "weight_decay": 0.1, "schedule": "cosine", "warmup_steps": 3}
    result = tg.simulate(_T2(), "sgd(identity)", workers=1, steps=9, batch_size=2, optimizer=optimizer, **settings)
    model = _Quadratics()
    make = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    descent = make(model.parameters(), lr=0.05, weight_decay=0.1)
    for step in range(9):
        rate = 0.05 * (step + 1) / 3 if step < 3 else 0.05 * (1 + math.cos(math.pi * (step - 3) / 6)) / 2
        descent.param_groups[0]["lr"] = rate
        descent.zero_grad()
        model(_T2.train.inputs).mean().backward()
        descent.step()
    torch.testing.assert_close(result.parameters["x"], model.x.detach(), rtol=1e-12, atol=1e-12)


def test_any_torch_optimizer_can_be_given():
    result = tg.simulate(
        _T2(),
        "sgd(identity)",
        workers=2,
        steps=300,
        batch_size=1,
        lr=0.05,
        optimizer=lambda p, lr: torch.optim.Adagrad(p, lr=lr * 10),
    )
    torch.testing.assert_close(
        result.parameters["x"], torch.tensor([0.25, 1 / 3], dtype=torch.float64), rtol=0, atol=1e-3
    )


def test_a_compressed_downlink_is_used_and_booked():
    result = tg.simulate("digits", "sgd(identity)", downlink="randk(k=0.1)", **SHORT)
    free = tg.simulate("digits", "sgd(identity)", **SHORT)
    assert result.records[-1]["bits_down_per_worker"] < 0.11 * free.records[-1]["bits_down_per_worker"]
    assert not _same(result.parameters, free.parameters)


@pytest.mark.parametrize(
    ("arguments", "error", "culprit"),
    [
        ({"downlink": "topk(k=0.1)"}, SpecError, "downlink=topk"),
        ({"workers": 0}, ConfigError, "workers=0"),
        ({"steps": -1}, ConfigError, "steps=-1"),
        ({"evaluate_every": 0}, ConfigError, "evaluate_every=0"),
        ({"optimizer": "adam"}, ConfigError, "optimizer='adam'"),
        ({"optimizer": "adamw", "momentum": 0.9}, ConfigError, "momentum=0.9"),
        ({"method": "sdg(identity)"}, SpecError, "did you mean 'sgd'"),
        ({"workload": "digit"}, SpecError, "did you mean 'digits'"),
        ({"method": "sgd(topk(k=20000))"}, SpecError, "k=20000.*12314"),
        ({"lr": 1e300}, ConfigError, r"lr=1e\+300: a number up to 1e\+30 is allowed"),
        ({"momentum": 1.5}, ConfigError, "momentum=1.5: a number below 1 is allowed"),
        ({"optimizer": lambda parameters, lr: None}, ConfigError, "returned None; a torch optimizer is wanted"),
        ({"data": 3}, ConfigError, "data=3: a folder"),
        ({"clock": 1}, ConfigError, r"clock=1: a telegrad.methods.Clock\(gradient"),
        ({"progress": 3}, ConfigError, "progress=3: a function of a record is allowed"),
        ({"snapshots": "here"}, ConfigError, "snapshots='here': a telegrad.runtime.snapshots.Snapshots is allowed"),
    ],
)
def test_bad_arguments_name_the_culprit(arguments, error, culprit):
    with pytest.raises(error, match=culprit):
        tg.simulate(**{"workload": "digits", "method": "sgd(identity)", "steps": 2, **arguments})


@pytest.mark.parametrize("gradient", ["abc", True, [1, "2"], np.array([1.0, -2.0]), torch.tensor([1.0, torch.nan])])
def test_clocks_have_numbers(gradient):
    with pytest.raises(ConfigError, match=r"Clock\(gradient=.*: seconds and bits a second from 0 are allowed"):
        Clock(gradient=gradient)
    assert Clock(gradient=np.array([1.0, 2.0])) == Clock(gradient=[1.0, 2.0])


@pytest.mark.parametrize("steps", [10**9, 2**63])
@pytest.mark.parametrize("more", [{}, {"schedule": "cosine"}, {"batch_size": 1}, {"evaluate_every": 1000}])
def test_a_run_that_would_last_for_ages_begins_at_once(steps, more):
    """Nothing is listed ahead for every step: it ended in minutes or in no memory before the first one."""

    class Begun(Exception):
        pass

    def progress(record):
        raise Begun

    with pytest.raises(Begun):
        tg.simulate("quadratic(d=16)", "sgd(identity)", workers=2, steps=steps, lr=0.1, progress=progress, **more)


def test_no_steps_is_an_evaluation():
    result = tg.simulate("digits", "sgd(identity)", steps=0)
    assert [record["step"] for record in result.records] == [0]


def test_a_compressor_that_looks_at_shapes_is_handed_tensors_or_a_warning_says_what_it_loses():
    setting = {"workers": 2, "steps": 1, "lr": 0.1}
    with pytest.warns(TelegradWarning, match='3 of them, 0.weight first, .* write granularity="tensor"'):
        tg.simulate("digits", "ef14(powersgd(rank=1))", **setting)
    tg.simulate("digits", "ef14(powersgd(rank=1))", granularity="tensor", **setting)
