import pytest
import torch
from torch import nn

from telegrad.random import Key
from telegrad.workloads.initialise import build_model


def layout():
    return nn.Sequential(nn.Conv2d(3, 64, 3), nn.BatchNorm2d(64), nn.Flatten(), nn.Linear(64 * 36, 10))


def test_the_global_generator_is_neither_read_nor_moved():
    before = torch.get_rng_state()
    first = build_model(layout, Key(0))
    assert torch.get_rng_state().equal(before)
    torch.rand(1)
    second = build_model(layout, Key(0))
    torch.set_rng_state(before)
    for name, value in first.state_dict().items():
        assert value.equal(second.state_dict()[name]), name


def test_another_key_gives_other_weights_and_layers_have_their_own_streams():
    first, other = build_model(layout, Key(0)), build_model(layout, Key(1))
    assert not first[0].weight.equal(other[0].weight)
    assert not first[3].weight.equal(other[3].weight)
    assert not first[0].weight.flatten()[:20].sign().equal(first[3].weight.flatten()[:20].sign())


def test_every_value_is_what_the_documentation_says():
    model = build_model(layout, Key(0))
    convolution, norm, _, linear = model
    # A sample variance of n normal numbers has the standard error sqrt(2/n); five of them are allowed.
    for layer, variance in ((convolution, 2 / 27), (linear, 1 / (64 * 36))):
        n = layer.weight.numel()
        assert abs(layer.weight.square().mean() / variance - 1) < 5 * (2 / n) ** 0.5
        assert layer.bias.count_nonzero() == 0
    assert norm.weight.eq(1).all()
    assert norm.bias.eq(0).all()
    assert norm.running_mean.eq(0).all()
    assert norm.running_var.eq(1).all()
    assert norm.num_batches_tracked == 0
    assert all(p.device.type == "cpu" and p.requires_grad and p.dtype == torch.float32 for p in model.parameters())


def test_a_layer_without_a_rule_is_refused_rather_than_left_as_raw_memory():
    with pytest.raises(TypeError, match=r"no rule for the Bilinear '0'"):
        build_model(lambda: nn.Sequential(nn.Bilinear(2, 2, 2)), Key(0))
