"""Compressed SGD: C1, C2."""

import pytest
import torch

import telegrad as tg
from cases import by_spec, variants
from telegrad.methods import SGD


def test_sgd_with_the_identity_is_plain_sgd_on_t2(t2):
    """C1's test: x_1 = (.125, .125)."""
    run = t2("sgd(identity)")
    assert run.step().tolist() == [-0.5, -0.5]
    assert run.x.tolist() == [0.125, 0.125]
    for _ in range(60):
        run.step()
    assert run.x.tolist() == pytest.approx([1 / 4, 1 / 3], rel=1e-9)


def test_top1_gets_stuck_away_from_the_optimum(t2):
    """C2's test: both workers keep sending coordinate 1, whose mean is 0: x sticks at (.25, .33008)."""
    run = t2("sgd(topk(k=1))")
    for expected in [(0.125, 0.125), (0.234375, 0.234375), (0.33007812, 0.33007812)]:
        run.step()
        assert run.x.tolist() == pytest.approx(expected, abs=1e-8)
    for _ in range(100):
        run.step()
    assert run.x.tolist() == pytest.approx([0.25, 0.33007812], abs=1e-8)


@pytest.mark.parametrize("compressor", **by_spec([c for c in variants("compressor") if c.alpha(30) > 0 or c.unbiased]))
def test_the_estimate_is_the_mean_of_what_was_sent_and_ranks_draw_apart(compressor, drive, noisy_gradients):
    """C2.1, for every compressor; A4's pitfall: two workers with one gradient do not draw alike."""
    run = drive(str(SGD(compressor)), noisy_gradients(3, 30), 30)
    estimate = run.step()
    mean = sum(code.decode() for code in run.codes) / 3
    assert torch.allclose(estimate, mean, rtol=1e-12, atol=1e-14)

    same = drive(str(SGD(compressor)), lambda x: [torch.linspace(-2, 3, 30, dtype=torch.float64)] * 4, 30)
    same.step()
    messages = {tg.pack(code) for code in same.codes}
    # A random compressor that sends everything exactly, as in a warm-up, has nothing to draw.
    sent_exactly = torch.equal(same.codes[0].decode(), same.gradients(same.x)[0])
    assert (len(messages) > 1) == (compressor.random and not sent_exactly)


def test_steps_draw_apart_and_seeds_decide(drive, noisy_gradients):
    constant = lambda x: [torch.linspace(-2, 3, 30, dtype=torch.float64)]  # noqa: E731

    def messages(seed):
        run = drive("sgd(randk(k=3))", constant, 30, seed=seed)
        out = []
        for _ in range(4):
            run.step()
            out.append(tg.pack(run.codes[0]))
        return out

    assert len(set(messages(0))) == 4
    assert messages(0) == messages(0) != messages(1)
