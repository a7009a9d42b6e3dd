"""Which form of a kernel runs, without one for a GPU: with Triton see test_triton.py."""

import sys

import pytest
import torch

import telegrad as tg
from telegrad.errors import TelegradWarning
from telegrad.kernels import device
from telegrad.kernels.random_numbers.uniforms import drawn_in_proportion


def test_without_triton_the_cpus_form_runs_and_that_is_said(monkeypatch):
    v = tg.Key(1).normal(5000)
    expected = drawn_in_proportion(v, 2.0, tg.Key(2))
    monkeypatch.setattr(device, "everywhere", True)  # as if all tensors were on a GPU
    monkeypatch.setitem(sys.modules, "triton", None)
    device._triton.cache_clear()
    try:
        with pytest.warns(TelegradWarning, match="triton is not installed"):
            assert torch.equal(drawn_in_proportion(v, 2.0, tg.Key(2)), expected)
    finally:
        device._triton.cache_clear()


def test_tensors_on_the_cpu_ask_for_no_triton(monkeypatch):
    monkeypatch.setattr(device, "_triton", lambda: pytest.fail("asked for Triton"))
    assert not device.on_gpu(torch.zeros(3))
    assert device.with_gpu_form("nowhere")(lambda v, by: v * by)(torch.ones(2), by=3).tolist() == [3.0, 3.0]
