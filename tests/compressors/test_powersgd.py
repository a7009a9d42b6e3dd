"""PowerSGD (A18) and the product of factors on the wire."""

import itertools

import pytest
import torch

import telegrad as tg
from cases import numbers
from telegrad.compressors.powersgd import power_iteration
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import All
from telegrad.wire.values import LowRank

MATRIX = torch.randn(12, 30, generator=torch.Generator().manual_seed(18), dtype=torch.float64)


def test_the_example_of_the_reference():
    """A18: G = [[3,0],[0,1],[0,0]], Q = (1,1): P = (.9487,.3162,0), Q = (2.8460,.3162), error 1.8 = 10 − 8.2."""
    matrix = torch.tensor([[3.0, 0], [0, 1], [0, 0]], dtype=torch.float64)
    left, right = power_iteration(matrix, torch.ones(2, 1, dtype=torch.float64))
    assert left.flatten().tolist() == pytest.approx([0.9487, 0.3162, 0.0], abs=5e-5)
    assert right.flatten().tolist() == pytest.approx([2.8460, 0.3162], abs=5e-5)
    error = float((matrix - left @ right.t()).square().sum())
    assert error == pytest.approx(1.8, abs=1e-12)
    assert error == pytest.approx(10 - float(right.square().sum()), abs=1e-12)  # A18.1


@pytest.mark.parametrize("matrix", [MATRIX, MATRIX.t().contiguous()], ids=["wide", "tall"])
def test_the_estimate_is_the_projection_onto_what_the_matrix_makes_of_q(matrix):
    q = torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, right = power_iteration(matrix, q)
    tall = matrix if len(matrix) == 30 else matrix.t()
    basis = torch.linalg.qr(tall @ q).Q
    estimate = left @ right.t()
    assert torch.allclose(estimate if len(matrix) == 30 else estimate.t(), basis @ basis.t() @ tall, rtol=1e-12)


def test_dependent_columns_are_left_out():
    rank_one = MATRIX[:, :1] @ MATRIX[:1]
    left, right = power_iteration(rank_one, torch.ones(12, 3, dtype=torch.float64))
    assert left.shape == (12, 1)
    assert torch.allclose(left @ right.t(), rank_one, rtol=1e-12)
    assert power_iteration(rank_one, torch.zeros(12, 2, dtype=torch.float64))[0].shape == (12, 0)


def test_repeated_with_its_own_factor_it_finds_the_best_approximation():
    """The warm start: the error falls to that of the truncated singular value decomposition."""
    sigma = torch.linalg.svdvals(MATRIX)
    q, errors = torch.ones(12, 2, dtype=torch.float64), []
    q[:6, 1] = -1.0
    for _ in range(200):
        left, right = power_iteration(MATRIX, q)
        errors.append(float((MATRIX - left @ right.t()).square().sum()))
        q = left  # of a wide matrix, the fellow of the orthonormal factor
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(errors))
    assert errors[-1] == pytest.approx(float(sigma[2:].square().sum()), rel=1e-6)


def test_a_matrix_of_the_rank_asked_for_is_kept_whole():
    x = (MATRIX[:, :2] @ MATRIX[:2]).float()
    code = tg.compressor("powersgd(rank=2)").encode(x, tg.Key(3))
    assert torch.allclose(code.decode(), x, atol=1e-5 * float(x.abs().max()))
    assert code.fields["value"] == 32 * 2 * (12 + 30)  # 32 r (a + b), A18


def test_equal_singular_values_attain_alpha():
    """‖Pᵀ G‖² = rank for an orthogonal G, whatever Q: alpha = rank/n and no less."""
    orthogonal = torch.linalg.qr(MATRIX[:, :12]).Q.contiguous()
    for rank in (1, 3):
        compressor = tg.compressor(f"powersgd(rank={rank})").for_shape((12, 12))
        assert compressor.alpha(144) == rank / 12
        assert compressor.variance(orthogonal) / 12 == pytest.approx(1 - rank / 12, rel=1e-12)


