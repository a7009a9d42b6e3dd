"""Fuzz unpack and decode: mutated, spliced and random messages; only WireError may come out of what is no message.

Every message is made from its own number, so that a failure can be repeated with `--first N --messages 1`. Besides the
kind of exception the time and the peak of memory that Python and numpy allocate are checked, and at the end the growth
of the whole process. Bodies carry the right
checksum, so that the parsers behind it are reached.
"""

from __future__ import annotations

import argparse
import math
import random
import resource
import time
import tracemalloc
import zlib
from collections import Counter

import torch

import telegrad as tg
from telegrad.spec import registered
from telegrad.wire import message

SPECS = [cls.example for cls in registered("compressor").values()]
SPECS += [f"mlmc({cls.example})" for cls in registered("ladder").values()]
SPECS += ["topk(k=0.2, values=log)", "topk(k=0.4, values=sign)", "qsgd(levels=9, bucket=16)", "eden(bits=1.5)"]
SPECS += ["eden(bits=2, coder=entropy)", "subsample(ecdq(bits=2), fraction=0.5)", "rtn(level=8)", "identity"]
SIZES = ((3, 4), (40,), (7, 9), (33, 32))
DTYPES = (torch.float32, torch.bfloat16, torch.float64)
ODD = (0, 1, 2, 3, 0x3F, 0x40, 0x7F, 0x80, 0x81, 0x82, 0xFE, 0xFF)


def corpus() -> list[bytes]:
    """The bodies, without checksum, of a message of every compressor, ladder and kind of coding."""
    bodies = []
    for number, spec in enumerate(SPECS):
        for shape in SIZES:
            for dtype in DTYPES:
                generator = torch.Generator().manual_seed(number)
                x = (torch.randn(shape, generator=generator, dtype=torch.float64) ** 3).to(dtype)
                bodies.append(tg.pack(tg.compressor(spec).encode(x, tg.Key(number)))[:-4])
    return bodies


def mutated(bodies: list[bytes], rng: random.Random) -> bytes:
    """A body with a few changes, or two bodies spliced, or random bytes behind a good header."""
    kind = rng.random()
    if kind < 0.1:
        header = bytes([message.VERSION << 4 | rng.randrange(4), 1, rng.randrange(1, 128), 0, 1])
        return header + rng.randbytes(rng.randrange(80))
    body = bytearray(rng.choice(bodies))
    if kind < 0.2:
        other = rng.choice(bodies)
        return bytes(body[: rng.randrange(len(body) + 1)] + other[rng.randrange(len(other)) :])
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if not body:
            break
        # Most of what a parser decides on lies in the first bytes.
        place = rng.randrange(min(len(body), 24) if rng.random() < 0.6 else len(body))
        change = rng.randrange(6)
        if change == 0:
            body[place] = rng.choice(ODD)
        elif change == 1:
            body[place] ^= 1 << rng.randrange(8)
        elif change == 2:
            del body[place : place + rng.choice((1, 1, 2, 4, 8))]
        elif change == 3:
            body[place:place] = bytes(rng.choice(ODD) for _ in range(rng.choice((1, 1, 2, 4, 8))))
        elif change == 4:
            body[place] = rng.randrange(256)
        else:
            del body[rng.randrange(1, len(body) + 1) :]
    return bytes(body)


def outcome(body: bytes) -> str:
    data = body + zlib.crc32(body).to_bytes(4, "little")
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=200_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first message")
    parser.add_argument("--seconds", type=float, default=5.0, help="longest time one message may take")
    parser.add_argument("--megabytes", type=float, default=512.0, help="most memory one message may take")
    parser.add_argument(
        "--entries", type=int, default=1 << 20, help="larger tensors are refused, for the sake of speed"
    )
    arguments = parser.parse_args()
    message._MAX_NUMEL = arguments.entries
    bodies, found, failures = corpus(), Counter[str](), 0
    slowest, largest = (0.0, -1), (0.0, -1)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    for number in range(arguments.first, arguments.first + arguments.messages):
        body = mutated(bodies, random.Random(number))
        tracemalloc.reset_peak()
        before, began = tracemalloc.get_traced_memory()[0], time.perf_counter()
        try:
            found[outcome(body)] += 1
        except Exception as error:
            found[type(error).__name__] += 1
            failures += 1
            if failures <= 20:
                print(f"message {number}: {type(error).__name__}: {error}", flush=True)
        seconds = time.perf_counter() - began
        megabytes = (tracemalloc.get_traced_memory()[1] - before) / 2**20
        slowest, largest = max(slowest, (seconds, number)), max(largest, (megabytes, number))
        if seconds > arguments.seconds or megabytes > arguments.megabytes:
            failures += 1
            print(f"message {number}: {seconds:.2f} s, {megabytes:.0f} MB", flush=True)
    print(", ".join(f"{count} {kind}" for kind, count in found.most_common()))
    print(f"slowest: {slowest[0]:.3f} s (message {slowest[1]}); largest: {largest[0]:.1f} MB (message {largest[1]})")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) / 2**10
    print(f"the process grew by {grown:.0f} MB")
    failures += grown > 4 * arguments.megabytes
    assert math.fsum(found.values()) == arguments.messages
    if failures:
        raise SystemExit(f"{failures} failures")


if __name__ == "__main__":
    main()
