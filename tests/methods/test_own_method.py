"""Methods from outside telegrad: what they may not return or change is named where it is made."""

import dataclasses
import re

import pytest
import torch

import telegrad as tg
from telegrad.compressors.identity import Identity
from telegrad.methods import GradientMethod, OracleMethod
from telegrad.methods.base import Contents, Round, Step, mean_of
from telegrad.methods.oracle_method import Upload, mean_vector

CODED = Identity()


def changed(base, functions):
    cls = dataclasses.dataclass(frozen=True)(base)
    return dataclasses.dataclass(frozen=True)(type("Own", (cls,), functions))()


def gradient_method(**functions):
    class Plain(GradientMethod):
        def worker_init(self, d, dtype):
            return {"seen": torch.zeros(d, dtype=dtype), "count": torch.zeros(())}

        def worker_step(self, gradient, state, rank, step):
            return CODED.encode(gradient), {"seen": state["seen"] + gradient, "count": state["count"] + 1}

        def server_step(self, codes, state, step):
            return mean_of(codes, workspace=step.workspace), state

    return changed(Plain, functions)


def oracle_method(**functions):
    class Plain(OracleMethod):
        def worker_step(self, oracle, x, state, step):
            return step.upload(CODED, oracle.gradient(x)), state

        def server_step(self, uploads, state, step):
            return step.broadcast(mean_vector(uploads)), state

    return changed(Plain, functions)


def run(method):
    return tg.simulate("quadratic", method, workers=3, steps=2, lr=0.05)


def in_place(self, gradient, state, rank, step):
    state["seen"].add_(gradient)
    return CODED.encode(gradient), state


def vanishing(self, gradient, state, rank, step):
    return CODED.encode(gradient.mul_(2)), state


def test_right_ones_train_as_sgd_does():
    wanted = run("sgd(identity)").parameters["x"]
    for method in (gradient_method(), oracle_method()):
        assert run(method).parameters["x"].allclose(wanted, rtol=1e-6)


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        (
            {"worker_step": lambda self, g, s, r, step: CODED.encode(g)},
            "returned a Code; two are wanted, (code, state)",
        ),
        (
            {"worker_step": lambda self, g, s, r, step: (g, s)},
            "a code is wanted, compressor.encode(vector, step.uplink",
        ),
        ({"worker_step": lambda self, g, s, r, step: (CODED.encode(g), None)}, "returned None as the state; a dict"),
        ({"worker_step": lambda self, g, s, r, step: (CODED.encode(g[1:]), s)}, "shape (31,); one of the gradient's"),
        ({"worker_step": lambda self, g, s, r, step: (CODED.encode(g.double()), s)}, "a code of torch.float64"),
        ({"worker_step": lambda self, g, s, r, step: (CODED.encode(g), {})}, "the same names and shapes are wanted"),
        (
            {"worker_step": lambda self, g, s, r, step: (CODED.encode(g), {**s, "n": 3})},
            "an int in the state under 'n'",
        ),
        ({"worker_step": in_place}, "worker_step changed in place what it was handed"),
        ({"worker_step": vanishing}, "worker_step changed in place what it was handed"),
        ({"worker_init": lambda self, d, dtype: None}, "worker_init returned None as the state; a dict"),
        ({"worker_init": lambda self, d, dtype: {"seen": torch.zeros(d + 1)}}, "vectors over the 32 entries, or 0-d"),
        ({"server_step": lambda self, codes, s, step: mean_of(codes)}, "two are wanted, (estimate, state)"),
        ({"server_step": lambda self, codes, s, step: (codes[0], s)}, "returned a Code as the estimate"),
        ({"server_step": lambda self, codes, s, step: (mean_of(codes)[1:], s)}, "a tensor of floats of shape (32,)"),
        ({"server_step": lambda self, codes, s, step: (mean_of(codes).int(), s)}, "a tensor of floats of shape (32,)"),
        ({"plan": lambda self, step: Round(sends=False)}, "a GradientMethod sends in every step"),
        ({"plan": lambda self, step: Round(cohort=[0, 1])}, "returned Round(cohort=[0, 1]); ranks from 0 to 2"),
    ],
)
def test_what_a_gradient_method_may_not_do_is_named(functions, reason):
    with pytest.raises(tg.InputError, match=re.escape("Own.") + ".*" + re.escape(reason)):
        run(gradient_method(**functions))


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        (
            {"worker_step": lambda self, o, x, s, step: step.upload(CODED, x)},
            "an Upload; two are wanted, (upload, state)",
        ),
        (
            {"worker_step": lambda self, o, x, s, step: (x, s)},
            "Upload is wanted, such as step.upload(compressor, vector)",
        ),
        ({"worker_step": lambda self, o, x, s, step: (None, s)}, "let plan say Round(sends=False)"),
        ({"plan": lambda self, step: Round(sends=False)}, "where the plan says Round(sends=False): return None"),
        (
            {"worker_step": lambda self, o, x, s, step: (Upload((CODED.encode(x),)), s)},
            "what step.encode returns is wanted",
        ),
        (
            {"worker_step": lambda self, o, x, s, step: (Upload((step.encode(CODED, x),), (x[0],)), s)},
            "a tuple of Python's numbers is wanted",
        ),
        ({"worker_step": lambda self, o, x, s, step: (step.upload(CODED, x.add_(1)), s)}, "changed in place what it"),
        ({"worker_step": lambda self, o, x, s, step: (step.upload(CODED, x), None)}, "returned None as the state"),
        (
            {"server_step": lambda self, u, s, step: (mean_vector(u), s)},
            "Broadcast is wanted, such as step.broadcast(v",
        ),
        ({"server_step": lambda self, u, s, step: (u[0], s)}, "returned an Upload; Broadcast is wanted"),
        ({"update": lambda self, x, b, s, step, optimizer: optimizer(x, b.vector)}, "two are wanted, (x, state)"),
        ({"update": lambda self, x, b, s, step, optimizer: (x[1:], s)}, "as the next x; a tensor of floats of shape"),
        ({"update": lambda self, x, b, s, step, optimizer: (x.sub_(b.vector), s)}, "update changed in place"),
        ({"point": lambda self, x, server: None}, "point returned None as the point"),
        ({"plan": lambda self, step: None}, "plan returned None; a telegrad.methods.base.Round is wanted"),
        ({"plan": lambda self, step: Round(cohort=())}, "returned Round(cohort=()); ranks from 0 to 2 are wanted"),
        ({"plan": lambda self, step: Round(cohort=(2, 0))}, "ranks from 0 to 2 are wanted, in increasing order"),
        ({"plan": lambda self, step: Round(cohort=(0, 3))}, "ranks from 0 to 2 are wanted"),
        ({"plan": lambda self, step: Round(receivers=(3,))}, "returned Round(receivers=(3,)); ranks from 0 to 2"),
        ({"plan": lambda self, step: Round(local_steps=0)}, "a number of steps from 1 is wanted"),
        ({"plan": lambda self, step: Round(upload=(Contents(),))}, "of 1 Contents; one for each of 3 is wanted"),
    ],
)
def test_what_an_oracle_method_may_not_do_is_named(functions, reason):
    with pytest.raises(tg.InputError, match=re.escape("Own.") + ".*" + re.escape(reason)):
        run(oracle_method(**functions))