def test_the_shape_decides_what_is_a_row():
    compressor, key = tg.compressor("powersgd(rank=1)"), tg.Key(0)
    for shape, rows in (((4, 90), 4), ((90, 4), 90), ((12, 5, 6), 12), ((360,), 18)):
        (term,) = compressor.encode(MATRIX.reshape(shape), key).terms
        assert term.values.left.shape == (rows, 1)
    assert str(compressor.for_shape((12, 30))) == "powersgd(rank=1, rows=12)"
    assert compressor.for_shape((360,)) is compressor


def test_the_shape_reaches_what_is_made_of_other_compressors():
    scaled, plain = tg.compressor("scaled(powersgd(rank=1), by=1.0)"), tg.compressor("powersgd(rank=1)")
    assert str(scaled.for_shape((12, 30))) == "scaled(powersgd(rank=1, rows=12), by=1.0)"
    assert torch.equal(scaled.encode(MATRIX, tg.Key(0)).decode(), plain.encode(MATRIX, tg.Key(0)).decode())
    untouched = tg.compressor("scaled(topk(k=3))")
    assert untouched.for_shape((12, 30)) is untouched
    assert str(tg.method("ef14(powersgd(rank=1))").for_shape((12, 30))) == "ef14(powersgd(rank=1, rows=12))"


def test_prime_lengths_are_filled_up():
    x = torch.randn(211, generator=torch.Generator().manual_seed(0))
    code = tg.compressor("powersgd(rank=2)").encode(x, tg.Key(0))
    assert code.terms[0].values.left.shape == (14, 2)
    assert code.terms[0].values.right.shape == (16, 2)
    assert code.decode().shape == (211,)


def test_factors_that_do_not_fit_are_refused():
    code = Code((6,), torch.float64, (Term(All(6), LowRank(6, torch.ones(2, 1), torch.ones(3, 1))),))
    assert torch.equal(tg.unpack(tg.pack(code)).decode(), torch.ones(6, dtype=torch.float64))
    for left, right in ((7, 1), (2, 2)):
        bad = Code((6,), torch.float64, (Term(All(6), LowRank(6, torch.ones(left, 1), torch.ones(right, 1))),))
        with pytest.raises(tg.WireError):
            tg.unpack(tg.pack(bad))
    wide = Code((6,), torch.float64, (Term(All(6), LowRank(6, torch.ones(2, 3), torch.ones(3, 3))),))
    with pytest.raises(tg.WireError, match="rank 3"):
        tg.unpack(tg.pack(wide))


def test_the_same_bytes_on_any_number_of_threads():
    x = torch.randn(3, 40_000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    messages, threads = set(), torch.get_num_threads()
    try:
        for count in (1, 2, 4):
            torch.set_num_threads(count)
            messages.add(tg.pack(tg.compressor("powersgd(rank=1)").encode(x, tg.Key(0))))
    finally:
        torch.set_num_threads(threads)
    assert len(messages) == 1


def test_with_error_feedback_in_the_simulator_every_tensor_has_its_own_matrix():
    """Kernels are matrices of (out, in · 9), biases go as they are; error feedback makes up for what is left out."""
    spec = "ef14(policy(identity, powersgd(rank=1), below=65))"
    settings = {"workers": 2, "steps": 12, "lr": 0.3, "seed": 0}
    result = tg.simulate("digits", spec, granularity="tensor", **settings)
    whole = tg.simulate("digits", "sgd(identity)", granularity="tensor", **settings)
    assert result.ledger.bits_up_per_worker < 0.2 * whole.ledger.bits_up_per_worker
    assert result.records[-1]["train_loss"] < 0.98 * result.records[1]["train_loss"]


def test_numbers_are_the_product_of_the_factors():
    left, right = torch.randn(4, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    values = LowRank(18, left, right)
    assert torch.allclose(values.numbers(), (left @ right.t()).flatten()[:18], rtol=1e-12)
    assert torch.equal(values.scaled(2.0).numbers(), 2 * values.numbers())
    code = Code((18,), torch.float64, (Term(All(18), values),))
    assert torch.equal(numbers(code), values.numbers())
