"""What a compressor may know beyond the entries: how it comes to those that ask, and what they make of it."""

import dataclasses
import functools

import pytest
import torch

import telegrad as tg
from cases import ours
from telegrad.context import UNKNOWN, Context, Contextual
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.pieces import Part, Piece
from telegrad.runtime.transport import LocalTransport

X = torch.randn(60, generator=torch.Generator().manual_seed(1))
KEY = tg.Key(5).fold(step=2, piece="layer.weight", rank=1)


def test_whoever_asks_for_nothing_stays_what_it_was():
    method = tg.method("ef14(policy(identity, topk(k=3), below=9))")
    assert method.asks == frozenset()
    assert method.within(Context(rank=3)) is method
    assert method.context is UNKNOWN


@pytest.mark.parametrize("kind", ["compressor", "ladder", "method"])
def test_only_fields_of_a_context_are_asked_for(kind):
    known = {field.name for field in dataclasses.fields(Context)}
    for cls in ours(kind):
        assert issubclass(cls, Contextual)
        assert tg.spec.build(cls.example, kind).asks <= known, cls


def test_parts_hand_on_what_they_are_asked_for():
    deep = tg.method("ef14(scaled(policy(identity, warmup(identity, powersgd(start=last), steps=3), named=bias)))")
    assert deep.asks == {"name", "step", "shape", "last"}
    context = Context(step=1, name="bias", shape=(3, 4))
    within = deep.within(context).compressor.inner
    assert within.context == within.default.context == within.default.then.context == context
    assert within.special is deep.compressor.inner.special  # the identity
    assert within == deep.compressor.inner
    assert hash(within) == hash(deep.compressor.inner)


@pytest.mark.parametrize(
    ("spec", "context"),
    [
        ("permk(workers=4)", Context(rank=1)),
        ("mlmc(stopk(s=3), workers=4)", Context(rank=1)),
        ("policy(identity, randk(k=3), named='*.weight')", Context(name="layer.weight")),
        ("warmup(identity, randk(k=3), steps=3)", Context(step=2)),
        ("compose(natural, permk(workers=4))", Context(rank=1)),
    ],
)
def test_a_context_says_what_a_key_tells_by_what_was_folded(spec, context):
    compressor = tg.compressor(spec)
    told = tg.pack(compressor.encode(X, KEY))
    assert tg.pack(compressor.encode(X, KEY, context)) == told
    assert tg.pack(compressor.within(context).encode(X, KEY)) == told
    assert tg.pack(compressor.within(Context(workers=4)).encode(X, KEY)) == told


@pytest.mark.parametrize(
    ("spec", "context"),
    [
        ("permk(workers=4)", Context(rank=2)),
        ("mlmc(stopk(s=3), workers=4)", Context(rank=2)),
        ("policy(identity, randk(k=3), named='*.weight')", Context(name="layer.bias")),
        ("warmup(identity, randk(k=3), steps=3)", Context(step=3)),
    ],
)
def test_a_context_goes_before_what_was_folded(spec, context):
    compressor = tg.compressor(spec)
    assert tg.pack(compressor.encode(X, KEY, context)) != tg.pack(compressor.encode(X, KEY))


@pytest.mark.parametrize(
    ("few", "named"), [("permk", "permk(workers=3)"), ("mlmc(stopk(s=4), workers=all)", "mlmc(stopk(s=4), workers=3)")]
)
def test_who_counts_on_all_workers_learns_their_number(few, named):
    compressor, fixed = tg.compressor(few), tg.compressor(named)
    for rank in range(3):
        code = compressor.encode(X, KEY.fold(rank=rank), Context(workers=3))
        assert tg.pack(code) == tg.pack(fixed.encode(X, KEY.fold(rank=rank)))
    with pytest.raises(tg.SpecError, match=r"write for example workers=4"):
        compressor.encode(X, KEY)
    for topology in ("server(rank=1)", "two_phase", "allgather", "hierarchical(node=1)"):
        runs = [
            tg.simulate("quadratic", f"diana({spec}, shift_rate=0.2)", workers=3, steps=4, lr=0.1, topology=topology)
            for spec in (few, named)
        ]
        assert torch.equal(runs[0].parameters["x"], runs[1].parameters["x"])
        assert runs[0].ledger.up == runs[1].ledger.up


def test_nodes_count_as_the_workers_of_a_hierarchy():
    runs = [
        tg.simulate("quadratic", f"sgd({spec})", workers=4, steps=4, lr=0.1, topology="hierarchical(node=2)")
        for spec in ("permk", "permk(workers=2)")
    ]
    assert torch.equal(runs[0].parameters["x"], runs[1].parameters["x"])


def test_an_oracle_method_tells_its_compressors_of_all_workers():
    methods = [f"marina({spec}, probability=0.2)" for spec in ("permk", "permk(workers=3)")]
    runs = [tg.simulate("quadratic", method, workers=3, steps=6, lr=0.1) for method in methods]
    assert torch.equal(runs[0].parameters["x"], runs[1].parameters["x"])


