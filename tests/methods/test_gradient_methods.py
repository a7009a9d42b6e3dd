"""Sign methods, EF-BV, DASHA, DeMo, EF21's and SGD's options: traces on T2, identities, and cohorts."""

import itertools

import pytest
import torch

import telegrad as tg
from problems import DRAWS, t2_gradients
from telegrad.methods.base import Step


def close(found, wanted, atol=1e-7):
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=atol)


def by_hand(drive, spec, first=0):
    one = drive(spec, t2_gradients, 2)
    one.key = tg.Key(0)
    assert DRAWS[""]
    return one


def test_ef_bv_follows_its_trace_on_t2(drive):  # C7
    one = by_hand(drive, "ef_bv(drawn_by_hand, shift_rate=0.5, estimate_rate=0.6666666666666666)")
    for x in [(0.1666667, 0.1666667), (0.2083333, 0.2361111), (0.2152778, 0.3194444)]:
        one.step()
        close(one.x, x)
    close(one.workers[0]["shift"], (-0.7916667, 0.3333333))
    close(one.workers[1]["shift"], (0.625, -1))


def test_ef_bvs_rates_on_t2():  # C7: λ = .5, ν = 2/3 for Rand-1; for Top-1 η = √½, ω = 0
    assert tg.method("ef_bv(randk(k=1))").rates(2, 2) == pytest.approx((0.5, 2 / 3))
    assert tg.method("ef_bv(topk(k=1))").rates(2, 2) == pytest.approx((1.0, 1.0))
    with pytest.raises(tg.SpecError, match="give both rates"):
        tg.method("ef_bv(rtn(level=1))").rates(4, 2)


def alike(drive, gradients, one, other, d=40, steps=12):
    a, b = drive(one, gradients(5, d), d), drive(other, gradients(5, d), d)
    for _ in range(steps):
        assert torch.equal(a.step(0.1), b.step(0.1)), f"{one} and {other} differ"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ef_bv(topk(k=4), shift_rate=1.0, estimate_rate=1.0)", "ef21(topk(k=4))"),
        ("ef_bv(randk(k=4), shift_rate=0.1, estimate_rate=1.0)", "diana(randk(k=4))"),
        ("ef21_sgd2m(topk(k=4), momentum=1.0)", "ef21(topk(k=4))"),
        ("ef21_sgd2m(topk(k=4), momentum=1.0)", "ef21_sgdm(topk(k=4), momentum=1.0)"),
        ("ef21(topk(k=4), participation=1.0)", "ef21(topk(k=4))"),
        ("sgd(randk(k=4), participation=5)", "sgd(randk(k=4))"),
    ],
)
def test_methods_that_are_one_at_their_parameters(drive, noisy_gradients, one, other):
    alike(drive, noisy_gradients, one, other)


def test_dasha_follows_its_trace_on_t2(drive):  # C12
    one = by_hand(drive, "dasha(drawn_by_hand(first=1), rate=0.3333333333333333)")
    for estimate in [(-0.5, -0.5), (-0.375, -0.375), (0.03125, -0.10416667), (-0.0625, -0.10416667)]:
        close(one.step(), estimate)
    close(one.x + 0.25 * torch.tensor([-0.0625, -0.10416667], dtype=torch.float64), (0.2109375, 0.24479167))


def test_dasha_with_an_exact_compressor_is_plain_sgd(drive, noisy_gradients):
    a, b = drive("dasha(identity)", noisy_gradients(3, 20), 20), drive("sgd(identity)", noisy_gradients(3, 20), 20)
    for _ in range(10):
        torch.testing.assert_close(a.step(0.1), b.step(0.1), rtol=1e-12, atol=1e-12)


def test_dashas_rate_is_the_theorys(drive):
    assert tg.method("dasha(randk(k=1))").compressor.omega(2) == 1
    one, other = (by_hand(drive, f"dasha(drawn_by_hand(first=1){rate})") for rate in ("", ", rate=0.3333333333333333"))
    for _ in range(3):
        close(one.step(), other.step().tolist(), atol=1e-15)


