"""DIANA with the realised shift (C19.2): the rate that the compressor deserves on this very vector, sent along."""

import pytest
import torch

import telegrad as tg
from telegrad.methods.base import Step
from telegrad.methods.shift import number_beside, with_number
from telegrad.wire.message import pack, unpack

SPEC = "diana(mlmc(stopk(s=0.2)), shift_rate=realised)"
UNLIKE = torch.tensor([8.0, 4.0, 2.0, 1.0, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01], dtype=torch.float64)


def worked(method, gradient, shift, seed=0):
    step = Step(0, 0.1, tg.Key(seed), workers=2)
    return method.worker_step(gradient, {"shift": shift}, 0, step)


def test_the_rate_is_larger_where_the_vector_is_easy_and_travels_in_the_message():
    method, zero = tg.method(SPEC), torch.zeros(10, dtype=torch.float64)
    code, _ = worked(method, UNLIKE, zero)
    variance = method.compressor.variance(UNLIKE)
    expected = 1 / (1 + variance / float(UNLIKE.square().sum()))
    assert number_beside(unpack(pack(code))) == number_beside(code) == pytest.approx(expected, rel=1e-6)
    assert expected > 1 / (1 + method.compressor.omega(10))
    assert 8 * len(pack(code)) == code.nbits


def test_the_shift_nears_the_gradient_by_the_realised_rate():
    """E‖h⁺ − g‖² = (1 − a)‖h − g‖², over 4000 seeds, 5 standard errors."""
    method, shift = tg.method(SPEC), torch.full((10,), 0.3, dtype=torch.float64)
    code, _ = worked(method, UNLIKE, shift)
    rate = number_beside(code)
    first = float((shift - UNLIKE).square().sum())
    left = torch.tensor(
        [float((worked(method, UNLIKE, shift, seed)[1]["shift"] - UNLIKE).square().sum()) for seed in range(4000)]
    ).double()
    assert abs(float(left.mean()) - (1 - rate) * first) < 5 * float(left.std()) / 4000**0.5


def test_server_and_workers_have_the_same_mean_shift(drive, noisy_gradients):
    drive = drive(SPEC, noisy_gradients(3, 20), 20)
    for _ in range(5):
        drive.step()
        torch.testing.assert_close(
            drive.server["shift"], torch.stack([state["shift"] for state in drive.workers]).mean(0)
        )


def test_where_every_vector_is_as_hard_it_is_diana():
    setting = {"workers": 3, "steps": 30, "lr": 0.02, "batch_size": None}
    ours = tg.simulate("quadratic(d=20, dtype=float64)", "diana(randk(k=4), shift_rate=realised)", **setting)
    plain = tg.simulate("quadratic(d=20, dtype=float64)", "diana(randk(k=4))", **setting)
    torch.testing.assert_close(ours.parameters["x"], plain.parameters["x"], rtol=1e-6, atol=1e-9)


def test_a_message_without_a_rate_is_refused():
    plain = tg.compressor("randk(k=2)").encode(UNLIKE, tg.Key(0))
    with pytest.raises(tg.WireError, match="no number beside"):
        number_beside(plain)
    assert torch.equal(with_number(plain, 0.5).decode(), plain.decode())