def test_worker_and_server_take_the_same_rate_of_a_matrix():
    """omega of a low-rank ladder depends on the shape: 3 for 4 × 9, 5 for 36 entries without one. The server's shift
    is the mean of the workers' only where both take the same.
    """
    piece = Piece("w", (Part("w", 0, 36),), (4, 9))
    exchange = exchange_of("diana(mlmc(low_rank))", "server", None, LocalTransport(2), tg.Key(1))
    for index in range(3):
        exchange.begin(index, 0.1)
        own = [[tg.Key(index).fold(worker=rank).normal(36)] for rank in range(2)]
        exchange.run([piece], own)
        exchange.commit()
    shifts = [member.worker_states.of(piece, torch.float64)["shift"] for member in exchange.members]
    served = exchange.members[0].server_states.of(piece, torch.float64)["shift"]
    torch.testing.assert_close(served, (shifts[0] + shifts[1]) / 2, rtol=1e-12, atol=1e-12)


class _Halves(tg.Compressor):
    """A compressor that says all of its contract by itself, as third parties wrote it before there were bases."""

    unbiased, random = False, False

    def omega(self, d):
        return float("inf")

    def alpha(self, d):
        return 0.75

    def _encode(self, v, key):
        return tg.compressor("identity")._encode(v / 2, key)

    def _variance(self, v):
        return 0.25 * float(v.double().square().sum())


def test_a_compressor_on_the_contract_alone_still_works():
    halves = dataclasses.dataclass(frozen=True)(_Halves)()
    assert torch.equal(halves.encode(X).decode(), X / 2)
    assert halves.eta(3) == 0.5
    assert halves.spread(3) == 0.0
    assert not halves.checks(X)


class _OfRank(_Halves):
    """One that is no dataclass, and looks at the rank, as a part of it does."""

    def __init__(self):
        self.share = tg.compressor("permk")

    @property
    def looks_at(self):
        return frozenset({"rank"})

    @functools.cached_property
    def factor(self):
        return 1 + (self.context.rank or 0)

    def _encode(self, v, key):
        return tg.compressor("identity")._encode(v * self.factor, key)


def test_what_is_no_dataclass_is_bound_to_its_context_with_its_parts():
    plain = _OfRank()
    assert plain.asks == {"rank", "workers"}
    assert plain.factor == 1
    bound = plain.within(tg.Context(rank=2, workers=4))
    assert (bound.context.rank, bound.share.context.rank, plain.share.context.rank) == (2, 2, None)
    assert torch.equal(bound.encode(X).decode(), 3 * X)
    assert torch.equal(plain.encode(X, None, tg.Context(rank=1)).decode(), 2 * X)
    assert torch.equal(plain.encode(X).decode(), X)


@dataclasses.dataclass(frozen=True)
class _Sure(tg.Unbiased):
    def omega(self, d):
        return 0.25

    def _encode(self, v, key):
        return tg.compressor("identity")._encode(v, key)

    def _variance(self, v):
        return 0.0


@dataclasses.dataclass(frozen=True)
class _Half(tg.Contractive):
    random = True

    def alpha(self, d):
        return 0.75

    _encode, _variance = _Sure._encode, _Halves._variance


def test_what_follows_from_omega_and_from_alpha():
    sure, half = _Sure(), _Half()
    assert (sure.unbiased, sure.random, sure.alpha(9), sure.eta(9), sure.spread(9)) == (True, True, 0.75, 0.0, 0.25)
    assert (half.unbiased, half.omega(9), half.eta(9), half.spread(9)) == (False, float("inf"), 0.5, 0.25)
    with pytest.raises(NotImplementedError, match="does not say what its mean is"):
        half._mean(X)
    with pytest.raises(TypeError, match="alpha"):
        type("Open", (tg.Contractive,), {"random": False, "_encode": _Sure._encode, "_variance": _Sure._variance})()


def test_a_context_is_a_context_and_its_last_estimate_may_be_a_tensor():
    compressor, last = tg.compressor("mlmc(shared_order(s=1))"), torch.tensor([1.0, 3.0, 2.0])
    context = tg.Context(rank=0, workers=2, last=last)
    code = compressor.encode(X[:3].clone(), tg.Key(), context)
    assert tg.unpack(tg.pack(code)).within(context).decode().equal(code.decode())
    with pytest.raises(tg.InputError, match=r"encode\(x, key, 'rank 0'\): a context is wanted, for example tg.Context"):
        compressor.encode(X, tg.Key(), "rank 0")


@pytest.mark.parametrize(("xs", "keys"), [(None, None), (torch.tensor(1.0), [tg.Key()]), (torch.ones(1), [tg.Key()])])
def test_a_batch_has_rows_and_keys(xs, keys):
    with pytest.raises(tg.InputError, match="encode_each takes tensors, or the rows of one"):
        tg.compressor("topk(k=1)").encode_each(xs, keys)
