"""Messages: what the header says, how codes add up, and that any other bytes are refused with a WireError."""

import contextlib
import functools
import math
import resource
import struct
import zlib

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import telegrad as tg
from cases import COMPRESSORS, numbers
from telegrad.wire import message
from telegrad.wire.bits import pack_varint
from telegrad.wire.code import Code, Term
from telegrad.wire.positions import All, IndexSet, Nested, Subset
from telegrad.wire.values import Bucketed, Exponents, Floats, Grid, Table

X = torch.tensor([5.1, -2.7, 1.3, 0.65, -1.3, 0.0, 0.2, 9.0, -9.0, 0.01] * 3)


@functools.cache
def messages():
    """One message of every variant, and of what has more than one kind of field."""
    codes = [compressor.encode(X.reshape(5, 6), tg.Key(7)) for compressor in COMPRESSORS]
    long = torch.randn(3000, generator=torch.Generator().manual_seed(0))
    codes += [tg.compressor(spec).encode(long, tg.Key(1)) for spec in ("qsgd(levels=9)", "rtn(level=3)", "topk(k=0.4)")]
    codes += [Code((2, 0), torch.float16), Code((), torch.float64, (Term(All(1), Floats(torch.tensor([2.5]))),))]
    return [tg.pack(code) for code in codes]


def sealed(body):
    """A body with the checksum that belongs to it: damage that only the parser can see."""
    return bytes(body) + zlib.crc32(body).to_bytes(4, "little")


def is_refused_or_read(data):
    """WireError, or a code that decodes; nothing else may come out of any bytes."""
    try:
        code = tg.unpack(data)
        decoded = code.decode()
    except tg.WireError:
        return "refused"
    assert decoded.shape == code.shape
    assert 8 * len(data) == code.nbits
    again = tg.unpack(tg.pack(code))
    assert torch.equal(again.decode().nan_to_num(), decoded.nan_to_num())
    return "read"


@contextlib.contextmanager
def small_messages():
    """Fuzzed headers announce any size; those above a million entries are refused here, to keep the fuzzing quick."""
    before, message._MAX_NUMEL = message._MAX_NUMEL, 2**20
    try:
        yield
    finally:
        message._MAX_NUMEL = before


@settings(max_examples=300)
@given(st.binary(max_size=80))
def test_random_bytes_are_refused(data):
    with pytest.raises(tg.WireError):
        tg.unpack(data)


@settings(max_examples=200)
@given(st.binary(max_size=60))
def test_random_bytes_behind_a_good_header_are_refused_or_read(data):
    with small_messages():
        is_refused_or_read(sealed(bytes([message.VERSION << 4]) + data))
        is_refused_or_read(sealed(bytes([message.VERSION << 4, 1, 9, 0, 1]) + data))


def test_every_single_flipped_bit_is_noticed():
    for data in messages():
        places = range(8 * len(data)) if len(data) < 60 else range(0, 8 * len(data), len(data) // 7)
        for place in places:
            damaged = bytearray(data)
            damaged[place // 8] ^= 1 << place % 8
            with pytest.raises(tg.WireError):
                tg.unpack(damaged)


def test_every_truncation_and_extension_is_noticed():
    for data in messages():
        for n in {*range(min(len(data), 40)), *range(0, len(data), 97), len(data) - 1}:
            with pytest.raises(tg.WireError):
                tg.unpack(data[:n])
        for more in (b"\0", b"\xff", data):
            with pytest.raises(tg.WireError):
                tg.unpack(data + more)


def test_bytes_after_the_last_term_are_refused_although_the_checksum_fits():
    for data in messages():
        with pytest.raises(tg.WireError):
            tg.unpack(sealed(data[:-4] + b"\0"))


@settings(max_examples=1500)
@given(st.data())
def test_mutated_bodies_with_their_right_checksum_are_refused_or_read(data):
    """The parser itself: bytes replaced, inserted, dropped, doubled, at places that hypothesis chooses."""
    body = bytearray(data.draw(st.sampled_from(messages()))[:-4])
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(1, len(body) - 1 if len(body) < 60 else 40))
        change = data.draw(st.sampled_from(["set", "flip", "drop", "insert", "cut"]))
        if change == "set":
            body[place] = data.draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF, 64, 128, 129]))
        elif change == "flip":
            body[place] ^= 1 << data.draw(st.integers(0, 7))
        elif change == "drop":
            del body[place]
        elif change == "insert":
            body.insert(place, data.draw(st.integers(0, 255)))
        else:
            del body[place + 1 :]
        if len(body) < 2:
            break
    with small_messages():
        is_refused_or_read(sealed(body))


