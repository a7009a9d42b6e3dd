"""EF14: C4."""

import pytest
import torch

import telegrad as tg


def test_the_trace_on_t2(t2):
    """C4's test, Top-1: iterates and memories."""
    run = t2("ef14(topk(k=1))")
    for step, expected in enumerate([(0.125, 0.125), (0.234375, 0.234375), (0.1953125, 0.234375)]):
        run.step()
        assert run.x.tolist() == pytest.approx(expected, abs=1e-15)
        if step == 1:
            assert run.workers[0]["error"].tolist() == pytest.approx([0, 0.0625], abs=1e-15)
            assert run.workers[1]["error"].tolist() == pytest.approx([0.09375, 0], abs=1e-15)


def test_a_constant_step_ends_in_the_two_cycle(t2):
    """C4, γ = .05: (.26875, .35) at even t and (.23125, .3166667) at odd t, around x*."""
    run = t2("ef14(topk(k=1))")
    for _ in range(1000):
        run.step(lr=0.05)
    assert run.x.tolist() == pytest.approx([0.26875, 0.35], abs=1e-6)
    run.step(lr=0.05)
    assert run.x.tolist() == pytest.approx([0.23125, 0.3166667], abs=1e-6)


CONTRACTIONS = ["topk(k=3)", "sign", "topk(k=3, values=log)", "randk(k=3, scaled=false)", "rtn(level=3)"]
SCHEDULES = {"constant": lambda t: 0.1, "falling": lambda t: 0.3 / (1 + t), "with zeros": lambda t: 0.2 * (t % 3)}


@pytest.mark.parametrize("compressor", CONTRACTIONS)
@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_the_virtual_iterate_is_sgds_own(compressor, schedule, drive, noisy_gradients):
    """C4.2: x_t − (1/M) Σ e_i = x_0 − Σ γ_s ḡ_s after 100 steps, to 1e-12, whatever the step size does."""
    source, seen = noisy_gradients(4, 20), []

    def recording(x):
        gradients = source(x)
        seen.append(torch.stack(gradients).mean(0))
        return gradients

    run = drive(f"ef14({compressor})", recording, 20)
    plain = torch.zeros(20, dtype=torch.float64)
    for step in range(100):
        lr = schedule(step)
        run.step(lr)
        plain -= lr * seen[-1]
    virtual = run.x - torch.stack([state["error"] for state in run.workers]).mean(0)
    assert torch.linalg.vector_norm(virtual - plain) <= 1e-12 * torch.linalg.vector_norm(plain)
    assert float(run.workers[0]["error"].abs().max()) > 0


def test_with_no_step_nothing_is_sent_or_remembered(drive, noisy_gradients):
    """A schedule may end at γ = 0: the message is a header, memory and x stay."""
    run = drive("ef14(topk(k=2))", noisy_gradients(2, 9), 9)
    run.step(0.1)
    memory, x = [state["error"].clone() for state in run.workers], run.x.clone()
    assert not bool(run.step(0.0).any())
    assert all(code.nbits == 8 * 9 for code in run.codes)
    assert torch.equal(run.x, x)
    assert all(torch.equal(a, state["error"]) for a, state in zip(memory, run.workers, strict=True))
    run.step(0.1)
    assert not torch.equal(run.x, x)


def test_what_is_left_out_is_sent_later(drive):
    """A gradient that never changes: Top-1 of d = 4 sends every coordinate in turn, in the mean its due."""
    gradient = torch.tensor([4.0, 3.0, 2.0, 1.0], dtype=torch.float64)
    run = drive("ef14(topk(k=1))", lambda x: [gradient], 4)
    for _ in range(1000):
        run.step(0.01)
    assert torch.allclose(-run.x / 10.0, gradient, atol=0.02)
    assert tg.method("ef14(topk(k=1))").compressor.alpha(4) == 0.25


def test_momentum_is_added_after_decompression_as_in_powersgds_paper(t2):
    """g' = mean c_i / γ, m ← β m + g', x ← x − γ (g' + m), by hand on T2 with Top-1."""
    ours, plain = t2("ef14(topk(k=1), momentum=0.9)"), t2("ef14(topk(k=1))")
    momentum = torch.zeros(2, dtype=torch.float64)
    for _ in range(6):
        plain.x = ours.x.clone()
        mean = plain.step()
        momentum = 0.9 * momentum + mean
        torch.testing.assert_close(ours.step(), mean + momentum)


def test_powersgd_trains_as_its_paper_runs_it():
    spec = "ef14(powersgd(rank=1, start=last), momentum=0.9)"
    run = tg.simulate("digits", spec, workers=4, steps=80, lr=0.05, granularity="tensor")
    assert run.records[-1]["validation"] > 0.85


@pytest.mark.parametrize("spec", ["ef14(topk(k=1), momentum=1.0)", "ef14(topk(k=1), momentum=-0.1)"])
def test_a_momentum_out_of_range_is_refused(spec):
    with pytest.raises(tg.SpecError, match="momentum"):
        tg.method(spec)
