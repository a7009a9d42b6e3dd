"""Local SGD, CompressedScaffnew and TAMUNA: traces on T2, identities, masks, cohorts, what they cost."""

import itertools

import pytest
import torch

import telegrad as tg
from problems import f4, oracle_run, plain_sgd, t2
from telegrad.methods.base import Step
from telegrad.methods.masks import mask_of, masked_message, mean_of_owners
from telegrad.methods.oracle_method import OracleStep, Upload
from telegrad.methods.participation import drawn_round, inclusion


def close(found, wanted, atol=1e-7):
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=atol)


def test_local_sgd_on_t2():  # C13, C13.1: H = 2, η = 1/4
    run = plain_sgd(oracle_run(t2(), "local_sgd(identity, local_lr=0.25, local_steps=2)", 2))
    run.step(0, 1.0)
    close(run.point(), (0.21875, 0.21875))
    assert run.ledger.gradients == [2, 2]
    for index in range(1, 80):
        run.step(index, 1.0)
    close(run.point(), (0.31818182, 0.36842105))  # not the optimum (1/4, 1/3): data differ


def test_one_local_step_is_compressed_sgd():  # C20
    local = plain_sgd(oracle_run(f4(), "local_sgd(mlmc(stopk(s=4)), local_lr=0.001, local_steps=1)", 10))
    whole = plain_sgd(oracle_run(f4(), "local_sgd(mlmc(stopk(s=4)), local_lr=0.002, local_steps=1)", 10))
    for index in range(5):
        local.step(index, 2.0)
        whole.step(index, 1.0)
        torch.testing.assert_close(local.point(), whole.point(), rtol=1e-9, atol=1e-12)


def test_local_sgd_weighs_workers_by_their_examples():
    class Counted:
        def __init__(self, oracle, count):
            self.oracle, self.count, self.rank = oracle, count, oracle.rank

        def __getattr__(self, name):
            return getattr(self.oracle, name)

    run = plain_sgd(oracle_run(t2(), "local_sgd(identity, local_lr=0.25, local_steps=1, weighted=true)", 2))
    for rank, count in ((0, 30), (1, 10)):
        run.oracles[rank] = Counted(run.oracles[rank], count)
    run.step(0, 1.0)
    close(run.point(), (0.75 * 0.25, 0.25 * 0.25))  # 30/40 of (.25, 0) and 10/40 of (0, .25)


def test_workers_draw_their_own_numbers_of_steps():
    run = plain_sgd(oracle_run(f4(), "local_sgd(identity, local_lr=0.001, local_steps=5, fewest_steps=2)", 10))
    counts = set()
    for index in range(6):
        before = list(run.ledger.gradients)
        run.step(index, 1.0)
        counts |= {after - b for after, b in zip(run.ledger.gradients, before, strict=True)}
    assert counts == {2, 3, 4, 5}


def step_of(index, workers, pieces=None, rank=None):
    return OracleStep(index, 0.1, tg.Key(4), workers=workers, pieces=pieces or (), rank=rank, dtype=torch.float64)


@pytest.mark.parametrize(
    ("participation", "sampling", "probabilities"),
    [(2, "uniform", [0.5] * 4), (0.5, "uniform", [0.5] * 4), (0.3, "independent", [0.3] * 4),
     ((0.1, 0.5, 0.9, 1.0), "independent", [0.1, 0.5, 0.9, 1.0])],
)  # fmt: skip
def test_weights_are_unbiased_whoever_is_drawn(participation, sampling, probabilities):
    """3,000 rounds: each takes part within 4.5 σ of its probability, and p times its weight is 1/M (E7)."""
    counts, rounds = torch.zeros(4), 3000
    for index in range(rounds):
        round_ = drawn_round(participation, sampling, step_of(index, 4))
        counts[list(round_.cohort)] += 1
        assert round_.sends == bool(round_.cohort)
    p = torch.tensor(probabilities)
    assert bool(((counts / rounds - p).abs() <= 4.5 * (p * (1 - p) / rounds).sqrt() + 1e-12).all())
    for rank in range(4):
        assert probabilities[rank] * inclusion(rank, participation, sampling, step_of(0, 4)) == pytest.approx(0.25)


def test_a_round_that_nobody_is_drawn_for_costs_nothing():
    run = plain_sgd(oracle_run(t2(), "local_sgd(identity, local_lr=0.1, participation=0.3, sampling=independent)", 2))
    for index in range(12):
        silent, sent, before = run.ledger.silent_steps, list(run.ledger.sent), run.point()
        run.step(index, 1.0)
        if run.ledger.silent_steps > silent:
            assert run.ledger.sent == sent
            assert torch.equal(run.point(), before)
    assert 1 < run.ledger.silent_steps < 11  # .49 of the rounds


class Piece:
    def __init__(self, name, numel):
        self.name, self.numel, self.shape = name, numel, ()


@pytest.mark.parametrize(("n", "s"), [(5, 2), (4, 4), (7, 3)])
def test_every_entry_has_exactly_s_owners_and_no_index_is_sent(n, s):  # C15.1
    pieces, vector = [Piece("a", 23), Piece("b", 3)], torch.arange(26, dtype=torch.float64)
    for index in range(5):
        step = step_of(index, n, pieces)
        masks = torch.stack([mask_of(place, n, s, step) for place in range(n)])
        assert masks.sum(0).tolist() == [s] * 26
        assert masks.sum(1).max() - masks.sum(1).min() <= 2 * s
        uploads = [Upload((masked_message(vector, place, n, s, step),)) for place in range(n)]
        for upload, mask in zip(uploads, masks, strict=True):
            assert torch.equal(upload.vector, torch.where(mask, vector, 0.0))
            assert sum(code.fields.get("index", 0) for code in upload.messages[0].codes) <= 2 * s * 8 * 10
        torch.testing.assert_close(mean_of_owners(uploads, s, step), vector)


