"""Fuzz a Flower server with a client's messages that are nearly right; a round must go on without those that are not.

Three clients answer in every round, and the second is hostile: its telegram, arrays, records, metrics or weight are
changed, or the bytes of its whole message. Where it is refused by name, the aggregate must be that of the other two,
byte for byte; where it is taken, the aggregate must be finite and fit the model. No other error may come out, and time
and memory of a round are bounded. Every message is made from its own number, so that a failure can be repeated with
`--first N --messages 1`.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import random
import resource
import sys
import time
import tracemalloc
import zlib
from collections import Counter
from dataclasses import dataclass

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.proto.recorddict_pb2 import RecordDict as RecordDictProto
from flwr.serverapp.strategy import FedAvg
from flwr.supercore.task_identity import TaskIdentity
from fuzz import with_changed_bytes
from google.protobuf.message import DecodeError

from telegrad.adapters import flower

SPECS = ["identity", "topk(k=0.1)", "mlmc(stopk(s=0.1))", "auto(bits=1)", "auto(bits=4)", "qsgd(levels=9, bucket=16)"]
SPECS += ["eden(bits=1.5)", "ecdq(bits=2)", "natural", "randk(k=0.3)", "importance(k=0.4)", "sign", "rtn(level=8)"]
NODES, EXAMPLES, HOSTILE = (11, 22, 33), {11: 10, 22: 30, 33: 60}, 22
WEIGHTS = (0, -1, 1, 2**31, 2**53 - 1, 2**53, 2**62, 1e308, -0.0, 5e-324, math.nan, math.inf, -math.inf, [], [1.0], [3])
MEGABYTES = 64.0
"""What a round may take: a model of 1,300 numbers, whatever is announced."""


class Grid:
    """The nodes that a strategy samples from."""

    def get_node_ids(self) -> list[int]:
        return list(NODES)


@dataclass
class Case:
    """The honest replies to one compressor's round, by node; and what the two honest clients add up to."""

    strategy: flower.compressed(FedAvg)  # type: ignore[valid-type]
    replies: dict[int, Message]
    without: bytes


def model() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(3)
    arrays = {"layer.weight": draw.standard_normal((40, 30)), "layer.bias": draw.standard_normal(40)}
    return {name: a.astype(np.float32) for name, a in arrays.items()} | {"norm.steps": np.array(3, np.int64)}


def record(arrays: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array)) for name, array in arrays.items()})


def trained(message: Message, context: Context) -> Message:
    draw = np.random.default_rng(context.node_id)
    arrays = {name: array.numpy() for name, array in message.content["arrays"].items()}
    for name in ("layer.weight", "layer.bias"):
        arrays[name] = arrays[name] + draw.standard_normal(arrays[name].shape).astype(np.float32)
    metrics = MetricRecord({"num-examples": EXAMPLES[context.node_id], "loss": 0.5, "losses": [0.5, 0.25]})
    return Message(RecordDict({"arrays": record(arrays), "metrics": metrics}), reply_to=message)


def case_of(spec: str) -> Case:
    strategy, client, replies = flower.compressed(FedAvg)(), flower.mod(spec), {}
    for message in strategy.configure_train(1, record(model()), ConfigRecord(), Grid()):
        node = message.metadata.dst_node_id
        message.metadata._message_id = str(node)
        replies[node] = client(message, Context(1, node, {}, RecordDict(), {}), trained)
    one = Case(strategy, replies, b"")
    arrays, _ = strategy.aggregate_train(1, [copied(replies[node]) for node in NODES if node != HOSTILE])
    one.without = bytes_of(arrays)
    return one


def copied(reply: Message) -> Message:
    """A reply with a content of its own, which the strategy may change."""
    records = {
        name: ArrayRecord(dict(one)) if isinstance(one, ArrayRecord) else MetricRecord(dict(one))
        for name, one in reply.content.items()
    }
    return with_content(reply, RecordDict(records))


def with_content(reply: Message, content: RecordDict) -> Message:
    other = Message.__new__(Message)
    other.__dict__.update(reply.__dict__)
    other.__dict__["_content"] = content
    return other


def bytes_of(arrays: ArrayRecord | None) -> bytes:
    return b"" if arrays is None else b"".join(a.numpy().tobytes() for a in arrays.values())


def changed_bytes(data: bytes, rng: random.Random) -> bytes:
    return with_changed_bytes(data, rng, head=32, in_head=0.5)


