"""Parcels: several messages, or a failure, as bytes."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given

import telegrad as tg
from telegrad import Key, WireError
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
