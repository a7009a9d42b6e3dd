"""What every compressor promises of its messages: bits are bytes, bytes are the code, the key is all the randomness."""

import dataclasses
import inspect
import math

import pytest
import torch

import telegrad as tg
from cases import COMPRESSORS, EVERY_LAW, RANDOM, by_dtype, by_spec, extreme_tensors, numbers, ordinary_tensors, ours
from telegrad.compressors import Compressor
from telegrad.kernels.coding.rans import Encoder
from telegrad.methods.base import require_finite_codes
from telegrad.wire.code import FIELDS
from telegrad.wire.integers import Integers
from telegrad.wire.parcel import Parcel
from telegrad.wire.values.rotated import Inner

KEY = tg.Key(seed=5).fold(step=2, rank=1)


def in_another_basis(compressor):
    return any(isinstance(term.values, Inner) for term in compressor.encode(torch.ones(4), KEY).terms)


def assert_faithful(compressor, x):
    """bits are bytes, and bytes are the code."""
    before, layout = x.clone(), x.stride()
    code = compressor.encode(x, KEY)
    data = tg.pack(code)
    assert 8 * len(data) == code.nbits == sum(code.fields.values())
    assert set(code.fields) == set(FIELDS)
    assert min(code.fields.values()) >= 0

    received, decoded = tg.unpack(data), compressor.decode(code)
    again = compressor.decode(received)
    assert torch.equal(again, decoded)
    assert again.dtype == decoded.dtype == x.dtype
    assert again.shape == decoded.shape == x.shape
    assert torch.equal(numbers(received), numbers(code))
    assert tg.pack(received) == data
    assert received.fields == code.fields
    assert received.paper_bits == code.paper_bits
    assert received.level == code.level

    assert tg.pack(compressor.encode(x, KEY)) == data
    assert not math.isnan(compressor.variance(x))
    assert torch.equal(x, before)
    assert x.stride() == layout
    return code