def changed_array(array: Array, rng: random.Random) -> Array:
    """Another dtype, shape, serialisation or content, or a header that announces something else than there is."""
    change = rng.randrange(5)
    if change == 0:
        return Array(array.dtype, array.shape, rng.choice(("telegrad", "numpy.ndarray", "", "pickle")), array.data)
    if change == 1:
        shape = rng.choice(((), (0,), (2**40,), (40, 30), (2**31, 2**31)))
        dtype = rng.choice(("<f4", "<i8", "|O", "<U4", "<f8"))
        header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        return Array("int64", shape, "numpy.ndarray", b"\x93NUMPY\x01\x00v\x00" + header.encode() + rng.randbytes(8))
    if change == 2:
        with np.errstate(all="ignore"):
            own = np.full(rng.choice(((), (3,), (40,))), rng.choice((0.0, -1.0, 2.0**62, math.nan, 1e300)))
            return Array(own.astype(rng.choice(("int64", "float32", "float64"))))
    if change == 3:
        header = "(" * rng.choice((3, 90, 5000))
        return Array("int64", (), "numpy.ndarray", b"\x93NUMPY\x01\x00v\x00" + header.encode())
    return Array(array.dtype, array.shape, array.stype, changed_bytes(array.data, rng))


def changed(content: RecordDict, rng: random.Random) -> RecordDict | None:
    """A content with something changed; None where Flower itself can no longer read it."""
    kind = rng.random()
    arrays, metrics = content["arrays"], content["metrics"]
    if kind < 0.5:  # the telegram, half of the time with a checksum that fits
        data = changed_bytes(arrays["telegrad"].data, rng)
        if rng.random() < 0.5:
            data = data[:-4] + zlib.crc32(data[:-4]).to_bytes(4, "little")
        arrays["telegrad"] = Array("uint8", (len(data),), "telegrad", data)
    elif kind < 0.65:
        name = rng.choice((*arrays, "layer.weight", "telegrad-layout", "", "x"))
        arrays[name] = changed_array(arrays.get(name, arrays["norm.steps"]), rng)
        if rng.random() < 0.3:
            arrays.pop(rng.choice(tuple(arrays)))
    elif kind < 0.8:
        name = rng.choice(("num-examples", "num-examples", "loss", "losses", "more"))
        metrics[name] = rng.choice(WEIGHTS)
        if rng.random() < 0.2:
            metrics.pop(rng.choice(tuple(metrics)))
    elif kind < 0.85:
        name, other = rng.choice(tuple(content)), rng.choice(("arrays", "metrics", "more"))
        one = content.pop(name)
        content[other] = one
        if rng.random() < 0.3:
            content["again"] = one
    else:
        data = changed_bytes(recorddict_to_proto(content).SerializeToString(), rng)
        try:
            return recorddict_from_proto(RecordDictProto.FromString(data))
        except (DecodeError, ValueError, TypeError, KeyError, AttributeError):
            return None
    return content


def outcome(case: Case, rng: random.Random) -> str:
    """What comes of a round with a hostile message: refused, taken, or no message of Flower's."""
    replies = {node: copied(reply) for node, reply in case.replies.items()}
    content = changed(replies[HOSTILE].content, rng)
    if content is None:
        return "no message of Flower's"
    replies[HOSTILE] = with_content(replies[HOSTILE], content)
    case.strategy.ledger.refused.clear()
    order = rng.sample(NODES, 3)
    arrays, metrics = case.strategy.aggregate_train(1, [replies[node] for node in order])
    refused = [node for _, node, _ in case.strategy.ledger.refused]
    assert refused in ([], [HOSTILE]), f"refused: {case.strategy.ledger.refused}"
    assert arrays is not None, "nothing was aggregated"
    assert metrics is not None, "no metrics were aggregated"
    if refused:
        ordered = [node for node in order if node != HOSTILE]
        if ordered == [node for node in NODES if node != HOSTILE]:  # sums in another order round otherwise
            assert bytes_of(arrays) == case.without, "the aggregate is not that of the others"
        return "refused"
    for name, array in model().items():
        found = arrays[name].numpy()
        assert found.shape == array.shape, f"{name} has another shape"
        assert np.isfinite(found).all(), f"{name} is not finite"
    return "taken"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--first", type=int, default=0, help="the number of the first message")
    parser.add_argument("--seconds", type=float, default=10.0, help="longest time one round may take")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)
    for name in ("run_id", "node_id", "task_id"):  # what Flower's runtime tells a server
        setattr(TaskIdentity, f"_{name}", 1)
    cases, found, failures = [case_of(spec) for spec in SPECS], Counter[str](), 0
    slowest, largest, began_at = (0.0, -1), (0.0, -1), time.process_time()
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(arguments.first, arguments.first + arguments.messages):
        rng, began = random.Random(number), time.process_time()
        measured = number % 50 == 0  # tracing doubles the time
        if measured:
            tracemalloc.start()
        try:
            found[outcome(rng.choice(cases), rng)] += 1
        except Exception as error:
            found[type(error).__name__] += 1
            failures += 1
            if failures <= 20:
                print(f"message {number}: {type(error).__name__}: {error}"[:400], flush=True)
        seconds = time.process_time() - began
        slowest = max(slowest, (seconds, number))
        if measured:
            megabytes = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            largest = max(largest, (megabytes, number))
        if seconds > arguments.seconds or (measured and megabytes > MEGABYTES):
            failures += 1
            print(f"message {number}: {seconds:.2f} s, {largest[0]:.0f} MB at most so far", flush=True)
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
