"""Fuzz unpack, decode and add_to with messages that are nearly right; only WireError may come out of what is none.

Every message is made from its own number, so that a failure can be repeated with `--first N --messages 1`. Checksums
are mended, so that the parsers behind them are reached, and the structure is known: a valid message is read by a reader
that notes which bytes are a number, a format or a table, and these are what is changed; or a code is changed (a symbol,
a level, a length, a scale) and packed again. Whatever is read is decoded and added, by the compiled loops, by the forms
that define them, and by the compiled loops once more: all must say the same. With NUMBA_BOUNDSCHECK=1 every index of a
compiled loop is checked, too. The time and the memory of a message are bounded by its length and the tensor's.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import random
import resource
import struct
import sys
import tempfile
import time
import tracemalloc
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

import telegrad as tg
from telegrad.kernels import compilation
from telegrad.kernels.coding.rans import Encoder
from telegrad.spec import registered
from telegrad.wire import message
from telegrad.wire.bits import Reader, pack_fixed, pack_varied, pack_varint
from telegrad.wire.entropy_coded import pack_pieces
from telegrad.wire.parcel import Parcel, pack_parcel, unpack_parcel

SPECS = [cls.example for cls in registered("compressor").values()]
SPECS += [f"mlmc({cls.example})" for cls in registered("ladder").values()]
SPECS += ["topk(k=0.2, values=log)", "topk(k=0.4, values=sign)", "qsgd(levels=9, bucket=16)", "eden(bits=1.5)"]
SPECS += ["eden(bits=2, coder=entropy)", "subsample(ecdq(bits=2), fraction=0.5)", "rtn(level=8)", "identity"]
SPECS += ["natural", "randk(k=0.3)", "importance(k=0.4)"]
SHAPES = ((3, 4), (40,), (33, 32), (3000,))
DTYPES = (torch.float32, torch.bfloat16, torch.float64, torch.float16)
ODD = (0, 1, 2, 3, 31, 32, 0x3F, 0x40, 0x41, 0x7E, 0x7F, 0x80, 0x81, 0x82, 0x83, 0xFE, 0xFF)
LARGE = (255, 256, 257, 4095, 4096, 65535, 65536, 1 << 20, (1 << 31) - 1, 1 << 31, 1 << 36, 1 << 40, 1 << 62)
MIDDLE = tuple(number for number in LARGE if number <= 1 << 20)
FLOATS = (0.0, -0.0, math.nan, math.inf, -math.inf, 1e-45, 5e-324, -1.0, 3.4e38, 1e300, 2.0**-16, 1024.0)
ENTRIES = 1 << 20
"""Tensors with more entries are read and not decoded, and refused where the number is not known: for speed."""
BASE_MEGABYTES = 256.0
"""What tables take whatever the message: cells of a quantiser, a cosine basis."""
BYTES_OF_MEMORY = 8192
"""For each byte of a message."""


class Field:
    """Bytes start … stop − 1 of a body: a `byte`, a `varint`, or `bytes`."""

    def __init__(self, kind: str, start: int, stop: int) -> None:
        self.kind, self.start, self.stop = kind, start, stop


class Noting(Reader):
    """A reader that notes what it was asked for."""

    def __init__(self, data: Any, apart: Any = None) -> None:
        super().__init__(data, apart)
        self.noted: list[Field] = []
        last.append(self)

    def byte(self) -> int:
        value = super().byte()
        self.noted.append(Field("byte", self.at - 1, self.at))
        return value

    def varint(self) -> int:
        start, before = self.at, len(self.noted)
        value = super().varint()
        del self.noted[before:]
        self.noted.append(Field("varint", start, self.at))
        return value

    def take(self, n: int) -> memoryview:
        data = super().take(n)
        if n:
            self.noted.append(Field("bytes", self.at - n, self.at))
        return data


last: list[Noting] = []


@dataclasses.dataclass(frozen=True)
class Sample:
    """A valid message: its body without checksum, its fields, its code and its number of entries."""

    body: bytes
    fields: list[Field]
    code: tg.Code
    numel: int


def corpus() -> list[Sample]:
    """A message of every compressor, ladder and kind of coding, in several shapes and dtypes."""
    found = []
    for number, spec in enumerate(SPECS):
        for shape in SHAPES:
            # Long ones in one dtype: their streams are coded otherwise, and they take most of the time.
            for dtype in DTYPES if math.prod(shape) < 3000 else DTYPES[:1]:
                generator = torch.Generator().manual_seed(number)
                x = (torch.randn(shape, generator=generator, dtype=torch.float64) ** 3).to(dtype)
                data = tg.pack(tg.compressor(spec).encode(x, tg.Key(number)))
                reader, message.Reader = message.Reader, Noting  # type: ignore[misc]
                try:
                    last.clear()
                    code = tg.unpack(data)
                finally:
                    message.Reader = reader  # type: ignore[misc]
                found.append(Sample(data[:-4], last[0].noted, code, x.numel()))
    return found


def made(samples: list[Sample], rng: random.Random) -> tuple[bytes, int]:
    """A body, and the number of entries that its receiver might expect."""
    sample, kind = rng.choice(samples), rng.random()
    if kind < 0.35:
        return with_changed_fields(sample, rng), sample.numel
    if kind < 0.65:
        changed = with_changed_code(sample.code, rng)
        if changed is not None:
            return changed, sample.numel
    if kind < 0.72:
        return another_encoders(rng)
    if kind < 0.77:
        other = rng.choice(samples)
        one, two = rng.choice(sample.fields), rng.choice(other.fields)
        return sample.body[: one.start] + other.body[two.start :], sample.numel
    if kind < 0.8:
        numel = rng.randrange(1, 128)
        return header(numel, rng) + rng.randbytes(rng.randrange(80)), numel
    return with_changed_bytes(sample.body, rng), sample.numel


def header(numel: int, rng: random.Random) -> bytes:
    """What stands before the only term of a message for a vector."""
    return bytes([message.VERSION << 4 | rng.randrange(4), 1]) + pack_varint(numel) + bytes([0, 1])


def another_encoders(rng: random.Random) -> tuple[bytes, int]:
    """A message whose integers are entropy coded in order, with tables and groups that our encoder never makes."""
    stream, n = entropy_coded(rng)
    scales = np.frombuffer(rng.randbytes(8 * 16), "<u1").tobytes()
    kind = rng.randrange(5)
    if kind == 0:
        size = rng.choice((1, 16, 256, 4096))
        return header(n, rng) + bytes([0x04]) + pack_varint(size) + rng.randbytes(8 * size) + stream, n
    if kind == 1:
        return header(n, rng) + bytes([0x05]) + pack_varint(n) + scales[: rng.choice((4, 8))] + stream, n
    if kind == 2:
        return header(n, rng) + bytes([0x02]) + scales[:4] + rng.randbytes((n + 7) // 8) + stream, n
    if kind == 3:  # gaps between places
        d = rng.choice((n, 2 * n, 100 * n, 4096 * n))
        return header(d, rng) + bytes([0x11]) + pack_varint(n) + stream + bytes([1]) + rng.randbytes(2 * n), d
    # marks
    count = rng.randrange(n + 1)
    return header(n, rng) + bytes([0x11]) + pack_varint(count) + b"\x81" + stream + bytes([2]) + bytes(2 * count), n


def entropy_coded(rng: random.Random) -> tuple[bytes, int]:
    """A stream in order, with its format byte, and how many integers it is for."""
    bits = rng.randrange(1, 16)
    alphabet = min(1 << bits, rng.choice((1, 2, 3, 9, 81, 200, 255, 256, 257, 300, 1000, 4096)))
    cuts = sorted(rng.randrange((1 << bits) + 1) for _ in range(alphabet - 1))
    frequency = np.diff(np.array([0, *cuts, 1 << bits], dtype=np.int64))
    group = rng.choice((1, 1, 2, 2, 3, 4, 8))
    single = rng.choice((alphabet, math.ceil(alphabet ** (1 / group)), 2, 3, 16, 256, 4096))
    steps = rng.randrange(1, 200)
    symbols = np.array(rng.choices(np.flatnonzero(frequency).tolist(), k=steps), dtype=np.int64)
    lengths = np.frexp(frequency.astype(np.float64))[1].astype(np.int64)
    table = pack_fixed(lengths, 5) + pack_varied(frequency, np.maximum(lengths - 1, 0))
    head = bytes([128, bits, group]) + pack_varint(single) + pack_varint(alphabet) + table
    pieces = by_reference(lambda: Encoder(frequency, bits).pieces(lambda start, stop: symbols[start:stop], steps))
    return pack_pieces(pieces, head), steps * group - rng.randrange(group)


def with_changed_fields(sample: Sample, rng: random.Random) -> bytes:
    body = sample.body
    # From the last on: what changes lengths moves only what follows.
    fields = sorted(
        rng.sample(sample.fields, min(len(sample.fields), rng.choice((1, 1, 1, 2, 3)))), key=lambda f: -f.start
    )
    for field in fields:
        old = body[field.start : field.stop]
        body = body[: field.start] + _changed(field.kind, old, sample.numel, rng) + body[field.stop :]
    return body


def _changed(kind: str, old: bytes, numel: int, rng: random.Random) -> bytes:
    if kind == "byte":
        return bytes([rng.choice((*ODD, rng.randrange(256), (old[0] + 1) % 256, (old[0] - 1) % 256))])
    if kind == "varint":
        value = Reader(old).varint()
        near = (value + 1, max(0, value - 1), 2 * value, value // 2, numel, numel + 1, rng.randrange(2 * numel))
        return pack_varint(min(rng.choice((*near, *near, *LARGE)), 2**63 - 1))
    new = bytearray(old)
    change = rng.randrange(5)
    if change == 0 and len(new) >= 4:
        form = rng.choice(("<f", "<d") if len(new) >= 8 else ("<f",))
        place = rng.randrange(len(new) // struct.calcsize(form)) * struct.calcsize(form)
        with np.errstate(over="ignore"):
            value = rng.choice(FLOATS)
            struct.pack_into(form, new, place, float(np.float32(value)) if form == "<f" else value)
    elif change == 1:
        del new[rng.randrange(len(new)) :]
    elif change == 2:
        new += rng.randbytes(rng.choice((1, 2, 4, 8)))
    else:
        for _ in range(rng.choice((1, 1, 2, 8))):
            new[rng.randrange(len(new))] = rng.choice((*ODD, rng.randrange(256)))
    return bytes(new)


def with_changed_code(code: tg.Code, rng: random.Random) -> bytes | None:
    """The body of the code with one or two of its parts changed; None where that cannot be packed."""
    for _ in range(rng.choice((1, 1, 2))):
        path = rng.choice(list(_leaves(code)))
        code = _replaced(code, path, rng)
    try:
        return bytes(by_reference(lambda: tg.pack(code))[:-4])
    except Exception:  # an encoder may do anything with nonsense; compiled, it may even write where it should not
        return None


def _leaves(part: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(part, tuple):
        for number, one in enumerate(part):
            yield from _leaves(one, (*path, number))
    elif dataclasses.is_dataclass(part):
        for field in dataclasses.fields(part):
            if field.name not in ("received", "order"):
                yield from _leaves(getattr(part, field.name), (*path, field.name))
    elif isinstance(part, (int, float, torch.Tensor, np.ndarray, torch.dtype)):
        yield path


def _replaced(part: Any, path: tuple[Any, ...], rng: random.Random) -> Any:
    if path:
        if isinstance(part, tuple):
            return tuple(_replaced(one, path[1:], rng) if i == path[0] else one for i, one in enumerate(part))
        return dataclasses.replace(part, **{path[0]: _replaced(getattr(part, path[0]), path[1:], rng)})
    if isinstance(part, bool):
        return not part
    if isinstance(part, int):
        # Small ones are numbers of bits, too: a million of them for each entry would be the packing's own long work.
        far = rng.sample(MIDDLE, 3) if part > 63 else (62, 63, 64, 255)
        return max(0, rng.choice((part + 1, part - 1, 2 * part, 0, 1, *far)))
    if isinstance(part, float):
        return rng.choice((*FLOATS, -part, part * 2))
    if isinstance(part, torch.dtype):
        return rng.choice(DTYPES)
    array = part.clone().numpy() if isinstance(part, torch.Tensor) and part.dtype != torch.bfloat16 else part
    if not isinstance(array, np.ndarray) or not array.size:
        return part
    array = array.copy()
    if rng.random() < 0.25:
        array = array[: rng.randrange(len(array))] if rng.random() < 0.5 else np.concatenate([array, array[:3]])
    elif array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array.reshape(-1)[rng.randrange(array.size)] = rng.choice(FLOATS)
    else:
        wide = array if array.dtype.kind == "b" or rng.random() < 0.5 else array.astype(np.int64)
        most = np.iinfo(wide.dtype).max if wide.dtype.kind != "b" else 1
        value = min(rng.choice((0, 1, 2, int(array.max()) + 1, *MIDDLE)), most)
        array = wide.copy()
        array.reshape(-1)[rng.randrange(array.size)] = value
    return torch.from_numpy(array) if isinstance(part, torch.Tensor) else array


def with_changed_bytes(body: bytes, rng: random.Random, head: int = 24, in_head: float = 0.6) -> bytes:
    """A few bytes changed, added or cut off, with probability `in_head` among the first `head`."""
    new = bytearray(body)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not new:
            break
        # Most of what a parser decides on lies in the first bytes.
        place = rng.randrange(min(len(new), head) if rng.random() < in_head else len(new))
        change = rng.randrange(6)
        if change == 0:
            new[place] = rng.choice(ODD)
        elif change == 1:
            new[place] ^= 1 << rng.randrange(8)
        elif change == 2:
            del new[place : place + rng.choice((1, 1, 2, 4, 8))]
        elif change == 3:
            new[place:place] = bytes(rng.choice(ODD) for _ in range(rng.choice((1, 1, 2, 4, 8))))
        elif change == 4:
            new[place] = rng.randrange(256)
        else:
            del new[rng.randrange(1, len(new) + 1) :]
    return bytes(new)


def sealed(body: bytes) -> bytes:
    """A body with the checksum that belongs to it."""
    return body + zlib.crc32(body).to_bytes(4, "little")


def read(data: bytes, numel: int | None) -> tuple[Any, ...]:
    """What comes of a message: refused, or read with all its numbers as bytes."""
    try:
        code = tg.unpack(data, numel)
        if code.numel > ENTRIES:
            return ("read", code.shape)
        decoded = code.decode()
        total = torch.ones(code.shape, dtype=torch.float32 if code.dtype != torch.float64 else torch.float64)
        code.add_to(total, -0.5)
    except tg.WireError:
        return ("refused",)
    assert decoded.shape == code.shape, "the shape of what is decoded"
    assert decoded.dtype == code.dtype, "the dtype of what is decoded"
    assert 8 * len(data) == code.nbits, "the bits of what is read"
    again = tg.unpack(by_reference(lambda: tg.pack(code)))
    assert _bytes(again.decode()) == _bytes(decoded), "what is packed again"
    return ("read", code.shape, _bytes(decoded), _bytes(total))


def _bytes(numbers: torch.Tensor) -> bytes:
    # Which NaN it is may differ.
    return (
        torch.where(numbers.isnan(), torch.full_like(numbers, math.nan), numbers)
        .view(-1)
        .view(torch.uint8)
        .numpy()
        .tobytes()
    )


def by_reference(call: Callable[[], Any]) -> Any:
    """`call` with the forms that define the loops in their place."""
    with compilation.reference_forms(), np.errstate(all="ignore"):
        return call()


def outcome(data: bytes, numel: int | None) -> str:
    first = read(data, numel)
    assert by_reference(lambda: read(data, numel)) == first, "the reference forms say something else"
    assert read(data, numel) == first, "a second look says something else"
    return str(first[0])


def file_outcome(body: bytes, path: Path) -> str:
    """The same for a file of messages."""
    path.write_bytes(sealed(body))
    try:
        codes = tg.load(path)
    except tg.WireError:
        return "file refused"
    for code in codes.values():
        if code.numel <= ENTRIES:
            try:
                code.decode()
            except tg.WireError:
                return "file read, a message refused"
    return "file read"


def file_made(samples: list[Sample], rng: random.Random) -> bytes:
    """The body of a file of some messages, with huge counts, cut, joined to another, or with its bytes changed."""

    def file() -> bytes:
        chosen = rng.sample(samples, rng.randrange(4))
        parts = [pack_varint(rng.choice(LARGE) if rng.random() < 0.2 else len(chosen))]
        for number, sample in enumerate(chosen):
            data = sealed(made(samples, rng)[0] if rng.random() < 0.3 else sample.body)
            length = rng.choice((*LARGE, 0, len(data) - 1, len(data) + 1)) if rng.random() < 0.1 else len(data)
            name = rng.choice((b"weight", b"\xff", b"", str(number).encode(), str(number).encode()))
            parts += [
                pack_varint(rng.choice(LARGE) if rng.random() < 0.05 else len(name)),
                name,
                pack_varint(length),
                data,
            ]
        return b"telegrad\x01" + b"".join(parts)

    body, kind = file(), rng.random()
    if kind < 0.3:
        return body
    if kind < 0.5:
        return body[: rng.randrange(len(body) + 1)]
    return body + sealed(file()) if kind < 0.6 else body[:9] + with_changed_bytes(body[9:], rng)


def parcel_made(samples: list[Sample], rng: random.Random) -> tuple[bytes, list[int]]:
    """A parcel of some messages, with its bytes changed or some of its codes, cut or joined to another; and the numbers
    of entries that its receiver expects.
    """
    chosen = rng.sample(samples, rng.choice((1, 2, 2, 3, 4)))
    codes = [sample.code for sample in chosen]
    if rng.random() < 0.5:
        codes = [rng.choice(codes)] * len(codes)  # what is alike is sent once
    numels, kind = [code.numel for code in codes], rng.random()
    if kind < 0.3:
        which = rng.randrange(len(codes))
        codes[which] = _replaced(codes[which], rng.choice(list(_leaves(codes[which]))), rng)
    try:
        data = bytes(by_reference(lambda: pack_parcel(Parcel(tuple(codes)))))
    except Exception:
        return b"\x02\x01", numels
    if kind < 0.3:
        return data, numels
    body = data[: -4 if len(codes) > 1 else None]
    if kind < 0.4:
        body = body[: rng.randrange(len(body))] + (body if rng.random() < 0.3 else b"")
    elif kind < 0.95:
        body = with_changed_bytes(body, rng)
    return (sealed(body) if len(codes) > 1 else body), numels


def parcel_outcome(data: bytes, numels: list[int] | None) -> str:
    """The same for a parcel."""

    def found() -> tuple[Any, ...]:
        try:
            parcel = unpack_parcel(data, numels)
            if any(code.numel > ENTRIES for code in parcel.codes):
                return ("parcel read",)
            return ("parcel read", parcel.failure, *(_bytes(code.decode()) for code in parcel.codes))
        except tg.WireError:
            return ("parcel refused",)

    first = found()
    assert by_reference(found) == first, "the reference forms say something else of a parcel"
    return str(first[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first message")
    parser.add_argument("--seconds", type=float, default=10.0, help="longest time one message may take")
    arguments = parser.parse_args()
    message._MAX_NUMEL = ENTRIES
    # The encoders' loops are not what is tried, so they need not be compiled.
    samples, found, failures = by_reference(corpus), Counter[str](), 0
    slowest, largest, began_at = (0.0, -1), (0.0, -1), time.process_time()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        for number in range(arguments.first, arguments.first + arguments.messages):
            rng, began = random.Random(number), time.process_time()
            measured = number % 50 == 0  # tracing doubles the time
            try:
                chance = rng.random()
                if chance < 0.05:
                    body = file_made(samples, rng)
                    found[file_outcome(body, Path(folder) / "file")] += 1
                elif chance < 0.1:
                    body, numels = parcel_made(samples, rng)
                    found[parcel_outcome(body, numels if number % 2 else None)] += 1
                else:
                    body, numel = made(samples, rng)
                    if measured:
                        tracemalloc.start()
                    found[outcome(sealed(body), numel if number % 2 else None)] += 1
            except Exception as error:
                found[type(error).__name__] += 1
                failures += 1
                if failures <= 20:
                    print(f"message {number}: {type(error).__name__}: {error}", flush=True)
            seconds = time.process_time() - began
            slowest = max(slowest, (seconds, number))
            if measured and tracemalloc.is_tracing():
                megabytes = tracemalloc.get_traced_memory()[1] / 2**20
                tracemalloc.stop()
                largest = max(largest, (megabytes, number))
                if megabytes > BASE_MEGABYTES + BYTES_OF_MEMORY * len(body) / 2**20:
                    failures += 1
                    print(f"message {number}: {len(body)} bytes took {megabytes:.0f} MB", flush=True)
            if seconds > arguments.seconds:
                failures += 1
                print(f"message {number}: {seconds:.2f} s", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in found.most_common()))
    print(f"slowest: {slowest[0]:.3f} s (message {slowest[1]}); largest: {largest[0]:.1f} MB (message {largest[1]})")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) / 2**10
    checked = "with" if os.environ.get("NUMBA_BOUNDSCHECK") == "1" else "without"
    spent = time.process_time() - began_at
    print(f"{spent:.0f} s of processor time, {checked} bounds checks; the process grew by {grown:.0f} MB")
    if failures or sum(found.values()) != arguments.messages:
        sys.exit(f"{failures} failures")


if __name__ == "__main__":
    main()
