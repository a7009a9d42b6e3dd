"""Flower: a client mod and a strategy that send updates as telegrams, `telegrad.flower.mod(spec)` and
`telegrad.flower.compressed(FedAvg)(…)`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from telegrad.adapters.federated import apply_update, compress_update, layout_of
from telegrad.compressors.base import Compressor
from telegrad.errors import InputError, TelegradError
from telegrad.random import Key
from telegrad.spec import build

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import FedAvg
except ImportError as error:
    raise ImportError("telegrad.flower needs Flower 1.22 or newer: pip install 'telegrad[flower]'") from error

from telegrad.adapters.flower_messages import (
    LAYOUT,
    Form,
    blank,
    check_weight,
    counted_by_flower,
    difference,
    form_of,
    model_of,
    most_common_form,
    only_arrays,
    packed,
    round_of,
    unpacked,
)

__all__ = ["FederatedLedger", "compressed", "mod"]

_log = logging.getLogger("telegrad.flower")
_MEMORY, _LONGEST = "telegrad-memory", 400


@dataclass
class FederatedLedger:
    """Bits of updates and models by round and node, from the length of what was packed.

    `up[round][node]`: a client's telegram. `down[round][node]`: the model as it was sent to a client. `refused`: the
    clients whose messages were refused, with round, node and reason. `by_flower`: bytes "up" and "down" of all messages
    by Flower's own count, that of its `message_size_mod`, metrics and names of records included; to compare.
    """

    up: dict[int, Counter[int]] = field(default_factory=dict)
    down: dict[int, Counter[int]] = field(default_factory=dict)
    refused: list[tuple[int, int, str]] = field(default_factory=list)
    by_flower: Counter[str] = field(default_factory=Counter)

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
        place, received = only_arrays(message, "the server's message")
        if LAYOUT in received:
            received = model_of(received)
            message.content.array_records[place] = received
        before = {name: array.numpy() for name, array in received.items()}
        reply = call_next(message, context)
        if reply.has_error() or kind == "evaluate":
            return reply
        answer, trained = only_arrays(reply, "the client's reply")
        key = Key(seed).fold(step=round_of(message), rank=context.node_id, role="federated")
        memory = context.state.array_records.get(_MEMORY)
        held = None if memory is None else memory["error"].numpy()
        after = {name: array.numpy() for name, array in trained.items()}
        update, left = compress_update(compressor, before, after, key, held)
        if left is not None:
            context.state.array_records[_MEMORY] = ArrayRecord({"error": Array(left)})
        reply.content.array_records[answer] = packed(update)
        return reply

    return telegraph


def compressed(strategy: type[FedAvg]) -> type[Any]:
    """The server's half: a class like `strategy`, whose clients answer with telegrams.

    Its constructor takes `down`, a compressor for the models that are sent to clients (none: as they are), `seed`, and
    all that the strategy takes. Telegrams are decoded before the strategy aggregates, so weights by examples, partial
    participation and Flower's own options stay as they are. A client whose message is damaged, does not fit the
    model, holds what is not finite, or has other records or metrics than most is refused by name, and the round goes on
    without it, also where Flower itself would end. `strategy.ledger` has the bits.

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
        self._forms: dict[str, Form] = {}

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
        taken = self._taken(server_round, "train", replies, self._decode)
        result: tuple[ArrayRecord | None, MetricRecord | None] = super().aggregate_train(server_round, taken)  # type: ignore[misc]
        return result

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        taken = self._taken(server_round, "evaluate", replies, lambda server_round, reply: None)
        result: MetricRecord | None = super().aggregate_evaluate(server_round, taken)  # type: ignore[misc]
        return result

    def _outgoing(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """The model as it is sent; `_sent` is what clients will make of it, to which their updates are added."""
        model = {name: array.numpy() for name, array in arrays.items()}
        if self._down is None:
            self._sent = model
            return arrays
        key = Key(self._seed).fold(step=server_round, role="federated-down")
        update, _ = compress_update(self._down, blank(layout_of(model)), model, key)
        self._sent = apply_update(blank(layout_of(model)), update)
        return packed(update, layout_of(model))

    def _booked(self, server_round: int, messages: list[Message]) -> list[Message]:
        for message in messages:
            _, arrays = only_arrays(message, "the strategy's message")
            bits = sum(8 * len(array.data) for array in arrays.values())
            self.ledger.down.setdefault(server_round, Counter())[message.metadata.dst_node_id] += bits
            self.ledger.by_flower["down"] += counted_by_flower(message.content)
        return messages

    def _taken(
        self, server_round: int, kind: str, replies: Iterable[Message], decode: Callable[[int, Message], None]
    ) -> list[Message]:
        """The replies that the strategy can aggregate, and those that say that a client failed."""
        replies = list(replies)
        forms, weights = dict[int, Form](), dict[int, float]()
        for number, reply in enumerate(replies):
            if reply.has_error():
                continue
            self.ledger.by_flower["up"] += counted_by_flower(reply.content)
            try:
                decode(server_round, reply)
                weights[number] = check_weight(reply.content, self.weighted_by_key)  # type: ignore[attr-defined]
                forms[number] = form_of(reply.content)
            except (TelegradError, ValueError, TypeError, KeyError, AttributeError) as error:
                self._refuse(server_round, reply, str(error))
        if forms:
            common = self._forms[kind] = most_common_form(list(forms.values()), self._forms.get(kind))
            for number in [number for number, form in forms.items() if form != common]:
                self._refuse(server_round, replies[number], difference(forms.pop(number), common))
            if not sum(weights[number] for number in forms):
                for number in list(forms):
                    forms.pop(number)
                    self._refuse(server_round, replies[number], "no reply has a weight above 0")
        return [reply for number, reply in enumerate(replies) if number in forms or reply.has_error()]

    def _decode(self, server_round: int, reply: Message) -> None:
        """Put the client's arrays in the place of its telegram."""
        name, arrays = only_arrays(reply, "the reply")
        bits = sum(8 * len(array.data) for array in arrays.values())
        self.ledger.up.setdefault(server_round, Counter())[reply.metadata.src_node_id] += bits
        reply.content.array_records[name] = unpacked(arrays, self._sent)

    def _refuse(self, server_round: int, reply: Message, reason: str) -> None:
        node, reason = reply.metadata.src_node_id, reason[:_LONGEST]  # which may quote the message
        self.ledger.refused.append((server_round, node, reason))
        _log.warning("round %d: the message of node %d is refused: %s", server_round, node, reason)