def test_owners_are_a_uniform_subset():  # C15.2's facts need each pair equally often: n = 4, s = 2, 1,200 rounds
    pieces, counts = [Piece("a", 4)], dict.fromkeys(itertools.combinations(range(4), 2), 0)
    for index in range(1200):
        step = step_of(index, 4, pieces)
        owners = tuple(place for place in range(4) if bool(mask_of(place, 4, 2, step)[2]))
        counts[owners] += 1
    assert sum((count - 200) ** 2 / 200 for count in counts.values()) < 20.5  # χ² with 5 degrees: level 1e-3


def trajectory(spec, steps, lr, workers=10):
    run, found = oracle_run(f4(), spec, workers), []
    for index in range(steps):
        run.step(index, lr)
        found.append(run.point())
    return torch.stack(found), run


def test_with_all_workers_as_owners_it_is_scaffnew_bit_for_bit():  # C15
    one, _ = trajectory("scaffnew(probability=0.2)", 25, 1 / 140.546)
    other, _ = trajectory("compressed_scaffnew(probability=0.2, owners=10)", 25, 1 / 140.546)
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "spec", ["compressed_scaffnew(probability=0.3, owners=3)", "tamuna(probability=0.3, cohort=6, owners=3)"]
)
def test_control_vectors_add_up_to_zero_and_idle_workers_keep_theirs(spec):  # C15, C16
    run = oracle_run(f4(), spec, 10)
    for index in range(15):
        before = {rank: state["control"] for rank, state in run.states.items()}
        run.step(index, 2 / 141)
        total = sum(state["control"] for state in run.states.values())
        assert float(total.abs().max()) < 1e-11
        kept = [rank for rank, state in run.states.items() if torch.equal(state["control"], before[rank])]
        assert len(kept) == 10 or spec.startswith("compressed") or len(kept) == 4


def test_a_worker_sends_its_share_of_the_entries():  # C15: ⌊sd/n⌋ or ⌈sd/n⌉ floats, no indices
    _, run = trajectory("compressed_scaffnew(probability=1.0, owners=2)", 3, 1 / 141)
    values = sum(account["value"] for account in run.ledger.up) / 64  # float64
    assert values == 3 * 2 * 20


def psi_steps(spec, lr, most, seed):
    """Steps until Σ‖x_i − x*‖²/γ + (γ/ρ) Σ‖h_i − h_i*‖² is 1e-10 of its first value (C15.2), on F4."""
    task, d, n = f4(), 20, 10
    rows = task.train.inputs
    a, b = rows[:, : d * d].reshape(-1, d, d), rows[:, d * d : -1]
    best = torch.linalg.solve(a.mean(0), b.mean(0))
    shifts = (a @ best) - b
    method = tg.method(spec)
    chi = n * (method.owners - 1) / (method.owners * (n - 1))
    rho = method.probability**2 * chi * (method.owners - 1) / (n - 1)
    run, first = oracle_run(task, spec, n, seed=seed), 0.0
    for index in range(most):
        x = torch.stack([run.x[rank] for rank in range(n)])
        h = torch.stack([run.states[rank]["control"] for rank in range(n)])
        psi = float((x - best).square().sum() / lr + lr / rho * (h - shifts).square().sum())
        first = first or psi
        if psi <= 1e-10 * first:
            return index
        run.step(index, lr)
    return most


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("owners", "mean", "bound"), [(10, 4579, 5568), (5, 5739, 7050)])
def test_compressed_scaffnew_takes_as_many_steps_on_f4_as_the_reference(owners, mean, bound):  # C15
    lr, kappa = 2 / (140.546 + 0.58), 242.3207
    spec = f"compressed_scaffnew(probability={min(1.0, (10 / (owners * kappa)) ** 0.5)}, owners={owners})"
    counts = [psi_steps(spec, lr, 9000, seed) for seed in range(3)]
    assert max(counts) <= bound
    assert sum(counts) / 3 == pytest.approx(mean, rel=0.15)


@pytest.mark.parametrize(
    "spec",
    [
        "local_sgd(topk(k=1), local_lr=0.1)",
        "local_sgd(identity, local_lr=0.0)",
        "local_sgd(identity, local_lr=0.1, local_steps=2, fewest_steps=3)",
        "local_sgd(identity, local_lr=0.1, participation=(0.5, 0.5))",
        "local_sgd(identity, local_lr=0.1, participation=3, sampling=independent)",
        "local_sgd(identity, local_lr=0.1, participation=0.5, sampling=independent, weighted=true)",
        "compressed_scaffnew(probability=0.1, owners=1)",
        "tamuna(probability=0.1, cohort=2, owners=3)",
    ],
)
def test_unfit_arguments_are_refused_with_an_example(spec):
    with pytest.raises(tg.SpecError, match=r"[Ff]or example"):
        tg.method(spec)


def test_more_owners_than_workers_are_refused_once_their_number_is_known():
    with pytest.raises(tg.SpecError, match="lower owners"):
        oracle_run(t2(), "compressed_scaffnew(probability=1.0, owners=3)", 2).step(0, 0.1)
    with pytest.raises(tg.SpecError, match="lower cohort"):
        oracle_run(t2(), "tamuna(probability=1.0, cohort=3)", 2).step(0, 0.1)
    step = Step(0, 0.1, tg.Key(0), workers=3)
    with pytest.raises(tg.SpecError, match="2 probabilities for 3 workers"):
        drawn_round((0.5, 0.5), "independent", step)
