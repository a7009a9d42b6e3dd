"""EF21 and EF21-SGDM: C5, C6."""

import pytest
import torch


def test_the_trace_of_ef21_on_t2(t2):
    """C5's test, Top-1, g_i⁰ = C(∇f_i(x_0)); g_1 is listed after the update at the listed x."""
    run = t2("ef21(topk(k=1))")
    known = [(-1, 0.25), (-0.796875, 0.25), (-0.796875, 0.625)]
    for step, expected in enumerate([(0.125, 0.125), (0.203125, 0.21875), (0.2265625, 0.3125)]):
        run.step()
        assert run.x.tolist() == pytest.approx(expected, abs=1e-12)
        if step:
            assert run.workers[0]["known"].tolist() == pytest.approx(known[step - 1], abs=1e-12)


def test_ef21_reaches_the_optimum_of_t2_exactly(t2):
    """C4: where EF14 ends in a cycle, EF21 reaches (.25, .333333); at the theory step size of C5, α = 1/2."""
    run = t2("ef21(topk(k=1))")
    for _ in range(600):
        run.step(lr=0.122623)
    assert run.x.tolist() == pytest.approx([1 / 4, 1 / 3], rel=1e-12)


def test_the_trace_of_ef21_sgdm_on_t2(t2):
    """C6's test, η = .5, Top-1."""
    run = t2("ef21_sgdm(topk(k=1), momentum=0.5)")
    average, known = [(-0.9375, 0.125), (-0.85546875, 0.296875)], [(-1, 0.125), (-1, 0.296875)]
    for step, expected in enumerate([(0.125, 0.125), (0.2265625, 0.234375), (0.29736328, 0.32226562)]):
        run.step()
        assert run.x.tolist() == pytest.approx(expected, abs=1e-8)
        if step:
            assert run.workers[0]["average"].tolist() == pytest.approx(average[step - 1], abs=1e-12)
            assert run.workers[0]["known"].tolist() == pytest.approx(known[step - 1], abs=1e-12)


@pytest.mark.parametrize("compressor", ["topk(k=3)", "topk(k=3, values=log)", "randk(k=3, scaled=false)", "sign"])
def test_full_momentum_is_ef21(compressor, drive, noisy_gradients):
    """C6.1 with η = 1, message by message."""
    one = drive(f"ef21({compressor})", noisy_gradients(3, 20), 20)
    other = drive(f"ef21_sgdm({compressor}, momentum=1.0)", noisy_gradients(3, 20), 20)
    for _ in range(30):
        assert torch.equal(one.step(0.1), other.step(0.1))
        assert [code.nbits for code in one.codes] == [code.nbits for code in other.codes]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("compressor", ["topk(k=3)", "topk(k=3, values=bf16)", "randk(k=3, scaled=false)", "sign"])
@pytest.mark.parametrize("method", ["ef21({})", "ef21_sgdm({}, momentum=0.3)"])
def test_the_server_knows_the_mean_of_what_workers_know(method, compressor, dtype, drive, noisy_gradients):
    """C5.1's invariant g = (1/M) Σ g_i, over 100 steps, to the rounding of the dtype."""
    run = drive(method.format(compressor), noisy_gradients(4, 20, dtype), 20, dtype)
    for _ in range(100):
        estimate = run.step(0.05)
        mean = torch.stack([state["known"] for state in run.workers]).double().mean(0)
        scale = max(float(state["known"].abs().max()) for state in run.workers)
        assert float((estimate.double() - mean).abs().max()) <= 200 * torch.finfo(dtype).eps * scale
        assert estimate.dtype == dtype


def test_the_average_follows_its_recursion_and_starts_at_the_first_gradient(drive, noisy_gradients):
    """C6.1: v ← (1 − η) v + η g, v_0 = g_0."""
    source, seen = noisy_gradients(1, 8), []

    def recording(x):
        seen.append(source(x)[0])
        return [seen[-1]]

    run = drive("ef21_sgdm(topk(k=2), momentum=0.25)", recording, 8)
    average = None
    for _ in range(20):
        run.step(0.01)
        average = seen[-1] if average is None else 0.75 * average + 0.25 * seen[-1]
        assert torch.allclose(run.workers[0]["average"], average, rtol=1e-12, atol=1e-14)
