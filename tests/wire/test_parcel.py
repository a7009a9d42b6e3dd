"""Parcels: several messages, or a failure, as bytes."""

import zlib

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import telegrad as tg
from cases import COMPRESSORS, by_spec
from telegrad import Key, WireError
from telegrad.wire.bits import Shared, pack_varint
from telegrad.wire.message import message_parts, shared_bytes
from telegrad.wire.parcel import Parcel, pack_parcel, unpack_parcel

CODES = tuple(
    tg.compressor("randk(k=0.2)").encode(torch.randn(n, generator=torch.Generator().manual_seed(n)), Key(n))
    for n in (0, 1, 40, 3000)
)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_messages_come_back_and_weigh_what_is_said(count):
    parcel = Parcel(CODES[:count])
    data = pack_parcel(parcel)
    assert len(data) == parcel.nbytes
    back = unpack_parcel(data)
    assert not back.failure
    assert [tg.pack(code) for code in back.codes] == [tg.pack(code) for code in parcel.codes]


def test_a_failure_comes_back_cut_to_500_bytes():
    parcel = Parcel(failure="layer.weight holds NaN – " * 40)
    data = pack_parcel(parcel)
    assert len(data) == parcel.nbytes == 501
    assert unpack_parcel(data).failure.startswith("layer.weight holds NaN – layer")


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_or_harmless(data):
    try:
        parcel = unpack_parcel(data)
    except WireError:
        return
    assert parcel.failure or pack_parcel(parcel) == data


@pytest.mark.parametrize("cut", [0, 1, 2, 5, -1])
def test_a_truncated_parcel_is_refused(cut):
    with pytest.raises(WireError):
        unpack_parcel(pack_parcel(Parcel(CODES))[:cut])


SMALL = [torch.randn(n, generator=torch.Generator().manual_seed(n)) for n in (64, 64, 128, 300, 64, 1, 0, 5000)]


@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_messages_that_share_their_heads_come_back_in_no_more_bytes(compressor):
    """Each message as if it had come alone, to the byte; their accounts add up to the parcel, as sent and as read."""
    codes = [
        compressor.encode(x, Key(3).fold(step=2, rank=1, piece=f"layer{i}").fold(rank=1)) for i, x in enumerate(SMALL)
    ]
    parcel = Parcel(tuple(codes))
    data = pack_parcel(parcel)
    assert len(data) == parcel.nbytes == sum(parcel.lengths)
    back = unpack_parcel(data)
    assert [tg.pack(code) for code in back.codes] == [tg.pack(code) for code in codes]
    assert [code.fields for code in back.codes] == [code.fields for code in codes]
    assert back.nbytes == len(data)
    assert back.lengths == parcel.lengths
    assert back.fields == parcel.fields
    assert sum(sum(fields.values()) for fields in parcel.fields) == 8 * len(data)
    assert min(min(fields.values()) for fields in parcel.fields) >= 0
    assert len(data) <= 2 + sum(1 + code.nbits // 8 for code in codes)
    for number, code in enumerate(codes):
        assert b"".join(part for part in message_parts(code) if type(part) is Shared) == shared_bytes(code), number


@pytest.mark.parametrize(("spec", "each"), [("eden(bits=1)", 10), ("randk(k=0.1)", 7), ("topk(k=0.1)", 5)])
def test_a_model_of_many_small_tensors_pays_for_its_head_once(spec, each):
    """Beside what is theirs alone (values, places, scales) a message of 64 entries takes `each` bytes: what it shares,
    how long it is, its size and level, and what its seed or its list of places has of its own.
    """
    compressor, count = tg.compressor(spec), 200
    codes = [compressor.encode(SMALL[0], Key(0).fold(step=1, piece=f"weight {i}")) for i in range(count)]
    fields = codes[0].fields
    own = (fields["value"] + fields["scale"] + fields["sign"]) // 8 + (fields["index"] // 8 if "topk" in spec else 0)
    assert Parcel(tuple(codes)).nbytes <= count * (own + each) + 50


def test_parcels_of_whole_messages_can_still_be_read():
    """As they were made before messages shared anything."""
    messages = [tg.pack(code) for code in CODES]
    data = bytes([0, len(messages)]) + b"".join(pack_varint(len(one)) + one for one in messages)
    back = unpack_parcel(data)
    assert [tg.pack(code) for code in back.codes] == messages
    assert back.nbytes == len(data) == sum(back.lengths)


def test_every_flipped_bit_of_a_parcel_is_noticed():
    data = bytearray(pack_parcel(Parcel(CODES[:3])))
    for bit in range(8, 8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            unpack_parcel(data)
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"\x01\x01", "shares number 1 of 0"),
        (b"\x01\x00\x02\x10", "truncated message"),
        (b"\x05\x00", "5 messages in 1 bytes"),
        (b"\x00\x07", "1 bytes follow a parcel's last message"),
        (b"\x01\x00\x03\x10\x00\x00\x01\x00\x07", "1 bytes follow a parcel's last message"),
        (b"\x01\x00\x03\x10\x00\x00\x02\x00\x07", "1 bytes follow the end of the message"),
        (b"\x01\x00\x04\x10\x00\x00\x07\x01\x00", "1 bytes follow the end of the message"),
        (b"\x01\x00\x03\x20\x00\x00\x01\x00", "it says version 2"),
    ],
)
def test_what_no_parcel_holds_is_refused(body, said):
    data = b"\x02" + body
    with pytest.raises(WireError, match=said):
        unpack_parcel(data + zlib.crc32(data).to_bytes(4, "little"))


@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_torchs_default_device_changes_no_parcel(compressor):
    """ "meta" stands in for "cuda", which not every machine has."""

    def all_of_it():
        codes = [compressor.encode(SMALL[i], Key(3).fold(step=1, rank=0)) for i in (0, 3, 5)]
        parcel = Parcel(tuple(codes))
        data = pack_parcel(parcel)
        read = unpack_parcel(data, [SMALL[i].numel() for i in (0, 3, 5)])
        bits = [code.nbits for code in codes]
        return data, bits, parcel.nbytes, parcel.fields, read.lengths, [code.decode() for code in read.codes]

    wanted = all_of_it()
    torch.set_default_device("meta")
    try:
        found = all_of_it()
    finally:
        torch.set_default_device(None)
    assert found[:5] == wanted[:5]
    assert all(got.device.type == "cpu" for got in found[5])
    assert all(map(torch.equal, found[5], wanted[5]))
