"""Flower: a client mod and a strategy that send updates as telegrams, `telegrad.flower.mod(spec)` and
`telegrad.flower.compressed(FedAvg)(…)`.
"""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from telegrad.adapters.federated import (
    Arrays,
    Layout,
    Update,
    apply_update,
    compress_update,
    layout_of,
    pack_layout,
    read_layout,
)
from telegrad.compressors.base import Compressor
from telegrad.errors import InputError, TelegradError, WireError
from telegrad.random import Key
from telegrad.spec import build

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import FedAvg
except ImportError as error:
    raise ImportError("telegrad.flower needs Flower 1.22 or newer: pip install 'telegrad[flower]'") from error

__all__ = ["FederatedLedger", "compressed", "mod"]

_log = logging.getLogger("telegrad.flower")
_TELEGRAM = "telegrad"  # the key, and the serialisation type, of an array that holds messages
_LAYOUT = "telegrad-layout"
_MEMORY = "telegrad-memory"


@dataclass
class FederatedLedger:
    """Bits of updates and models by round and node, from the length of what was packed.

    `up[round][node]`: a client's telegram. `down[round][node]`: the model as it was sent to a client. `refused`: the
    clients whose messages were refused, with round, node and reason. Flower's own frames are not counted.
    """

    up: dict[int, Counter[int]] = field(default_factory=dict)
    down: dict[int, Counter[int]] = field(default_factory=dict)
    refused: list[tuple[int, int, str]] = field(default_factory=list)

    def total(self, way: str) -> int:
        """All bits `up` or `down`."""
        return sum(nodes.total() for nodes in getattr(self, way).values())


def mod(spec: str | Compressor, seed: int = 0) -> Callable[[Message, Context, Callable[..., Message]], Message]:
    """The client's half: a mod that sends the update of the arrays, not the arrays, compressed.

    What a client trained comes back as C(new − received), one message over all floating-point arrays; other arrays are
    sent as they are. An unbiased compressor needs no memory. With a biased one, what was left out is kept in the
    context's state and added to the next update (error feedback, C4).

    Args:
        spec: a compressor, for example "mlmc(stopk(s=0.01))" or "topk(k=0.01)".
        seed: of the compressor's random numbers, which also depend on round and node.

    Returns:
        A mod for `ClientApp(mods=[…])`; the server needs `compressed(…)` around its strategy.

    Example:
        app = ClientApp(mods=[telegrad.flower.mod("auto(bits=1)")])
    """
    compressor: Compressor = build(spec, "compressor")

    def telegraph(message: Message, context: Context, call_next: Callable[..., Message]) -> Message:
        kind = message.metadata.message_type.partition(".")[0]
        if kind not in ("train", "evaluate"):
            return call_next(message, context)
        place, received = _only_arrays(message, "the server's message")
        if _LAYOUT in received:
            received = _model(received)
            message.content.array_records[place] = received
        before = {name: array.numpy() for name, array in received.items()}
        reply = call_next(message, context)
        if reply.has_error() or kind == "evaluate":
            return reply
        answer, trained = _only_arrays(reply, "the client's reply")
        key = Key(seed).fold(step=_round_of(message), rank=context.node_id, role="federated")
        memory = context.state.array_records.get(_MEMORY)
        held = None if memory is None else memory["error"].numpy()
        after = {name: array.numpy() for name, array in trained.items()}
        update, left = compress_update(compressor, before, after, key, held)
        if left is not None:
            context.state.array_records[_MEMORY] = ArrayRecord({"error": Array(left)})
        reply.content.array_records[answer] = _packed(update)
        return reply

    return telegraph


def compressed(strategy: type[FedAvg]) -> type[Any]:
    """The server's half: a class like `strategy`, whose clients answer with telegrams.

    Its constructor takes `down`, a compressor for the models that are sent to clients (none: as they are), `seed`, and
    all that the strategy takes. Telegrams are decoded before the strategy aggregates, so weights by examples, partial
    participation and Flower's own options stay as they are. A client whose message is damaged, does not fit the
    model, or holds what is not finite is refused by name; the round goes on without it. `strategy.ledger` has the bits.

    Args:
        strategy: a class of `flwr.serverapp.strategy` below `FedAvg`.

    Example:
        strategy = telegrad.flower.compressed(FedAvg)(fraction_train=0.5, down="floating_point(level=7)")
    """
    if not (isinstance(strategy, type) and issubclass(strategy, FedAvg)):
        raise InputError(f"a strategy class below flwr.serverapp.strategy.FedAvg is wanted, not {strategy!r}")

    class Compressed(_Telegraph, strategy):
        pass

    Compressed.__name__ = Compressed.__qualname__ = f"Compressed{strategy.__name__}"
    return Compressed


