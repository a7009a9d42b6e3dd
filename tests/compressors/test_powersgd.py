"""PowerSGD (A18) and the product of factors on the wire."""

import itertools
import math

import pytest
import torch

import telegrad as tg
from cases import numbers
from telegrad.compressors.matrix import Matrix
from telegrad.compressors.powersgd import power_iteration
from telegrad.context import LastEstimate
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.pieces import Part, Piece
from telegrad.runtime.transport import LocalTransport
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import All
from telegrad.wire.values import LowRank
from telegrad.wire.values.low_rank import as_matrix

MATRIX = torch.randn(12, 30, generator=torch.Generator().manual_seed(18), dtype=torch.float64)


def test_the_example_of_the_reference():
    """A18: G = [[3,0],[0,1],[0,0]], Q = (1,1): P = (.9487,.3162,0), Q = (2.8460,.3162), error 1.8 = 10 − 8.2."""
    matrix = torch.tensor([[3.0, 0], [0, 1], [0, 0]], dtype=torch.float64)
    left, right = power_iteration(Matrix((matrix,)), torch.ones(2, 1, dtype=torch.float64))
    assert left.flatten().tolist() == pytest.approx([0.9487, 0.3162, 0.0], abs=5e-5)
    assert right.flatten().tolist() == pytest.approx([2.8460, 0.3162], abs=5e-5)
    error = float((matrix - left @ right.t()).square().sum())
    assert error == pytest.approx(1.8, abs=1e-12)
    assert error == pytest.approx(10 - float(right.square().sum()), abs=1e-12)  # A18.1


