"""Flower messages and telegrams: a record of arrays that holds an update, and what a server takes of a reply."""

from __future__ import annotations

import io
import tokenize
from collections import Counter
from collections.abc import Sequence

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from telegrad.adapters.federated import Arrays, Layout, Update, apply_update, pack_layout, read_layout
from telegrad.errors import InputError, WireError

__all__ = [
    "Form",
    "blank",
    "check_weight",
    "counted_by_flower",
    "difference",
    "form_of",
    "model_of",
    "most_common_form",
    "only_arrays",
    "packed",
    "round_of",
    "unpacked",
]

LAYOUT = "telegrad-layout"
_TELEGRAM = "telegrad"  # the key, and the serialisation type, of an array that holds messages

Form = tuple[tuple[str, ...], tuple[tuple[str, int | None], ...]]
"""How a reply is laid out: the names of its array records; and of its metric record and all metrics in it, with the
lengths of those that are lists.
"""


def only_arrays(message: Message, whose: str) -> tuple[str, ArrayRecord]:
    records = message.content.array_records
    if len(records) != 1:
        raise WireError(f"{whose} has {len(records)} array records; one is allowed")
    return next(iter(records.items()))


def round_of(message: Message) -> int:
    for config in message.content.config_records.values():
        if "server-round" in config:
            return int(config["server-round"])
    raise InputError("the server's message has no server-round; use a strategy of flwr.serverapp.strategy")


def counted_by_flower(content: RecordDict) -> int:
    """Bytes of a message as Flower's own `message_size_mod` counts them: data and names of all records."""

    def count(record: ArrayRecord | ConfigRecord | MetricRecord) -> int:
        try:
            return int(record.count_bytes())
        except (ValueError, IndexError):  # Flower counts no empty text and no empty list
            return 0

    return sum(map(count, content.values()))


def packed(update: Update, layout: Layout | None = None) -> ArrayRecord:
    arrays = {name: Array(array) for name, array in update.plain.items()}
    arrays[_TELEGRAM] = _raw(update.telegram, _TELEGRAM)
    if layout is not None:
        arrays[LAYOUT] = _raw(pack_layout(layout), LAYOUT)
    return ArrayRecord(arrays)


def _raw(data: bytes, kind: str) -> Array:
    return Array("uint8", (len(data),), kind, data)


def model_of(record: ArrayRecord) -> ArrayRecord:
    """The model of a server's compressed message."""
    return unpacked(record, blank(read_layout(record[LAYOUT].data)))


def blank(layout: Layout) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, dtype) for name, dtype, shape in layout}


def unpacked(record: ArrayRecord, before: Arrays) -> ArrayRecord:
    """The arrays `before`, plus the update that a record holds."""
    if _TELEGRAM not in record or record[_TELEGRAM].stype != _TELEGRAM:
        raise WireError("no telegram in it; give the client mods=[telegrad.flower.mod(…)]")
    foreign = [name for name in record if name not in before and name not in (_TELEGRAM, LAYOUT)]
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
    except (ValueError, EOFError, SyntaxError, MemoryError, RecursionError, tokenize.TokenError) as error:
        raise WireError(f"the array {name!r} cannot be read: {error}") from None
    if shape != expected.shape or dtype != expected.dtype:
        raise WireError(f"the array {name!r} has {dtype} {shape}, and the model {expected.dtype} {expected.shape}")
    return array.numpy()


def check_weight(content: RecordDict, by: str) -> float:
    """The weight of a reply, a number from 0 to 2^53. Raises `WireError` where it has another, or none."""
    records = content.metric_records
    if len(records) != 1:
        raise WireError(f"the reply has {len(records)} metric records; one with {by} is wanted")
    (metrics,) = records.values()
    weight = metrics.get(by)
    if not isinstance(weight, (int, float)) or not 0 <= weight < 2**53:
        raise WireError(f"{by}={weight!r}: a number from 0 to 2^53 is allowed as a weight")
    return weight


def form_of(content: RecordDict) -> Form:
    """How a reply that `check_weight` let through is laid out."""
    (metrics,) = content.metric_records.items()
    name, values = metrics
    lengths = ((key, len(value) if isinstance(value, list) else None) for key, value in values.items())
    return tuple(content.array_records), ((name, None), *sorted(lengths))


def most_common_form(forms: Sequence[Form], before: Form | None) -> Form:
    """The form that most replies have: Flower takes a round in which all have the same. In a tie the one of `before`,
    an earlier round's, or the first.
    """
    counts = Counter(forms)
    return max(counts, key=lambda form: (counts[form], form == before))


def difference(form: Form, common: Form) -> str:
    """Where a form differs from that of most replies."""
    for what, own, others in zip(("array records", "metrics"), form, common, strict=True):
        if own != others:
            return f"its {what} are {own}, and those of most replies {others}"
    return "nowhere"