class _Telegraph:
    """What `compressed` puts in front of a strategy."""

    def __init__(self, *args: Any, down: str | Compressor | None = None, seed: int = 0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.ledger = FederatedLedger()
        self._down: Compressor | None = None if down is None else build(down, "compressor")
        self._seed = seed
        self._sent: dict[str, Any] = {}

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = super().configure_train(server_round, self._outgoing(server_round, arrays), config, grid)  # type: ignore[misc]
        return self._booked(server_round, list(messages))

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        messages = super().configure_evaluate(server_round, self._outgoing(server_round, arrays), config, grid)  # type: ignore[misc]
        return self._booked(server_round, list(messages))

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        taken = [reply for reply in replies if reply.has_error() or self._decoded(server_round, reply)]
        result: tuple[ArrayRecord | None, MetricRecord | None] = super().aggregate_train(server_round, taken)  # type: ignore[misc]
        return result

    def _outgoing(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """The model as it is sent; `_sent` is what clients will make of it, to which their updates are added."""
        model = {name: array.numpy() for name, array in arrays.items()}
        if self._down is None:
            self._sent = model
            return arrays
        key = Key(self._seed).fold(step=server_round, role="federated-down")
        update, _ = compress_update(self._down, _blank(layout_of(model)), model, key)
        self._sent = apply_update(_blank(layout_of(model)), update)
        return _packed(update, layout_of(model))

    def _booked(self, server_round: int, messages: list[Message]) -> list[Message]:
        for message in messages:
            _, arrays = _only_arrays(message, "the strategy's message")
            bits = sum(8 * len(array.data) for array in arrays.values())
            self.ledger.down.setdefault(server_round, Counter())[message.metadata.dst_node_id] += bits
        return messages

    def _decoded(self, server_round: int, reply: Message) -> bool:
        """Put the client's arrays in the place of its telegram; False, and a line in the log, where it is refused."""
        node = reply.metadata.src_node_id
        try:
            name, arrays = _only_arrays(reply, "the reply")
            bits = sum(8 * len(array.data) for array in arrays.values())
            self.ledger.up.setdefault(server_round, Counter())[node] += bits
            reply.content.array_records[name] = _unpacked(arrays, self._sent)
            self._check_weight(reply.content)
        except (TelegradError, ValueError, TypeError, KeyError, AttributeError) as error:
            self.ledger.refused.append((server_round, node, str(error)))
            _log.warning("round %d: the message of node %d is refused: %s", server_round, node, error)
            return False
        return True

    def _check_weight(self, content: RecordDict) -> None:
        by = self.weighted_by_key  # type: ignore[attr-defined]
        for metrics in content.metric_records.values():
            weight = metrics.get(by)
            if isinstance(weight, (int, float)) and 0 <= weight < 2**53:
                return
            raise WireError(f"{by}={weight!r}: a number from 0 to 2^53 is allowed as a weight")
        raise WireError(f"the reply has no metric record with {by}")


def _only_arrays(message: Message, whose: str) -> tuple[str, ArrayRecord]:
    records = message.content.array_records
    if len(records) != 1:
        raise WireError(f"{whose} has {len(records)} array records; one is allowed")
    return next(iter(records.items()))


def _round_of(message: Message) -> int:
    for config in message.content.config_records.values():
        if "server-round" in config:
            return int(config["server-round"])
    raise InputError("the server's message has no server-round; use a strategy of flwr.serverapp.strategy")


def _packed(update: Update, layout: Layout | None = None) -> ArrayRecord:
    arrays = {name: Array(array) for name, array in update.plain.items()}
    arrays[_TELEGRAM] = _raw(update.telegram, _TELEGRAM)
    if layout is not None:
        arrays[_LAYOUT] = _raw(pack_layout(layout), _LAYOUT)
    return ArrayRecord(arrays)


def _raw(data: bytes, kind: str) -> Array:
    return Array("uint8", (len(data),), kind, data)


def _model(record: ArrayRecord) -> ArrayRecord:
    """The model of a server's compressed message."""
    return _unpacked(record, _blank(read_layout(record[_LAYOUT].data)))


def _blank(layout: Layout) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, dtype) for name, dtype, shape in layout}


def _unpacked(record: ArrayRecord, before: Arrays) -> ArrayRecord:
    """The arrays `before`, plus the update that a record holds."""
    if _TELEGRAM not in record or record[_TELEGRAM].stype != _TELEGRAM:
        raise WireError("no telegram in it; give the client mods=[telegrad.flower.mod(…)]")
    foreign = [name for name in record if name not in before and name not in (_TELEGRAM, _LAYOUT)]
    if foreign:
        raise WireError(f"the array {foreign[0]!r} is none of the model's")
    plain = {name: _checked(array, before[name], name) for name, array in record.items() if name in before}
    update = Update(record[_TELEGRAM].data, plain)
    return ArrayRecord({name: Array(array) for name, array in apply_update(before, update).items()})


def _checked(array: Array, expected: np.ndarray, name: str) -> np.ndarray:
    """A foreign array, once its header says what is expected: nothing larger is ever reserved."""
    stream = io.BytesIO(array.data)
    try:
        version = np.lib.format.read_magic(stream)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(stream)
    except (ValueError, EOFError, SyntaxError) as error:
        raise WireError(f"the array {name!r} cannot be read: {error}") from None
    if shape != expected.shape or dtype != expected.dtype:
        raise WireError(f"the array {name!r} has {dtype} {shape}, and the model {expected.dtype} {expected.shape}")
    return array.numpy()
