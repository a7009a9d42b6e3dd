"""What every method promises: states are values, bad gradients leave them alone, unfit compressors are refused."""

from dataclasses import replace

import pytest
import torch

import telegrad as tg
from cases import ours
from telegrad.methods.base import Step
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.outer_method import OuterMethod
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.transport import LocalTransport
from telegrad.spec import build

EVERY_METHOD = [build(cls.example, "method") for cls in ours("method")]
METHODS = [method for method in EVERY_METHOD if isinstance(method, GradientMethod)]
NO_CONTRACTIONS = [
    "randk(k=0.01)",
    "importance(k=0.01)",
    "mlmc(stopk(s=1))",
    "qsgd(levels=1)",
    "topk(k=10, values=sign)",
]
CONTRACTIONS = ["topk(k=1000000)", "randk(k=0.01, scaled=false)", "sign", "mlmc(floating_point)", "rtn(level=2)"]
NEED_A_CONTRACTION = [cls for cls in ours("method") if cls.spec_name in ("ef14", "ef21", "ef21_sgdm", "ef21_sgd2m")]


def planned(method, index, lr=0.1, seed=0):
    """What all ranks know of the step, as a run makes it."""
    step = Step(index, lr, tg.Key(seed).fold(step=index))
    return replace(step, round=method.plan(step))


def run(method, gradients, dtype, lr=0.1, seed=0):
    """Estimates of a few steps with three workers, and all states on the way."""
    d = gradients[0].shape[1]
    workers = [method.worker_init(d, dtype) for _ in range(3)]
    server, estimates, states = method.server_init(d, dtype), [], []
    for index, step_gradients in enumerate(gradients):
        step = planned(method, index, lr, seed)
        pairs = [method.worker_step(step_gradients[rank], workers[rank], rank, step) for rank in range(3)]
        workers = [state for _, state in pairs]
        estimate, server = method.server_step([code for code, _ in pairs], server, step)
        estimates.append(estimate)
        states.append((workers, server))
    return estimates, states


def some_gradients(dtype, steps=4, d=300):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, d, generator=generator).to(dtype) for _ in range(steps)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_the_same_key_gives_the_same_run_and_the_global_generator_is_left_alone(method, dtype):
    gradients = some_gradients(dtype)
    torch.manual_seed(0)
    state = torch.get_rng_state()
    one, _ = run(method, gradients, dtype)
    torch.manual_seed(9)
    other, _ = run(method, gradients, dtype)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert all(estimate.shape == (300,) and bool(estimate.isfinite().all()) for estimate in one)
    torch.manual_seed(0)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_states_are_values_that_can_be_kept_and_resumed_from(method):
    gradients = some_gradients(torch.float64, steps=6)
    estimates, states = run(method, gradients, torch.float64)
    workers, server = states[2]
    for index in range(3, 6):
        step = planned(method, index)
        pairs = [method.worker_step(gradients[index][rank], workers[rank], rank, step) for rank in range(3)]
        workers = [state for _, state in pairs]
        estimate, server = method.server_step([code for code, _ in pairs], server, step)
        assert torch.equal(estimate, estimates[index])


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("lr", [0.1, 0.0])
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_a_bad_gradient_is_refused_and_the_state_is_as_it_was(method, lr, bad):
    gradients = some_gradients(torch.float32, steps=2)
    _, states = run(method, gradients, torch.float32)
    state = states[-1][0][0]
    before = {name: tensor.clone() for name, tensor in state.items()}
    spoilt = gradients[0][0].clone()
    spoilt[17] = bad
    step = planned(method, 2, lr)
    with pytest.raises(tg.NonFiniteError, match="NaN or infinity"):
        method.worker_step(spoilt, state, 0, step)
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)
    code, _ = method.worker_step(gradients[0][0], state, 0, step)
    assert bool(code.decode().isfinite().all())


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_a_worker_sends_survives_the_wire(method):
    gradients = some_gradients(torch.float32, steps=3)
    d, worker, server = 300, method.worker_init(300, torch.float32), method.server_init(300, torch.float32)
    for index in range(3):
        step = planned(method, index)
        code, worker = method.worker_step(gradients[index][0], worker, 0, step)
        direct, _ = method.server_step([code], server, step)
        received, server = method.server_step([tg.unpack(tg.pack(code))], server, step)
        assert torch.equal(direct, received)
        assert received.shape == (d,)


@pytest.mark.parametrize("cls", NEED_A_CONTRACTION, ids=lambda cls: cls.spec_name)
@pytest.mark.parametrize("compressor", NO_CONTRACTIONS)
def test_a_compressor_that_does_not_contract_is_refused_with_the_reason(cls, compressor):
    with pytest.raises(tg.SpecError) as refused:
        tg.method(f"{cls.spec_name}({compressor})")
    text = str(refused.value)
    said = f"{cls.spec_name} needs a contractive compressor (alpha > 0), and {tg.compressor(compressor)} is not one"
    for part in (said, "unbiased compressors go with sgd(…)", "randk(k=0.01, scaled=false)"):
        assert part in text
    assert cls.example in text


@pytest.mark.parametrize("cls", NEED_A_CONTRACTION, ids=lambda cls: cls.spec_name)
@pytest.mark.parametrize("compressor", CONTRACTIONS)
def test_a_contraction_is_accepted_whatever_the_size_it_is_meant_for(cls, compressor):
    assert str(tg.method(f"{cls.spec_name}({compressor})")) == f"{cls.spec_name}({tg.compressor(compressor)})"


@pytest.mark.parametrize("method", [m for m in EVERY_METHOD if not isinstance(m, GradientMethod)], ids=str)
def test_an_exchange_of_gradients_refuses_other_kinds_and_names_one_that_fits(method):
    """DDP's and FSDP2's hooks are such exchanges."""
    with pytest.raises(tg.SpecError) as refused:
        exchange_of(method, "allgather", None, LocalTransport(2), tg.Key(0))
    text = str(refused.value)
    assert text.startswith(f"{method} {method.needs}: ")
    assert method.needs
    assert isinstance(tg.method(method.instead), GradientMethod)
    assert f"use for example {method.instead}" in text
    assert "telegrad.simulate" in text


@pytest.mark.parametrize(
    "method", [m for m in EVERY_METHOD if not isinstance(m, (GradientMethod, OuterMethod))], ids=str
)
@pytest.mark.parametrize("topology", ["two_phase", "hierarchical(node=2)"])
def test_topologies_that_serve_shares_refuse_messages_over_the_whole_model(method, topology):
    with pytest.raises(tg.SpecError, match="runs over topology=server"):
        tg.simulate("digits", method, workers=2, steps=1, topology=topology, clock=tg.methods.Clock(gradient=1))


@pytest.mark.parametrize("method", [m for m in EVERY_METHOD if m.spec_name != "sgd"], ids=str)
def test_a_sharded_model_refuses_every_method_but_sgd(method):
    from telegrad.runtime import fsdp

    with pytest.raises(tg.SpecError, match=rf"{method.spec_name}.*(use for example|write an unbiased compressor)"):
        fsdp.register(torch.nn.Linear(2, 2), str(method))