@pytest.mark.parametrize(
    ("functions", "reason"),
    [
        (
            {"worker_step": lambda self, o, x, s, step: (step.upload(CODED, x[1:]), s)},
            "step.encode was given a vector of",
        ),
        ({"worker_step": lambda self, o, x, s, step: o.gradient(x[1:])}, "a point of shape (31,); a flat tensor over"),
        ({"worker_step": lambda self, o, x, s, step: o.full_gradient([1.0])}, "a point of type list; a flat tensor"),
        (
            {"update": lambda self, x, b, s, step, optimizer: (x + step.rank, s)},
            'write iterates = "own", or let update',
        ),
        (
            {"plan": lambda self, step: Round(receivers=(0,))},
            "update moves workers apart, and their iterates are shared",
        ),
        ({"plan": lambda self, step: Round(cohort=step.drawn_cohort(0))}, "step.drawn_cohort(0): a number of workers"),
    ],
)
def test_what_an_oracle_method_may_not_ask_for_is_named(functions, reason):
    with pytest.raises(tg.TelegradError, match=re.escape(reason)):
        run(oracle_method(**functions))


def test_iterates_are_shared_or_own():
    with pytest.raises(tg.SpecError, match=r"Own.iterates = 'owned': shared or own is allowed"):
        oracle_method(iterates="owned")


def test_a_method_of_no_kind_is_told_the_kinds():
    with pytest.raises(
        tg.SpecError, match="Own is of no kind that can run; derive Own from GradientMethod, OracleMethod"
    ):
        run(changed(type("Bare", (tg.Method,), {}), {}))


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_coins_have_probabilities(probability):
    with pytest.raises(tg.InputError, match=r"step\.coin\(.*\): a probability from 0 to 1 is allowed"):
        Step(0, 0.1, tg.Key()).coin(probability)
    if not probability > 0:
        with pytest.raises(tg.InputError, match="a probability above 0 is allowed"):
            Step(0, 0.1, tg.Key()).geometric(probability)
