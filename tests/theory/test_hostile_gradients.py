"""Gradients and models that cannot be looked at: an error that names the culprit, and never a figure that is NaN."""

import math
from functools import partial

import pytest
import torch

import telegrad as tg
from telegrad.errors import ConfigError, DataError, InputError
from telegrad.theory.diagnosis import diagnose_gradients
from telegrad.theory.measuring import measure, measure_all
from telegrad.theory.noise_scale import noise_scale
from telegrad.theory.profiles import conversion_seconds, profile
from telegrad.theory.tails import fit_decay, hill, tail, top_share

NAN, INF = math.nan, math.inf


def test_gradients_that_do_not_belong_together():
    for wrong, words in (
        ([torch.ones(3), torch.full((3,), NAN), torch.ones(3)], "gradient 2.*NaN or infinity"),
        ([[1.0, 2.0]] * 3, "of type list: a tensor is wanted"),
        (3, "of type int: a list of tensors"),
        ([torch.zeros(3)] * 3, "all zero"),
        ([torch.zeros(0)] * 3, "empty"),
        ([torch.ones(3)] * 2, "at least three"),
    ):
        with pytest.raises(InputError, match=words):
            noise_scale(wrong, 8)
    alike = noise_scale([torch.ones(3)] * 3, 8)
    assert (alike.examples, alike.low, alike.high) == (0, 0, 0)
    with pytest.raises(ConfigError, match="workers=0"):
        alike.phi(0)
    with pytest.raises(InputError, match="batch_size=0"):
        noise_scale([torch.ones(3)] * 3, 0)
    with pytest.raises(InputError, match="differ in length"):
        noise_scale([torch.ones(3), torch.ones(3), torch.ones(4)], 8)


GRADIENT = torch.linspace(-1.0, 2.0, 50)
VECTOR_FUNCTIONS = {
    "hill": hill,
    "top_share": top_share,
    "fit_decay": fit_decay,
    "tail": tail,
    "profile": partial(profile, "qsgd"),
    "conversion_seconds": conversion_seconds,
    "measure": lambda v: measure("qsgd", v, tg.Key(0), 2),
    "measure_all": lambda v: measure_all(["qsgd"], v, tg.Key(0), 2),
    "diagnose_gradients": lambda v: diagnose_gradients([{"a": v}], 4, ["qsgd"]),
}


@pytest.mark.parametrize("name", VECTOR_FUNCTIONS)
def test_vectors_must_be_tensors_of_finite_real_numbers(name):
    function = VECTOR_FUNCTIONS[name]
    function(GRADIENT)
    for odd in (NAN, INF):
        spoilt = GRADIENT.clone()
        spoilt[7] = odd
        with pytest.raises(InputError, match="NaN or infinity"):
            function(spoilt)
    if name != "diagnose_gradients":
        with pytest.raises(InputError, match="of type list: a tensor is wanted"):
            function([1.0, 2.0])
        with pytest.raises(InputError, match="real numbers"):
            function(GRADIENT.to(torch.complex64))
        with pytest.raises(InputError, match="a dense one is wanted"):
            function(GRADIENT.to_sparse())


def test_vectors_of_which_nothing_can_be_said():
    nothing = (torch.zeros(5), torch.zeros(0))
    for name in ("profile", "conversion_seconds", "measure", "measure_all", "diagnose_gradients"):
        for v in nothing:
            with pytest.raises((InputError, DataError), match="there is nothing to"):
                VECTOR_FUNCTIONS[name](v)
    with pytest.raises(InputError, match="at least one entry"):
        tail(torch.zeros(0))
    assert math.isnan(tail(torch.zeros(5)).hill)
    assert measure("qsgd", torch.tensor(3.0), tg.Key(0), 2).bits > 0
    for size in (1e-200, 1e200):
        with pytest.raises(InputError, match="squares sum to"):
            measure("qsgd", torch.full((9,), size, dtype=torch.float64), tg.Key(0), 2)


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_tails_do_not_depend_on_the_unit(size):
    v = torch.linspace(0.5, 3.0, 40, dtype=torch.float64)
    plain, scaled = tail(v), tail(v * size)
    assert scaled.norm == pytest.approx(plain.norm * size)
    for name in ("hill", "top_share", "kurtosis"):
        assert getattr(scaled, name) == pytest.approx(getattr(plain, name))
    assert scaled.decay.omega == pytest.approx(plain.decay.omega)


def batches(inputs=3, count=3):
    return [(torch.randn(8, inputs), torch.randint(2, (8,))) for _ in range(count)]


def test_what_cannot_be_diagnosed():
    model = torch.nn.Linear(3, 2)
    wrong = [
        ((model, []), DataError, "no batch"),
        ((model, 3), DataError, "of type int"),
        ((model, [torch.randn(8, 3)]), DataError, "no pair"),
        (("model", batches()), InputError, "of type str"),
        ((torch.nn.ReLU(), batches()), InputError, "requires a gradient"),
        ((model, [(torch.full((8, 3), NAN), torch.zeros(8, dtype=torch.long))]), InputError, "NaN or infinity"),
        ((model, [(torch.zeros(0, 3), torch.zeros(0, dtype=torch.long))]), ConfigError, "batch_size=0"),
    ]
    for given, kind, words in wrong:
        with pytest.raises(kind, match=words):
            tg.diagnose(*given, specs=["qsgd"])
    for loss, words in (
        ("mse", "loss is of type str"),
        (lambda m, x, y: 1.0, "the loss is of type float"),
        (lambda m, x, y: m(x), r"of shape \(8, 2\): .* one number"),
        (lambda m, x, y: torch.tensor(1.0), "without a gradient"),
    ):
        with pytest.raises(InputError, match=words):
            tg.diagnose(model, batches(), loss=loss, specs=["qsgd"])
    for targets in (None, torch.tensor(0)):
        with pytest.raises(DataError, match="have no length"):
            tg.diagnose(model, [(torch.randn(8, 3), targets)], loss=lambda m, x, y: m(x).sum(), specs=["qsgd"])
    for specs in ("qsgd", [], None, 3):
        with pytest.raises(InputError, match="a list of specs, at least one, is wanted"):
            tg.diagnose(model, batches(), specs=specs)
    with pytest.raises(DataError, match="no gradient"):
        diagnose_gradients([], 4)
    one = {"a": torch.ones(3)}
    for gradients, words in (
        ([torch.ones(3)], "a dict of tensors"),
        ([{}], "at least one"),
        ([{"a": [1.0]}], "gradient of a is of type list"),
        ([one, {"b": torch.ones(3)}], "batch 2: gradients of other names"),
        ([one, {"a": torch.full((3,), NAN)}], "batch 2: the gradient of a, .*lower the learning rate"),
    ):
        with pytest.raises(InputError, match=words):
            diagnose_gradients(gradients, 4, ["qsgd"])