@pytest.mark.parametrize("matrix", [MATRIX, MATRIX.t().contiguous()], ids=["wide", "tall"])
def test_the_estimate_is_the_projection_onto_what_the_matrix_makes_of_q(matrix):
    q = torch.randn(12, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    left, right = power_iteration(Matrix((matrix,)), q)
    tall = matrix if len(matrix) == 30 else matrix.t()
    basis = torch.linalg.qr(tall @ q).Q
    estimate = left @ right.t()
    assert torch.allclose(estimate if len(matrix) == 30 else estimate.t(), basis @ basis.t() @ tall, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("d", "rows"), [(12, 5), (211, 14), (5000, 2), (5001, 700), (200_003, 447), (131_072, 512)])
def test_products_are_those_of_the_matrix_that_zeros_fill_up(d, rows, dtype, threads):
    v = torch.randn(d, generator=torch.Generator().manual_seed(d), dtype=torch.float64).to(dtype)
    whole, matrix = as_matrix(v.double(), rows), Matrix.of(v, rows)
    assert matrix.shape == whole.shape
    for product, other in ((matrix.times, whole), (matrix.transposed_times, whole.t())):
        x = torch.randn(3, other.shape[1], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        threads(2)
        found = product(x.numpy())
        assert torch.allclose(torch.from_numpy(found), x @ other.t(), rtol=1e-12, atol=1e-11)
        threads(1)
        assert found.tobytes() == product(x.numpy()).tobytes()


def test_dependent_columns_are_left_out():
    rank_one = MATRIX[:, :1] @ MATRIX[:1]
    left, right = power_iteration(Matrix((rank_one,)), torch.ones(12, 3, dtype=torch.float64))
    assert left.shape == (12, 1)
    assert torch.allclose(left @ right.t(), rank_one, rtol=1e-12)
    assert power_iteration(Matrix((rank_one,)), torch.zeros(12, 2, dtype=torch.float64))[0].shape == (12, 0)


def test_repeated_with_its_own_factor_it_finds_the_best_approximation():
    """The warm start: the error falls to that of the truncated singular value decomposition."""
    sigma = torch.linalg.svdvals(MATRIX)
    q, errors = torch.ones(12, 2, dtype=torch.float64), []
    q[:6, 1] = -1.0
    for _ in range(200):
        left, right = power_iteration(Matrix((MATRIX,)), q)
        errors.append(float((MATRIX - left @ right.t()).square().sum()))
        q = left  # of a wide matrix, the fellow of the orthonormal factor
    assert all(after <= before * (1 + 1e-12) for before, after in itertools.pairwise(errors))
    assert errors[-1] == pytest.approx(float(sigma[2:].square().sum()), rel=1e-6)


def error(compressor, matrix, key):
    return float((numbers(compressor.encode(matrix, key)) - matrix.flatten()).square().sum())


def warm(rank, matrix, last):
    """powersgd for matrices of this shape, after an estimate."""
    context = tg.Context(shape=tuple(matrix.shape), last=LastEstimate(last.flatten()))
    return tg.compressor(f"powersgd(rank={rank}, start=last)").within(context)


def test_the_example_of_the_reference_from_a_last_estimate():
    """A18, Q = (1,1) being the direction of the last estimate: error 1.8, or less where a draw of Q did better."""
    matrix = torch.tensor([[3.0, 0], [0, 1], [0, 0]], dtype=torch.float64)
    last = torch.tensor([[0.0, 0], [2, 2], [-1, -1]], dtype=torch.float64)
    drawn = [error(tg.compressor("powersgd(rank=1)"), matrix, tg.Key(seed)) for seed in range(20)]
    found = [error(warm(1, matrix, last), matrix, tg.Key(seed)) for seed in range(20)]
    assert found == pytest.approx([min(1.8, one) for one in drawn], abs=1e-12)
    assert min(drawn) < 1.8 < max(drawn)


@pytest.mark.parametrize("shape", [(12, 30), (30, 12)], ids=["wide", "tall"])
def test_after_its_own_message_a_worker_starts_at_the_sources_q(shape):
    """The last message's factor that is not orthonormal is the source's Q (A18)."""
    before, now = (torch.randn(shape, generator=torch.Generator().manual_seed(n)).double() for n in (1, 2))
    last = tg.compressor("powersgd(rank=2)").encode(before, tg.Key(0))
    factors = last.terms[0].values
    left, right = power_iteration(Matrix((now,)), factors.left if shape[0] < shape[1] else factors.right)
    expected = float((now - left @ right.t()).square().sum())
    for seed in range(4):
        drawn = error(tg.compressor("powersgd(rank=2)"), now, tg.Key(seed))
        assert error(warm(2, now, last.decode()), now, tg.Key(seed)) == pytest.approx(min(drawn, expected), rel=1e-12)


def test_a_gradient_that_stays_is_found_at_the_rate_of_subspace_iteration():
    """σ = 2, 1, …, 1: the tangent of the angle to the best direction shrinks by (σ₂/σ₁)² a step, its square by 1/16.

    A random start every time has no such memory.
    """
    u, _, w = torch.linalg.svd(MATRIX, full_matrices=False)
    sigma = torch.ones(12, dtype=torch.float64)
    sigma[0] = 2.0
    matrix, best = u @ (sigma[:, None] * w), 11.0
    last, tangents, drawn = torch.zeros(360, dtype=torch.float64), [], []
    for step in range(12):
        code = warm(1, matrix, last).encode(matrix, tg.Key(step))
        last = code.decode().flatten()
        sine = (float((last - matrix.flatten()).square().sum()) - best) / 3
        tangents.append(sine / (1 - sine))
        drawn.append(error(tg.compressor("powersgd(rank=1)"), matrix, tg.Key(step)) - best)
    assert all(after <= before / 16 * (1 + 1e-6) + 1e-13 for before, after in itertools.pairwise(tangents))
    assert tangents[0] > 0.1
    assert sum(drawn) / 12 > 0.5  # of 3, what the worst direction loses


def test_no_message_is_worse_than_from_a_random_start():
    generator = torch.Generator().manual_seed(4)
    better = 0
    for seed, shape in enumerate([(12, 30), (30, 12), (16, 16), (211,)] * 5):
        matrix = torch.randn(shape, generator=generator, dtype=torch.float64) ** 3
        last = matrix + torch.randn(shape, generator=generator, dtype=torch.float64)
        drawn, found = (error(c, matrix, tg.Key(seed)) for c in (tg.compressor("powersgd"), warm(2, matrix, last)))
        assert found <= drawn * (1 + 1e-12)
        better += found < drawn
    assert better > 15


def test_a_last_estimate_that_tells_nothing_leaves_the_random_start():
    key, cold = tg.Key(5), tg.compressor("powersgd(rank=1)")
    for last in (torch.zeros(360), torch.randn(7), torch.zeros(0), torch.full((360,), 1e-320, dtype=torch.float64)):
        assert tg.pack(warm(1, MATRIX, last).encode(MATRIX, key)) == tg.pack(cold.encode(MATRIX, key))
    assert tg.pack(tg.compressor("powersgd(rank=1, start=last)").encode(MATRIX, key)) == tg.pack(
        cold.encode(MATRIX, key)
    )
    # Alone, a start at directions orthogonal to the gradient's would keep nothing.
    one, other = (MATRIX[:, :1] @ row[None] for row in torch.linalg.qr(MATRIX.t()).Q.t()[:2])
    assert error(warm(1, one, other), one, key) <= 1e-20 * float(one.square().sum())


def test_the_last_estimate_changes_neither_constants_nor_name():
    compressor, last = tg.compressor("powersgd(rank=3, start=last)"), LastEstimate(MATRIX.flatten())
    after = compressor.within(tg.Context(last=last))
    assert after.alpha(360) == compressor.alpha(360) == 3 / 18
    assert after == compressor
    assert str(after) == str(compressor) == "powersgd(rank=3, start=last)"
    assert after.variance(MATRIX) < compressor.variance(MATRIX)
    assert not math.isfinite(after.omega(360))
    given = compressor.encode(MATRIX, tg.Key(0), tg.Context(last=last))
    assert tg.pack(after.encode(MATRIX, tg.Key(0))) == tg.pack(given)
    assert tg.compressor("powersgd").asks == {"shape"}
    method = tg.method("ef14(policy(identity, powersgd(rank=1, start=last), below=65))")
    assert str(method.within(tg.Context(last=last))) == str(method)
    assert method.asks == {"shape", "last"}


def test_a_matrix_of_the_rank_asked_for_is_kept_whole():
    x = (MATRIX[:, :2] @ MATRIX[:2]).float()
    code = tg.compressor("powersgd(rank=2)").encode(x, tg.Key(3))
    assert torch.allclose(code.decode(), x, atol=1e-5 * float(x.abs().max()))
    assert code.fields["value"] == 32 * 2 * (12 + 30)  # 32 r (a + b), A18


def test_equal_singular_values_attain_alpha():
    """‖Pᵀ G‖² = rank for an orthogonal G, whatever Q: alpha = rank/n and no less."""
    orthogonal = torch.linalg.qr(MATRIX[:, :12]).Q.contiguous()
    for rank in (1, 3):
        compressor = tg.compressor(f"powersgd(rank={rank})").within(tg.Context(shape=(12, 12)))
        assert compressor.alpha(144) == rank / 12
        assert compressor.variance(orthogonal) / 12 == pytest.approx(1 - rank / 12, rel=1e-12)


def test_the_shape_decides_what_is_a_row():
    compressor, key = tg.compressor("powersgd(rank=1)"), tg.Key(0)
    for shape, rows in (((4, 90), 4), ((90, 4), 90), ((12, 5, 6), 12), ((360,), 18)):
        (term,) = compressor.encode(MATRIX.reshape(shape), key).terms
        assert term.values.left.shape == (rows, 1)
    assert compressor.within(tg.Context(shape=(4, 90))).alpha(360) == 1 / 4
    assert compressor.within(tg.Context(shape=(360,))).alpha(360) == compressor.alpha(360) == 1 / 18
    fixed = tg.compressor("powersgd(rank=1, rows=12)")
    assert fixed.within(tg.Context(shape=(4, 90))) is fixed


def test_the_shape_reaches_what_is_made_of_other_compressors():
    scaled, plain = tg.compressor("scaled(powersgd(rank=1), by=1.0)"), tg.compressor("powersgd(rank=1)")
    assert scaled.within(tg.Context(shape=(4, 90))).alpha(360) == pytest.approx(1 / 4)
    assert torch.equal(scaled.encode(MATRIX, tg.Key(0)).decode(), plain.encode(MATRIX, tg.Key(0)).decode())
    untouched = tg.compressor("scaled(topk(k=3))")
    assert untouched.within(tg.Context(shape=(12, 30))) is untouched
    within = tg.method("ef14(powersgd(rank=1))").within(tg.Context(shape=(4, 90)))
    assert within.compressor.alpha(360) == 1 / 4


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


def distances(spec, noise, steps=40):
    """‖x − x*‖² / ‖x*‖² after each step on ½ ‖x − x*‖², x* of rank 2 and shape (30, 40), four workers with noise."""
    generator, piece = torch.Generator().manual_seed(0), Piece("x", (Part("x", 0, 1200),), (30, 40))
    normal = [torch.randn(size, generator=generator, dtype=torch.float64) for size in ((30, 2), (2, 40))]
    best, x, found = (normal[0] @ normal[1]).flatten(), torch.zeros(1200, dtype=torch.float64), []
    exchange = exchange_of(spec, "allgather", None, LocalTransport(4), tg.Key(0))
    for step in range(steps):
        exchange.begin(step, 0.1)
        own = [[x - best + noise * torch.randn(1200, generator=generator, dtype=torch.float64)] for _ in range(4)]
        x = x - 0.1 * exchange.run([piece], own)[0]
        exchange.commit()
        found.append(float((x - best).square().sum() / best.square().sum()))
    return found


def test_where_the_signal_is_of_low_rank_and_the_noise_is_not_the_last_estimate_tells_them_apart():
    """Noise of variance 1 an entry, the signal's is 2. Uncompressed SGD ends at .009 here, from a random start at .19.

    With error feedback either start comes near: here the warm one, at variance .09, where SGD ends at .001.
    """
    cold, known = (distances(f"sgd(powersgd(rank=1, start={start}))", 1.0)[-1] for start in ("random", "last"))
    assert known < cold / 4
    assert known < 0.05
    assert distances("ef14(powersgd(rank=1, start=last))", 0.3)[-1] < 0.005
    assert distances("ef21_sgdm(powersgd(rank=1, start=last))", 0.3)[-1] < 0.03