def test_sign_methods_on_t2(drive):  # C3: with sign(0) = +1 the signs at 0 cancel, and x stays
    one = drive("signsgd", t2_gradients, 2)
    for _ in range(3):
        close(one.step(0.1), (0, 0))
    assert drive("signsgd", lambda x: [torch.tensor([-3.0, 0.5]).double()], 2).step().tolist() == [-1, 1]


@pytest.mark.parametrize(("ties", "tie"), [("zero", 0.0), ("plus", 1.0)])
def test_the_majority_and_its_ties(drive, ties, tie):
    votes = [[-2.0, 1, 3, -1], [-1, 5, -1, -1], [-1, -1, 2, 3], [4, 1, -2, 2]]
    one = drive(f"signsgd(vote=majority, ties={ties})", lambda x: [torch.tensor(v).double() for v in votes], 4)
    assert one.step().tolist() == [-1, 1, tie, tie]


def test_the_majority_comes_down_exactly_in_less_than_two_bits_an_entry():
    run = tg.simulate("digits", "signsgd(vote=majority)", workers=3, steps=2, lr=0.001, topology="server", seed=1)
    there = tg.simulate("digits", "signsgd(vote=majority)", workers=3, steps=2, lr=0.001, topology="allgather", seed=1)
    for name, parameter in run.parameters.items():
        assert torch.equal(parameter, there.parameters[name])
    d = sum(p.numel() for p in run.parameters.values())
    assert run.ledger.bits_down_per_worker < 2 * 2 * d
    assert run.ledger.bits_up_per_worker < 2 * 1.02 * d


def test_signum_sends_the_signs_of_the_momentum(drive):
    gradients = iter([[1.0, -1.0], [-3.0, -1.0], [-3.0, 30.0]])
    one = drive("signsgd(momentum=0.75)", lambda x: [torch.tensor(next(gradients)).double()], 2)
    # m = (.25, −.25), (−.5625, −.4375), (−1.17, 7.17)
    assert [one.step().tolist() for _ in range(3)] == [[1, -1], [-1, -1], [-1, 1]]
    close(one.workers[0]["average"], (-1.171875, 7.171875), atol=1e-12)


def test_demo_sends_the_largest_coefficients_and_keeps_the_rest(drive):  # A22.1, a trace by hand in one chunk of two
    """The basis is (1, 1)/√2, (1, −1)/√2. Worker 0: γ g = (3, 1), coefficients (4, 2)/√2; the first goes, (1, −1)
    stays.
    Worker 1: γ g = (−1, −2): (−3, 1)/√2; the first goes, (.5, −.5) stays. Mean of the first (.5/√2): sign (+, +).
    """
    gradients = [[[3.0, 1.0], [-1.0, -2.0]], [[1.0, -1.0], [4.0, 4.0]]]
    one = drive("demo(chunk=2, k=1, decay=0.5)", lambda x: [torch.tensor(g).double() for g in gradients[one.index]], 2)
    assert one.step(1.0).tolist() == [1, 1]
    close(one.workers[0]["momentum"], (1, -1), atol=1e-12)
    close(one.workers[1]["momentum"], (0.5, -0.5), atol=1e-12)
    # Worker 0: (.5, −.5) + (1, −1): only the second coefficient. Worker 1: (4.25, 3.75): the first, 8/√2.
    # Each was sent by one worker, and is not divided by two: (4 + 1.5, 4 − 1.5).
    assert one.step(1.0).tolist() == [1, 1]
    close(one.workers[0]["momentum"], (0, 0), atol=1e-12)
    close(one.workers[1]["momentum"], (0.25, -0.25), atol=1e-12)


def test_a_coefficient_is_averaged_over_those_who_sent_it(drive):
    """One worker sends (3, −3), two send (2, 2) and (1, 1): (3 + 1.5, −3 + 1.5); division by three kept (2, 0)."""
    gradients = [[3.0, -3.0], [2.0, 2.0], [1.0, 1.0]]
    one = drive("demo(chunk=2, k=1)", lambda x: [torch.tensor(g).double() for g in gradients], 2)
    assert one.step(1.0).tolist() == [1, -1]


