import math
import sys

import pytest
import torch
from torch.func import functional_call, grad, vmap

from telegrad.errors import DataError
from telegrad.random import Key
from telegrad.spec import build
from telegrad.workloads import Split

pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def task():
    return build("digits", "workload").load(None, Key(0))


def test_the_splits_are_the_whole_data_set_once(task):
    assert [len(s) for s in (task.train, task.validation, task.test)] == [1197, 300, 300]
    images = torch.cat([task.train.inputs, task.validation.inputs, task.test.inputs])
    assert images.shape == (1797, 1, 8, 8)
    assert images.dtype == torch.float32
    assert images.min() == 0
    assert images.max() == 1
    assert len(images.flatten(1).unique(dim=0)) == 1797
    for split in (task.train, task.validation, task.test):
        shares = split.targets.bincount(minlength=10) / len(split)
        assert split.targets.dtype == torch.int64
        assert (shares - 0.1).abs().max() < 0.02


def test_the_key_decides_the_split(task):
    again, other = (build("digits", "workload").load(None, Key(seed)) for seed in (0, 1))
    assert again.test.inputs.equal(task.test.inputs)
    assert not other.test.targets.equal(task.test.targets)


def test_the_model_comes_from_its_key_and_has_no_buffers(task):
    model = task.model(Key(5))
    assert sum(p.numel() for p in model.parameters()) == 12_314
    assert not list(model.buffers())
    assert all(a.equal(b) for a, b in zip(model.parameters(), task.model(Key(5)).parameters(), strict=True))


def test_gradients_under_vmap_equal_those_of_a_loop(task):
    model = task.model(Key(0))
    parameters = {name: value.detach() for name, value in model.named_parameters()}
    inputs, targets = task.train.inputs[:24].view(3, 8, 1, 8, 8), task.train.targets[:24].view(3, 8)

    class Loss(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, x, y):
            return task.loss(self.model, x, y)

    def loss(p, x, y):
        return functional_call(Loss(), {f"model.{name}": value for name, value in p.items()}, (x, y))

    stacked = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, targets)
    for worker in range(3):
        model.zero_grad()
        task.loss(model, inputs[worker], targets[worker]).backward()
        for name, value in model.named_parameters():
            torch.testing.assert_close(stacked[name][worker], value.grad, rtol=1e-5, atol=1e-6)


def test_the_score_is_the_fraction_of_hits_and_leaves_the_mode_alone(task):
    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = torch.nn.Parameter(torch.arange(10.0))

        def forward(self, x):
            assert not self.training
            return self.bias.expand(len(x), 10)

    model = Constant()
    targets = torch.tensor([9, 1, 9, 9, 0])
    assert task.score(model, Split(torch.zeros(5, 1, 8, 8), targets)) == 0.6
    assert model.training
    assert math.isnan(task.score(model, Split(torch.zeros(0, 1, 8, 8), targets[:0])))


def test_a_short_run_learns(task):
    model = task.model(Key(0).fold(name="model"))
    assert task.score(model, task.test) < 0.4
    for step in range(150):
        rows = task.train.rows(Key(0).fold(step=step).integers(128, len(task.train)))
        gradients = torch.autograd.grad(
            task.loss(model, task.augment(rows.inputs, Key(step)), rows.targets), list(model.parameters())
        )
        with torch.no_grad():
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.2 * gradient
    assert task.score(model, task.test) > 0.95


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"digits needs the package sklearn; pip install 'telegrad\[lab\]'"):
        build("digits", "workload").load(None, Key(0))
