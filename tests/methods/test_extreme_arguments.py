"""Arguments at the ends of what is allowed: an error that says which, never a hang or a division by zero."""

import re
import warnings

import pytest

import telegrad as tg
from telegrad.methods import Clock


@pytest.mark.parametrize(
    ("spec", "options", "reason"),
    [
        ("tamuna(probability=1e-300, cohort=2)", {}, "tamuna(probability=1e-300): a number from 1e-6 to 1 is allowed"),
        ("adiana(randk(k=0.5), mu=0)", {}, "adiana(mu=0.0): a number above 0 is allowed, or 0 with theta given"),
        ("adiana(randk(k=0.5), mu=1)", {"lr": 0.0}, "lr=0.0: this method divides by the learning rate"),
        ("scaffnew(probability=1)", {"lr": 0.0}, "lr=0.0: this method divides by the learning rate"),
        ("tamuna(probability=1, cohort=2)", {"lr": 0.0}, "lr=0.0: this method divides by the learning rate"),
        ("sgd(randk(k=1), participation=0)", {}, "a fraction of the workers (a float in (0, 1]) is allowed"),
        ("ef21(topk(k=1), participation=1.5)", {}, "a fraction of the workers (a float in (0, 1]) is allowed"),
        ("local_sgd(randk(k=1), local_lr=0.1, participation=0)", {}, "a fraction of the workers"),
    ],
)
def test_what_is_too_far_is_refused(spec, options, reason):
    with pytest.raises(tg.TelegradError, match=re.escape(reason)):
        tg.simulate("quadratic(d=8)", spec, workers=2, steps=2, **{"lr": 0.01, **options})


@pytest.mark.parametrize("spec", ["onebit_adam", "scaffnew(probability=1)", "tamuna(probability=1, cohort=2)"])
def test_an_optimizer_that_a_method_never_asks_is_told_of(spec):
    run = {"workers": 2, "steps": 1, "lr": 0.01}
    with pytest.warns(tg.TelegradWarning, match=r"only lr counts: optimizer='adamw', weight_decay=0.1 is not used"):
        tg.simulate("quadratic(d=8)", spec, optimizer="adamw", weight_decay=0.1, **run)
    with warnings.catch_warnings():
        warnings.simplefilter("error", tg.TelegradWarning)
        tg.simulate("quadratic(d=8)", spec, **run)
        tg.simulate("quadratic(d=8)", "dasha(randk(k=1))", optimizer="adamw", **run)


@pytest.mark.parametrize(("gradient", "message"), [(1e300, 1e-300), (1e-300, 1e300), (0.0, 1.0), ([0.0, 1e300], 0.0)])
def test_shadowheart_plans_by_clocks_of_any_kind(gradient, message):
    clock = Clock(gradient=gradient, message=message)
    result = tg.simulate(
        "quadratic(d=8)", "shadowheart(randk(k=0.5))", workers=2, steps=1, lr=0.01, batch_size=4, clock=clock
    )
    assert result.records[-1]["step"] == 1
