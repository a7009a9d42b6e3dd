"""lr="theory": the step sizes of (F2) at a workload's own constants, and what is refused."""

import pytest
import torch

import telegrad as tg
from telegrad.theory.known_problems import Problem, problem_of, theory_rate

T2 = Problem(2.0, 1.5, (2.0, 3.0), (1.0, 1.0))  # 0.4: L = 2, L_max = 3, μ = 1.5; κ_loc = 3


@pytest.mark.parametrize(
    ("spec", "rate"),
    [
        ("ef21(topk(k=1))", 0.122623),
        ("ef_bv(topk(k=1))", 0.074940),
        ("ef_bv(randk(k=1))", 0.088791),
        ("diana(randk(k=1))", 0.090909),
        ("marina(randk(k=1), probability=0.5)", 0.262966),
        ("dasha(randk(k=1))", 0.155863),
        ("adiana(randk(k=1), mu=1.5)", 1 / 384),
        ("scaffnew(probability=0.5)", 1 / 3),
        ("compressed_scaffnew(probability=0.5)", 2 / 4),
        ("sgd(randk(k=1))", 1 / (2 + 2 * 3 / 2)),
        ("sgd(identity)", 1 / 2),
    ],
)
def test_rates_on_t2_are_the_references(spec, rate):  # F3
    assert theory_rate(tg.method(spec), T2, 2) == pytest.approx(rate, rel=1e-5)


def test_a_quadratic_workload_knows_its_constants_over_any_rows():
    task = tg.workloads.Quadratic(d=6, examples=40, curvature_spread=0.5).load(None, tg.Key(1))
    shares = [torch.arange(0, 20), torch.arange(20, 40)]
    problem = problem_of(task, shares)
    curvatures = task.train.inputs.double().chunk(2, dim=1)[0]
    assert pytest.approx(float(curvatures.mean(0).max())) == problem.L
    assert problem.mu == pytest.approx(float(curvatures.mean(0).min()))
    assert problem.L_each == pytest.approx([float(curvatures[share].mean(0).max()) for share in shares])


def test_a_run_takes_the_rate_and_prints_it(capsys):
    options = {"workers": 4, "steps": 3, "batch_size": None, "seed": 1}
    whole = tg.simulate("quadratic(d=8, dtype=float64)", "diana(randk(k=2))", lr="theory*4", **options)
    said = capsys.readouterr().out
    rate = float(said.split("=")[1].split(":")[0])
    by_hand = tg.simulate("quadratic(d=8, dtype=float64)", "diana(randk(k=2))", lr=rate, **options)
    assert "times 4" in said
    for name, parameter in whole.parameters.items():
        torch.testing.assert_close(parameter, by_hand.parameters[name], rtol=1e-4, atol=1e-7)


def test_at_its_step_diana_converges_where_the_theory_says_so():  # C8.2: max(1 − γμ, 1 − α/2)^T
    found = tg.simulate(
        "quadratic(d=8, condition=4, dtype=float64)", "diana(randk(k=4))", workers=4, steps=300, lr="theory",
        batch_size=None,
    )  # fmt: skip
    assert found.records[-1]["test"] < 1e-6 * found.records[0]["test"]


@pytest.mark.parametrize(
    ("workload", "method", "lr", "match"),
    [
        ("digits", "diana(randk(k=2))", "theory", "constants of DigitsTask are not known"),
        ("quadratic", "signsgd", "theory", "no step size is known for signsgd"),
        ("quadratic", "sgd(topk(k=1))", "theory", r"since topk\(k=1\) is biased"),
        ("quadratic", "diana(randk(k=2))", "theorie", 'a number, "theory"'),
    ],
)
def test_what_theory_does_not_know_is_refused(workload, method, lr, match):
    with pytest.raises(tg.ConfigError, match=match):
        tg.simulate(workload, method, workers=2, steps=1, lr=lr)
