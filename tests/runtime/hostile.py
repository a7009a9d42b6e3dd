"""Run as 3 ranks: a topology, and what rank 2 does wrong, one after the other; prints how all ranks end."""

import os
import sys
from datetime import timedelta

import torch
import torch.distributed as dist

import telegrad as tg
from telegrad.runtime import transport
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.pieces import Part, Piece
from telegrad.runtime.transport import GroupTransport
from telegrad.wire.code import Code, Term
from telegrad.wire.parcel import Parcel, pack_parcel
from telegrad.wire.positions import All, Ranked
from telegrad.wire.values import Floats

PIECES = [Piece(name, (Part(name, 0, 12),)) for name in ("one", "two")]


def codes(n=12, count=2, dtype=torch.float32):
    return tuple(tg.compressor("identity").encode(torch.ones(n, dtype=dtype)) for _ in range(count))


def ranked(n=12):
    return Code((n,), torch.float32, (Term(Ranked(n, 0, 2, shared=True), Floats(torch.ones(2))),))


PARCELS = {
    "another length": Parcel(codes(n=13)),
    "too few messages": Parcel(codes(count=1)),
    "too many messages": Parcel(codes(count=3)),
    "none": Parcel(),
    "another dtype": Parcel(codes(dtype=torch.float64)),
    "2^36 entries": Parcel(tuple(Code((2**36,), torch.float32) for _ in range(2))),
    "an order": Parcel((ranked(), ranked())),
}


def lie(how):
    """Have this rank do that from now on."""
    if how in PARCELS:
        transport.pack_parcel = lambda _: pack_parcel(PARCELS[how])
    elif how == "no parcel":
        transport.pack_parcel = lambda _: b"\x07 what is this"
    elif how in ("2^40 bytes", "2^62 bytes", "-5 bytes"):
        honest, number = dist.all_to_all_single, {"2^40 bytes": 2**40, "2^62 bytes": 2**62, "-5 bytes": -5}[how]

        def lengths(out, mine, *arguments, **more):
            if mine.dtype == torch.int64:
                mine[0, 0] = number  # to rank 0 only
            return honest(out, mine, *arguments, **more)

        dist.all_to_all_single = lengths
    else:  # another value, NaN, a failure or nothing to rank 1 only
        other = {
            "other values": Parcel(
                tuple(Code((12,), torch.float32, (Term(All(12), Floats(torch.ones(12) * 9)),)) for _ in range(2))
            ),
            "NaN": Parcel(
                tuple(
                    Code((12,), torch.float32, (Term(All(12), Floats(torch.full((12,), torch.nan))),)) for _ in range(2)
                )
            ),
            "a failure": Parcel(failure="worker 2, one: the gradient holds NaN or infinity"),
        }

        def send(self, outgoing, expected=(), *, honest=GroupTransport.send):
            parcels = dict(outgoing[0])
            if 1 in parcels:
                parcels[1] = other[how]
            return honest(self, [parcels], expected)

        GroupTransport.send = send


def ending(how, topology):
    """How four steps end, the second of which is the first with a lie."""
    exchange = exchange_of("sgd(identity)", topology, None, GroupTransport(dist.new_group()), tg.Key(0))
    skipped = False
    try:
        for step in range(4):
            if step == 1 and dist.get_rank() == 2:
                lie(how)
            exchange.begin(step, 0.1)
            try:
                exchange.run(PIECES, [[torch.full((12,), float(dist.get_rank() + step)) for _ in PIECES]])
                exchange.commit()
            except tg.NonFiniteError:  # as the hooks do it: the step is skipped
                skipped = True
    except tg.TelegradError as error:
        return f"{type(error).__name__}: {error}"
    return "skipped" if skipped else "well"


def main(topology, *lies):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", timeout=timedelta(seconds=120))
    honest = transport.pack_parcel, dist.all_to_all_single, GroupTransport.send
    for how in lies:
        print(f"ENDED {how}: {ending(how, topology)}", flush=True)
        transport.pack_parcel, dist.all_to_all_single, GroupTransport.send = honest
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