def test_ef21_with_a_cohort_knows_the_mean_of_what_workers_know():
    """The estimate is (1/M) Σ g_i over all workers, though few send (C5.1)."""
    method, d, workers = tg.method("ef21(topk(k=3), participation=2)"), 12, 5
    states = [method.worker_init(d, torch.float64) for _ in range(workers)]
    server, generator = method.server_init(d, torch.float64), torch.Generator().manual_seed(3)
    cohorts = set()
    for index in range(9):
        step = Step(index, 0.1, tg.Key(1), workers=workers)
        cohort = method.plan(step).cohort
        cohorts.add(cohort)
        codes = []
        for rank in cohort:
            gradient = torch.randn(d, generator=generator, dtype=torch.float64)
            code, states[rank] = method.worker_step(gradient, states[rank], rank, step)
            codes.append(code)
        estimate, server = method.server_step(codes, server, step)
        torch.testing.assert_close(estimate, torch.stack([state["known"] for state in states]).mean(0))
    assert len(cohorts) > 3


def test_sgd_with_a_cohort_is_unbiased_with_the_references_error():  # E7: n = 4, m = 2, d = 3, all six cohorts
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    method, found = tg.method("sgd(identity, participation=2)"), []
    for cohort in itertools.combinations(range(4), 2):
        codes = [method.worker_step(vectors[rank], {}, rank, Step(0, 0.1, tg.Key(0)))[0] for rank in cohort]
        found.append(method.server_step(codes, {}, Step(0, 0.1, tg.Key(0), workers=4))[0])
    found, mean = torch.stack(found), vectors.mean(0)
    torch.testing.assert_close(found.mean(0), mean)
    spread = vectors.square().sum(1).mean() - mean.square().sum()
    assert float((found - mean).square().sum(1).mean()) == pytest.approx(float((4 - 2) / (2 * 3) * spread))


@pytest.mark.parametrize("topology", ["server", "allgather"])
@pytest.mark.parametrize("spec", ["sgd(topk(k=0.1), participation=0.5)", "ef21(topk(k=0.1), participation=2)"])
def test_those_who_sit_out_send_nothing(spec, topology):
    ledger = tg.simulate("digits", spec, workers=4, steps=6, topology=topology).ledger
    whole = tg.simulate("digits", spec.partition(", part")[0] + ")", workers=4, steps=6, topology=topology).ledger
    assert ledger.messages_up == whole.messages_up / 2
    assert ledger.bits_up_per_worker == pytest.approx(whole.bits_up_per_worker / 2, rel=0.05)


def test_ef21_compresses_what_comes_down_with_a_memory():
    options = {"workers": 3, "steps": 25, "lr": 0.05, "seed": 2, "topology": "server"}
    plain, exact, short = (
        tg.simulate("digits", f"ef21(topk(k=0.1){down})", **options)
        for down in ("", ", down=identity", ", down=topk(k=0.1)")
    )
    for name, parameter in plain.parameters.items():
        torch.testing.assert_close(parameter, exact.parameters[name], rtol=1e-4, atol=1e-6)
    assert short.ledger.bits_down_per_worker < 0.2 * plain.ledger.bits_down_per_worker
    assert short.records[-1]["validation"] > short.records[0]["validation"]


@pytest.mark.parametrize(
    "spec",
    [
        "ef21(topk(k=1), participation=0)",
        "sgd(identity, participation=1.5)",
        "ef21(topk(k=1), down=randk(k=0.1))",
        "signsgd(momentum=1.0)",
        "signsgd(vote=loud)",
        "dasha(topk(k=1))",
        "demo(k=65)",
        "ef_bv(topk(k=1), shift_rate=0.0)",
    ],
)
def test_unfit_arguments_are_refused_with_an_example(spec):
    with pytest.raises(tg.SpecError, match=r"for example|For example|allowed are"):
        tg.method(spec)