def test_another_version_is_named():
    data = bytearray(messages()[0])
    data[0] = 5 << 4 | data[0] & 15
    with pytest.raises(tg.WireError, match=r"not a telegrad message of version 1: it says version 5"):
        tg.unpack(data)


def body(shape, *terms, dtype=0, level=0):
    out = bytearray([message.VERSION << 4 | dtype])
    for number in (len(shape), *shape, level, len(terms)):
        out += pack_varint(number)
    return bytes(out) + b"".join(terms)


HUGE = 2**39
ABSURD = {
    "zeros": body((HUGE,)),
    "a dimension beyond any": body((2**62,)),
    "a product beyond any": body((2**30, 2**30)),
    "an empty tensor with a dimension beyond any": body((0, 2**62, 2**62)),
    "rank": body((1,) * 65),
    "floats": body((HUGE,), bytes([0x01, 0])),
    "a list of gaps of no width": body((HUGE,), bytes([0x14]) + pack_varint(HUGE) + bytes([64, 0, 64])),
    "a list of one gap": body((HUGE,), bytes([0x11]) + pack_varint(1) + bytes([64, 0]) + struct.pack("<f", 1.0)),
    "a bitmap of no width": body((HUGE,), bytes([0x14]) + pack_varint(0) + bytes([129, 64, 0, 64])),
    "symbols of no width": body((HUGE,), bytes([0x04]) + pack_varint(1) + struct.pack("<f", 1.0) + bytes([64])),
    "entropy-coded symbols that cost nothing": body(
        (HUGE,),
        bytes([0x04])
        + pack_varint(1)
        + struct.pack("<f", 1.0)
        # one symbol of frequency 2^1
        + bytes([128, 1, 1, 0b00010000, 0])
        + (1 << 16).to_bytes(4, "little") * 16
        + bytes([0]),
    ),
    "a subset": body((HUGE,), bytes([0x24]) + pack_varint(HUGE // 2) + bytes(8) + bytes([1, 0, 0, 0, 0, 64])),
    "a small subset of a huge vector": body(
        (HUGE,), bytes([0x21]) + pack_varint(1) + bytes(8) + bytes([0]) + struct.pack("<f", 1.0)
    ),
    "nothing of a subset": body((HUGE,), bytes([0x31]) + pack_varint(HUGE // 2) + bytes(8) + bytes([0, 64, 0])),
    "terms": bytes([message.VERSION << 4, 1, 4, 0]) + pack_varint(2**62),
    "a table": body((4,), bytes([0x04]) + pack_varint(2**61)),
    "words": body((4,), bytes([0x04, 1, 0, 0, 0, 0, 128, 1, 1, 0b00010000, 0]) + bytes(16) + pack_varint(2**61)),
}


@pytest.fixture
def little_memory():
    """Room for a few gigabytes more than are in use, so that what is absurd fails here as it would anywhere."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as pages:
        used = int(pages.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 4 * 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("data", ABSURD.values(), ids=ABSURD)
def test_absurd_announcements_are_refused_and_exhaust_nothing(little_memory, data):
    assert is_refused_or_read(sealed(data)) == "refused"


def test_a_huge_vector_of_few_entries_can_be_read_and_added_to_nothing():
    """Its header is honest; only decoding it densely needs the room."""
    code = tg.unpack(sealed(ABSURD["a list of one gap"]))
    assert code.numel == HUGE
    assert code.terms[0].positions.indices().tolist() == [0]


# codes


TERMS = [
    Term(All(6), Floats(torch.arange(6.0))),
    Term(All(6), Floats(torch.arange(6.0).double())),
    Term(All(6), Floats(torch.arange(6.0).bfloat16())),
    Term(IndexSet(6, torch.tensor([1, 4])), Grid(torch.tensor([3, -1]), 0.5)),
    Term(Subset(6, 3, 99), Exponents.of(torch.tensor([True, False, True]), torch.tensor([-149, 0, 7]))),
    Term(
        Nested(Subset(6, 4, 5), IndexSet(4, torch.tensor([0, 3]))),
        Exponents(
            torch.tensor([0b10 << 6]).byte(), torch.tensor([1, 0]), 3, torch.tensor([0b101000 << 2]).byte(), 3, 0.125
        ),
    ),
    Term(IndexSet(6, torch.tensor([0, 2, 5])), Table(torch.tensor([1, 0, 1]), torch.tensor([-0.5, 0.25]).double())),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_every_kind_of_term_comes_back_with_its_bits_booked(dtype):
    for terms in (*((term,) for term in TERMS), tuple(TERMS), ()):
        code = Code((2, 3), dtype, terms, level=300)
        data = tg.pack(code)
        again = tg.unpack(data)
        assert 8 * len(data) == code.nbits == again.nbits
        assert again.fields == code.fields
        assert (again.shape, again.dtype, again.level) == ((2, 3), dtype, 300)
        assert torch.equal(numbers(again), numbers(code))
        assert torch.equal(again.decode(), code.decode())
        assert tg.pack(again) == data


def test_adding_a_code_is_adding_what_it_decodes_to():
    code = Code((2, 3), torch.float32, tuple(TERMS))
    out = torch.ones(2, 3, dtype=torch.float64)
    code.add_to(out, -0.5)
    assert torch.allclose(out, 1 - 0.5 * sum(Code((2, 3), torch.float64, (t,)).decode() for t in TERMS), rtol=1e-14)
    with pytest.raises(ValueError, match=r"\(2, 3\) cannot be added to a tensor of shape \(5,\)"):
        code.add_to(torch.zeros(5))


def test_the_sum_of_terms_is_rounded_once():
    """In bfloat16, 1 + 2^-9 + 2^-9 is 1 when each sum is rounded, and 1.0078125 when the whole is."""
    one, small = (Term(All(1), Floats(torch.tensor([x]).bfloat16())) for x in (1.0, 2.0**-8))
    assert Code((1,), torch.bfloat16, (one, small, small)).decode().item() == 1.0078125


def test_the_header_costs_what_it_says():
    """One byte of version and dtype, the rank, the dimensions, the level, the number of terms, four of checksum."""
    assert len(tg.pack(Code((), torch.float32))) == 8
    assert len(tg.pack(Code((3, 200), torch.float32))) == 11
    assert Code((3, 200), torch.float32, level=128).fields["level"] == 16


def test_paper_bits_follow_the_papers_own_account():
    """The MLMC paper's: 64 bits a float and its index free; symbols as sent."""
    assert tg.compressor("topk(k=3)").encode(X).paper_bits == 3 * 64
    code = tg.compressor("mlmc(fixed_point)").encode(X, tg.Key(0))
    assert code.paper_bits == code.fields["index"] + code.fields["sign"] + code.fields["scale"] + code.fields["value"]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_bytes_like_object_is_read(kind):
    assert torch.equal(tg.unpack(kind(messages()[0])).decode(), tg.unpack(messages()[0]).decode())


@pytest.mark.parametrize(
    ("term", "said"),
    [
        (bytes([0x01, 4]), "unknown dtype 4"),
        (bytes([0x04, 1]) + bytes(4) + bytes([64 + 1, 0b01000000]), "entry 1 of a table of 1"),
        (bytes([0x04, 0, 64]), "entry 0 of a table of 0"),
        (bytes([0x0F]), "unknown kind of values 15"),
        (bytes([0xF1]), "unknown kind of positions 15"),
        # Cells have no scale: 10 is a kind of what RotatedCells holds, and of nothing else.
        (bytes([0x0D, 1, 0, 0, 0]), "unknown kind of values 13"),
        (bytes([0x07, *bytes(8), 0, 0x0A]), "unknown kind of values 10"),
        (bytes([0x07, *bytes(8), 1, *bytes(4), 0x00]), "unknown kind of cells 0"),
        (bytes([0x07, *bytes(8), 2]), "a rotation of format 2 is not ours"),
        (bytes([0x07, *bytes(8)]), "truncated"),
    ],
)
def test_values_that_refer_to_nothing_are_refused(term, said):
    with pytest.raises(tg.WireError, match=said):
        tg.unpack(sealed(body((2,), term)))


def test_entries_of_a_foreign_message_stay_in_the_range_of_float64():
    for top, below in ((1024, 0), (1000, 4000)):
        term = bytes([0x03, 0]) + struct.pack("<h", top) + bytes([0]) + bytes([64 + 12, below >> 4, below % 16 << 4])
        with pytest.raises(tg.WireError, match="outside the range of a float64"):
            tg.unpack(sealed(body((1,), term)))
    assert math.isfinite(2.0**1023)


@pytest.mark.parametrize("levels", [300, 20_000, 3_000_000])
def test_dense_symbols_of_every_width_come_back(levels):
    """Signed symbols of 8, 16 and 64 bits, as many as an entropy coder takes."""
    x = torch.randn(3000, generator=torch.Generator().manual_seed(1)) ** 3
    code = tg.compressor(f"qsgd(levels={levels})").encode(x, tg.Key(0))
    data = tg.pack(code)
    assert 8 * len(data) == code.nbits
    assert torch.equal(tg.unpack(data).decode(), code.decode())


@pytest.mark.parametrize("n", [5, 50_000])
@pytest.mark.parametrize("largest", [1, 127, 128, 2**40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_small_grid_points_are_read_as_bytes_and_stand_for_the_same_numbers(n, largest, dtype):
    """127 is the last that fits; a scale with all its digits, so that each number is rounded."""
    symbol, scale = torch.tensor([largest, -largest, 1, -1, -largest]).repeat(n // 5), 1 / 3
    code = Code((n,), torch.float64, (Term(All(n), Grid(symbol, scale)),))
    values = tg.unpack(tg.pack(code)).terms[0].values
    assert values.symbol.dtype == (torch.int8 if largest <= 127 else torch.int64)
    assert torch.equal(values.symbol.long(), symbol)
    assert values.largest() == values.scaled(-2.0).largest() / 2 == largest * scale
    assert "_parts" not in vars(values)  # the bound took no packing
    assert torch.equal(values.numbers(), symbol.double() * scale)
    assert torch.equal(values.numbers_as(dtype), (symbol.double() * scale).to(dtype))


@pytest.mark.parametrize("bucket", [1, 512, 30_000, 50_000, 200_001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_dense_numbers_are_added_in_pieces_as_they_would_be_at_once(bucket, dtype, threads):
    n, key = 200_001, tg.Key(bucket)
    values = Bucketed(torch.arange(n).remainder(255).sub(127).to(torch.int8), key.uniform(-(-n // bucket)) / 3, bucket)
    start = key.normal(n).to(dtype)
    expected = start.clone().add_(values.numbers_as(dtype), alpha=0.3)
    for count in (1, 2):
        threads(count)
        with torch.inference_mode():
            out = start.clone()
            values.add_to(out, 0.3)
        assert torch.equal(out, expected)
