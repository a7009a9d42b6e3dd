"""Per-worker gradients: the vectorised and the plain path compute the same."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from telegrad.errors import ConfigError, TelegradWarning
from telegrad.random import Key
from telegrad.runtime.gradients import LoopGradients, VectorisedGradients, load_mean_buffers, stacked_buffers
from telegrad.workloads import Split


class _Task:
    """Least squares, the part of a task that gradients need."""

    def loss(self, model, inputs, targets):
        return functional.mse_loss(model(inputs).squeeze(-1), targets)


def _batches(workers, size=6):
    key = Key(2)
    return [
        Split(key.fold(x=w).normal(size * 4).view(size, 4).float(), key.fold(y=w).normal(size).float())
        for w in range(workers)
    ]


def _model():
    layers = [nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)]
    for number, p in enumerate(nn.Sequential(*layers).parameters()):
        p.data = Key(number).normal(p.numel()).view_as(p).float()
    return nn.Sequential(*layers)


@pytest.mark.parametrize("chunk", [None, 1, 2, 5])
def test_vectorised_equals_loop_gradients_losses_and_buffers(chunk):
    model, batches = _model(), _batches(5)
    buffers = stacked_buffers(model, 5)
    expected = LoopGradients(_Task(), model)(batches, buffers)
    found = VectorisedGradients(_Task(), model, chunk)(batches, buffers)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1], expected[1])
    assert expected[2].keys() == {"1.running_mean", "1.running_var", "1.num_batches_tracked"}
    for name, value in expected[2].items():
        torch.testing.assert_close(found[2][name], value)
        assert not torch.equal(value, buffers[name]), (
            "the step must have moved the statistics, and not those it was given"
        )


def test_loop_is_the_backward_pass_of_a_lone_process():
    model, batches = _model(), _batches(2)
    found, _, _ = LoopGradients(_Task(), model)(batches, stacked_buffers(model, 2))
    alone = _model()
    alone.load_state_dict(_model().state_dict())
    _Task().loss(alone, batches[1].inputs, batches[1].targets).backward()
    assert torch.equal(found[1], torch.cat([p.grad.reshape(-1) for p in alone.parameters()]))


def test_unused_parameters_have_zero_gradient_in_both_paths():
    model = _model()
    model.unused = nn.Parameter(torch.ones(3))
    model.forward = lambda x: nn.Sequential.forward(nn.Sequential(*list(model.children())), x)
    buffers = stacked_buffers(model, 2)
    loop, _, _ = LoopGradients(_Task(), model)(_batches(2), buffers)
    assert loop.shape[1] == sum(p.numel() for p in model.parameters())
    start = next(
        sum(p.numel() for _, p in list(model.named_parameters())[:i])
        for i, (n, _) in enumerate(model.named_parameters())
        if n == "unused"
    )
    assert not loop[:, start : start + 3].any()


def test_batches_of_unequal_sizes_go_through_the_loop():
    model = _model()
    batches = [_batches(1, 6)[0], _batches(1, 3)[0]]
    buffers = stacked_buffers(model, 2)
    assert torch.equal(
        VectorisedGradients(_Task(), model, None)(batches, buffers)[0],
        LoopGradients(_Task(), model)(batches, buffers)[0],
    )


class _Branching(nn.Module):
    """A model whose forward looks at its data, which vmap cannot follow."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4, 1))

    def forward(self, x):
        return x @ self.weight if bool(x.sum() > 0) else x @ (2 * self.weight)


def test_a_model_that_cannot_be_vectorised_falls_back_and_says_so_once(recwarn):
    model, batches = _Branching(), _batches(3)
    compute = VectorisedGradients(_Task(), model, None)
    with pytest.warns(TelegradWarning, match="plain loop"):
        found, _, _ = compute(batches, {})
    assert torch.equal(found, LoopGradients(_Task(), model)(batches, {})[0])
    recwarn.clear()
    compute(batches, {})
    assert not recwarn.list


def test_mean_buffers():
    model = _model()
    buffers = stacked_buffers(model, 3)
    buffers["1.running_mean"] = torch.arange(15.0).view(3, 5)
    buffers["1.num_batches_tracked"] += 7
    load_mean_buffers(model, buffers)
    assert torch.equal(model[1].running_mean, torch.arange(5.0) + 5)
    assert int(model[1].num_batches_tracked) == 7


def test_a_chunk_below_one_is_refused():
    with pytest.raises(ConfigError, match="chunk=0"):
        VectorisedGradients(_Task(), _model(), 0)