@pytest.mark.parametrize("dtype", **by_dtype())
@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_bits_are_bytes_and_bytes_are_the_code(compressor, dtype):
    state = torch.get_rng_state()
    for x in ordinary_tensors(dtype).values():
        code = assert_faithful(compressor, x)
        if not bool(x.any()):
            # A25.1: C(0) = 0 for header bits only (the level's byte is always there).
            assert not bool(numbers(code).any())
            assert code.fields["index"] == code.fields["value"] == code.fields["sign"] == code.fields["scale"] == 0
            assert code.fields["level"] == 8
            assert compressor.variance(x) == 0.0
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_what_came_in_is_bounded_and_booked_without_being_packed_again(compressor, monkeypatch):
    received = [tg.unpack(tg.pack(compressor.encode(x, KEY))) for x in ordinary_tensors(torch.float32).values()]
    terms = [term for code in received for term in code.terms]
    largest = [float(term.values.numbers().abs().max()) for term in terms]

    def refused(*_, **__):
        raise AssertionError("packed again")

    monkeypatch.setattr(Integers, "__init__", refused)
    monkeypatch.setattr(Encoder, "pieces", refused)
    monkeypatch.setattr("telegrad.wire.values.grid.signs_apart", refused)
    require_finite_codes(received)
    for term, most in zip(terms, largest, strict=True):
        assert most <= term.values.largest() * (1 + 2**-20)
    for code in received:
        assert code.nbits == sum(code.fields.values()) >= code.paper_bits // 64
    parcel = Parcel(tuple(received), received=tuple(code.nbits // 8 for code in received))
    assert sum(sum(fields.values()) for fields in parcel.fields) == 8 * sum(parcel.lengths)


@pytest.mark.parametrize("dtype", **by_dtype())
@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_the_ends_of_the_range_are_sent_faithfully_or_refused_as_overflow(compressor, dtype):
    for x in extreme_tensors(dtype).values():
        try:
            assert_faithful(compressor, x)
        except tg.NonFiniteError as refused:
            # Only what is larger than the input can overflow, so truncations and selections never do (but in a basis
            # where entries are sums of many).
            assert compressor.random or in_another_basis(compressor)
            assert float(x.abs().max()) > torch.finfo(dtype).max ** 0.9
            assert "overflows" in str(refused)  # noqa: PT017
        assert compressor.variance(x) >= -1e-12 * float(x.double().square().sum())


@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_the_key_decides_and_nothing_else(compressor):
    x = ordinary_tensors(torch.float32)["normal"]
    messages = []
    for seed in range(40):
        torch.manual_seed(seed % 3)
        messages.append(tg.pack(compressor.encode(x, tg.Key(seed=seed))))
    assert (len(set(messages)) > 1) == compressor.random


@pytest.mark.parametrize("compressor", **by_spec(RANDOM))
def test_random_compressors_ask_for_a_key(compressor):
    with pytest.raises(tg.InputError, match="pass a key, for example"):
        compressor.encode(torch.ones(4))


@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_memory_layout_does_not_change_the_message(compressor):
    x = ordinary_tensors(torch.float32)["2-d"]
    transposed = x.t()
    assert not transposed.is_contiguous()
    assert tg.pack(compressor.encode(transposed, KEY)) == tg.pack(compressor.encode(transposed.contiguous(), KEY))
    assert tg.pack(compressor.encode(x.clone().requires_grad_(), KEY)) == tg.pack(compressor.encode(x, KEY))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_non_finite_input_is_refused_by_encode_and_variance(compressor, bad):
    x = torch.tensor([[1.0, bad], [0.0, 2.0]])
    for call in (lambda: compressor.encode(x, KEY), lambda: compressor.variance(x)):
        with pytest.raises(tg.NonFiniteError, match=r"\(2, 2\) holds NaN or infinity"):
            call()


@pytest.mark.parametrize("x", [torch.arange(3), torch.zeros(2, dtype=torch.complex64), [1.0, 2.0]], ids=str)
@pytest.mark.parametrize("cls", ours("compressor"), ids=lambda cls: cls.spec_name)
def test_what_is_no_float_tensor_is_refused(cls, x):
    with pytest.raises(tg.InputError, match="allowed are dense tensors of float32"):
        tg.compressor(cls.example).encode(x, KEY)


@pytest.mark.parametrize("cls", ours("compressor") + ours("ladder") + ours("method"), ids=lambda cls: cls.__name__)
def test_classes_are_final_frozen_and_cited(cls):
    assert not inspect.isabstract(cls)
    assert not [sub for sub in cls.__subclasses__() if sub.__module__.startswith("telegrad.")]
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert cls.source
    assert any(
        (entry.kind, entry.name) == (cls.kind, cls.spec_name) and entry.example == cls.example
        for entry in tg.catalogue()
    )


def test_the_variants_hold_every_compressor_ladder_law_and_coding():
    """The derivation of the variants itself: it must not quietly lose one."""
    specs = list(map(str, COMPRESSORS))
    assert len(specs) == len(set(specs))
    assert {type(compressor) for compressor in COMPRESSORS} == set(ours("compressor"))
    assert all(isinstance(compressor, Compressor) for compressor in COMPRESSORS)
    laws = list(map(str, EVERY_LAW))
    for law in ("", ", probabilities=fixed", ", probabilities=cost"):
        for cls in ours("ladder"):
            assert any(spec.startswith(f"mlmc({cls.spec_name}") and spec.endswith(f"{law})") for spec in laws)
        for coding in ("bf16", "log", "sign"):
            assert f"mlmc(stopk(s=0.3, values={coding}){law})" in laws


@pytest.mark.parametrize("compressor", **by_spec([c for c in COMPRESSORS if c.checks(torch.ones(5000))]))
def test_long_vectors_that_are_not_looked_through_first_are_refused_or_cost_the_header_alike(compressor):
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        code = compressor.encode(torch.zeros(5000, dtype=dtype), KEY)
        assert code.nbits == tg.compressor("identity").encode(torch.zeros(5000, dtype=dtype)).nbits
        for bad in (math.nan, -math.nan, math.inf, -math.inf):
            x = torch.ones(5000, dtype=dtype)
            x[4321] = bad
            with pytest.raises(tg.NonFiniteError, match="NaN or infinity"):
                compressor.encode(x, KEY)


@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_a_batch_of_workers_gradients_is_encoded_as_one_after_the_other(compressor):
    batch = tg.Key(7).normal(3 * 60).view(3, 60).float()
    keys = [KEY.without("rank").fold(rank=rank) for rank in range(3)]
    together = compressor.encode_each(batch, keys)
    assert [tg.pack(code) for code in together] == [
        tg.pack(compressor.encode(row, key)) for row, key in zip(batch, keys, strict=True)
    ]
    with pytest.raises(tg.InputError, match="3 tensors and 2 keys"):
        compressor.encode_each(batch, keys[:2])
