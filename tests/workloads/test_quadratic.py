import pytest
import torch
from torch.func import functional_call, grad, jacrev, vmap

from telegrad.errors import SpecError
from telegrad.random import Key
from telegrad.spec import build
from telegrad.workloads import Quadratic

SPECS = [
    "quadratic(dtype=float64)",
    "quadratic(d=5, examples=7, condition=100, spread=2, curvature_spread=0.9, dtype=float64)",
    "quadratic(d=1, examples=1, dtype=float64)",
]


def point(task, x):
    model = task.model(Key(0))
    with torch.no_grad():
        model.x.copy_(x)
    return model


def objective(task, x):
    return functional_call(_Loss(task), {"model.x": x}, (task.train.inputs, task.train.targets))


class _Loss(torch.nn.Module):
    def __init__(self, task):
        super().__init__()
        self.task, self.model = task, task.model(Key(0))

    def forward(self, inputs, targets):
        return self.task.loss(self.model, inputs, targets)


@pytest.mark.parametrize("spec", SPECS)
def test_closed_forms_agree_with_autograd(spec):
    task = build(spec, "workload").load(None, Key(0))
    d = task.train.inputs.shape[1] // 2
    best = task.minimiser(task.train)
    assert best.shape == (d,)
    assert grad(lambda x: objective(task, x))(best).abs().max() < 1e-13
    assert objective(task, best).item() == pytest.approx(task.minimum(task.train), rel=1e-13, abs=1e-30)
    spectrum = torch.linalg.eigvalsh(jacrev(grad(lambda x: objective(task, x)))(best))
    assert spectrum[-1].item() == pytest.approx(task.smoothness(task.train), rel=1e-13)
    assert spectrum[0].item() == pytest.approx(task.strong_convexity(task.train), rel=1e-13)
    x = Key(1).normal(d)
    gap = objective(task, x).item() - task.minimum(task.train)
    assert task.score(point(task, x), task.train) == pytest.approx(gap, rel=1e-11)


def test_the_gap_is_exact_near_the_minimum_and_zero_at_it():
    task = build("quadratic(dtype=float64)", "workload").load(None, Key(0))
    best = task.minimiser(task.test)
    assert task.score(point(task, best), task.test) == 0
    shift = torch.zeros(32).double()
    shift[0] = 1e-12
    # One ulp of the sum best + shift is the resolution here.
    assert task.score(point(task, best + shift), task.test) == pytest.approx(0.5e-24, rel=1e-3)


def test_condition_and_spread_mean_what_they_say():
    task = Quadratic(d=16, condition=50.0, examples=4000, spread=3.0).load(None, Key(0))
    assert task.smoothness(task.train) == 1
    assert task.strong_convexity(task.train) == pytest.approx(1 / 50, rel=1e-6)
    centres = task.train.inputs[:, 16:]
    # 64,000 normal numbers: their standard deviation has the standard error 3 / sqrt(128,000); five of them.
    assert centres.std(dim=0).square().mean().sqrt() == pytest.approx(3, abs=5 * 3 / 128_000**0.5)
    alike = Quadratic(spread=0.0).load(None, Key(0))
    assert alike.minimum(alike.train) < 1e-12
    assert alike.train.inputs.unique(dim=0).shape == (1, 64)


def test_spread_of_curvature_makes_hessians_differ():
    curvatures = Quadratic(d=4, condition=1.0, curvature_spread=0.5).load(None, Key(0)).train.inputs[:, :4]
    assert curvatures.min() >= 0.5
    assert curvatures.max() < 1.5
    assert curvatures.std() == pytest.approx(0.5 / 3**0.5, rel=0.05)


def test_workers_with_an_example_each_under_vmap():
    task = Quadratic(d=6, examples=4).load(None, Key(0))
    wrapped, x = _Loss(task), Key(1).normal(6).float()
    inputs, targets = task.train.inputs[:, None], task.train.targets[:, None]
    gradients = vmap(grad(lambda x, i, t: functional_call(wrapped, {"model.x": x}, (i, t))), in_dims=(None, 0, 0))(
        x, inputs, targets
    )
    torch.testing.assert_close(gradients, task.train.inputs[:, :6] * (x - task.train.inputs[:, 6:]))


def test_noise_is_added_to_the_gradient_and_nowhere_else():
    task = Quadratic(d=3, examples=2000, noise=0.5, dtype="float64").load(None, Key(0))
    split = task.train
    noisy = task.augment(split.inputs, Key(9))
    assert noisy.equal(task.augment(split.inputs, Key(9)))
    assert not noisy.equal(task.augment(split.inputs, Key(8)))
    assert noisy[:, :3].equal(split.inputs[:, :3])
    x = Key(1).normal(3)
    noise = split.inputs[:, :3] * (x - noisy[:, 3:]) - split.inputs[:, :3] * (x - split.inputs[:, 3:])
    torch.testing.assert_close(noise, -0.5 * Key(9).normal(6000).view(2000, 3), rtol=1e-9, atol=1e-12)
    quiet = Quadratic().load(None, Key(0))
    assert quiet.augment(quiet.train.inputs, Key(9)) is quiet.train.inputs


def test_the_key_draws_the_examples():
    first, again, other = (Quadratic().load(None, Key(seed)).train.inputs for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


@pytest.mark.parametrize(
    "argument", ["d=0", "examples=0", "condition=0.5", "spread=-1", "curvature_spread=1", "noise=-1", "dtype=int8"]
)
def test_bad_arguments_are_refused(argument):
    with pytest.raises(SpecError, match=rf"{argument.split('=')[0]}=.*allowed.*for example `quadratic\("):
        build(f"quadratic({argument})", "workload")
