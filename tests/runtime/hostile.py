"""Run as 3 ranks: what runs, over which topology, and what rank 2 does wrong, three arguments a scenario; prints how
each ends.
"""

import os
import sys

import torch
import torch.distributed as dist

import telegrad as tg
from telegrad.runtime import group_transport as transport
from telegrad.runtime.distributed import train_distributed
from telegrad.runtime.exchange import exchange_of
from telegrad.runtime.group_transport import GroupTransport
from telegrad.runtime.pieces import Part, Piece
from telegrad.wire.code import Code, Term
from telegrad.wire.parcel import Parcel, pack_parcel
from telegrad.wire.positions import All, Ranked
from telegrad.wire.values import Floats

PIECES = [Piece(name, (Part(name, 0, 12),)) for name in ("one", "two")]


def codes(shape=(12,), count=2, dtype=torch.float32, value=1.0):
    terms = (Term(All(torch.Size(shape).numel()), Floats(torch.full(shape, value, dtype=dtype).view(-1))),)
    return tuple(Code(shape, dtype, terms) for _ in range(count))


def ranked(n=12):
    return Code((n,), torch.float32, (Term(Ranked(n, 0, 2, shared=True), Floats(torch.ones(2))),))


PARCELS = {
    "another length": Parcel(codes((13,))),
    "another shape": Parcel(codes((3, 4))),
    "too few messages": Parcel(codes(count=1)),
    "too many messages": Parcel(codes(count=3)),
    "none": Parcel(),
    "another dtype": Parcel(codes(dtype=torch.float64)),
    "NaN to all": Parcel(codes(value=torch.nan)),
    "2^36 entries": Parcel(tuple(Code((2**36,), torch.float32) for _ in range(2))),
    "no number": Parcel((*codes(), *codes((1,), 1, torch.float64))),
    "a number of float32": Parcel((*codes(), *codes((), 1))),
    "an order": Parcel((ranked(), ranked())),
}
TO_ONE_RANK = {
    "other values": Parcel(codes(value=9.0)),
    "NaN": Parcel(codes(value=torch.nan)),
    "a failure": Parcel(failure="worker 2, one: the gradient holds NaN or infinity"),
    "an empty parcel": Parcel(),
    "nothing": None,
}
LENGTHS = {"2^40 bytes": 2**40, "2^62 bytes": 2**62, "-5 bytes": -5}


def lie(how):
    """Have this rank do that from now on."""
    if how in PARCELS:
        transport.pack_parcel = lambda _: pack_parcel(PARCELS[how])
    elif how == "no parcel":
        transport.pack_parcel = lambda _: b"\x07 what is this"
    elif how in LENGTHS or how == "told a failure":
        honest = dist.all_to_all_single

        def changed(out, mine, *arguments, **more):
            if mine.dtype == torch.int64 and how in LENGTHS:
                mine[0, 0] = LENGTHS[how]  # to rank 0 only
            if mine.dtype == torch.float64 and how not in LENGTHS:
                mine[1, -1] = 1.0 - mine[1, -1]  # to rank 1 only
            return honest(out, mine, *arguments, **more)

        dist.all_to_all_single = changed
    else:  # to rank 1 only

        def send(self, outgoing, expected, *, honest=GroupTransport.send):
            parcels = dict(outgoing[0])
            if parcels.pop(1, None) is not None and TO_ONE_RANK[how] is not None:
                parcels[1] = TO_ONE_RANK[how]
            return honest(self, [parcels], expected)

        GroupTransport.send = send


def exchanged(method, topology, how):
    """Four steps of an exchange, the second of which is the first with a lie; returns whether one was skipped."""
    exchange = exchange_of(method, topology, None, GroupTransport(dist.new_group()), tg.Key(0))
    skipped = False
    for step in range(4):
        if step == 1 and dist.get_rank() == 2:
            lie(how)
        exchange.begin(step, 0.1)
        try:
            exchange.run(PIECES, [[torch.full((12,), float(dist.get_rank() + step)) for _ in PIECES]])
            exchange.commit()
        except tg.NonFiniteError:  # as the hooks do it: the step is skipped
            skipped = True
    return skipped


class TwoVectors(torch.nn.Module):
    """Two classes; a vector of 12 weights for each."""

    def __init__(self):
        super().__init__()
        self.one, self.two = torch.nn.Parameter(torch.zeros(12)), torch.nn.Parameter(torch.ones(12))

    def forward(self, inputs):
        return torch.stack([inputs @ self.one, inputs @ self.two], 1)


def trained(method, topology, how):
    """Eight steps of training, with a lie from the third on; returns whether one was skipped."""
    inputs = torch.randn(60, 12, generator=torch.Generator().manual_seed(0))
    task = tg.task(TwoVectors, torch.utils.data.TensorDataset(inputs, (inputs[:, 0] > 0).long()))

    def progress(record):
        if record["step"] == 2 and dist.get_rank() == 2:
            lie(how)

    setting = {"steps": 8, "lr": 0.1, "batch_size": 4, "evaluate_every": 8, "granularity": "tensor"}
    if method.startswith("shadowheart"):
        setting["clock"] = tg.methods.Clock(gradient=1, message=1)
    group = dist.new_group()
    run = train_distributed(task, method, topology=topology, group=group, progress=progress, **setting)
    return run.ledger.skipped_steps > 0


def ending(method, topology, how):
    """How it ends on this rank."""
    try:
        skipped = (exchanged if method == "sgd(identity)" else trained)(method, topology, how)
    except tg.TelegradError as error:
        return f"{type(error).__name__}: {error}"
    return "skipped" if skipped else "well"


def main(*scenarios):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    honest = transport.pack_parcel, dist.all_to_all_single, GroupTransport.send
    for method, topology, how in zip(scenarios[::3], scenarios[1::3], scenarios[2::3], strict=True):
        print(f"ENDED {ending(method, topology, how)}", flush=True)
        transport.pack_parcel, dist.all_to_all_single, GroupTransport.send = honest
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
