"""The account of bits: up and down, per worker and field, from the length of what is packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from telegrad.runtime.transport import LENGTH_NBYTES
from telegrad.wire.parcel import Parcel

__all__ = ["Ledger"]

_ROWS = ("paper_up", "sent", "received", "inside", "parameters", "probes", "gradients")


@dataclass
class Ledger:
    """Counts every message of a run.

    The method's account: `up[i]` holds the bits of worker i's messages per field (header, level, index, value, sign,
    scale), each message once, whoever receives it, and as long as it is in its parcel; `down[i]` those that worker i
    decodes (its own among them where it is a server too); `paper_up[i]` follows the MLMC paper's own accounting
    (`Code.paper_bits`) and is for comparison with its plots only; `by_piece` holds the uplink's bits per field for each
    piece of the model, over all workers.
    The network's: `sent[i]` and `received[i]` are the bits that worker i hands to others and takes from them, copies,
    frames and lengths included; `inside[i]` those it sends within its node, where a topology has nodes.
    `levels` counts the levels that MLMC messages carried; `skipped_steps` counts steps dropped on all workers for a
    non-finite gradient; of the others, `dense_steps` counts those in which a method's plan sends uncompressed vectors,
    and `silent_steps` those in which nothing is sent. `gradients[i]` counts what worker i computed, in gradients of one
    batch. `parameters[i]`: the bits of uncompressed parameters that worker i hands to others where they are sharded
    (FSDP2's all-gathers), `probes[i]` those it sends to measure its link (`register(model, "auto")`); both are part of
    `sent`. On torch.distributed each rank fills its own row: `ranks` says which rows are
    filled, and means over workers are means over these; `merged` adds the rows of several ranks up.
    """

    workers: int
    up: list[Counter[str]] = field(default_factory=list)
    down: list[Counter[str]] = field(default_factory=list)
    paper_up: list[int] = field(default_factory=list)
    sent: list[int] = field(default_factory=list)
    received: list[int] = field(default_factory=list)
    inside: list[int] = field(default_factory=list)
    parameters: list[int] = field(default_factory=list)
    probes: list[int] = field(default_factory=list)
    by_piece: dict[str, Counter[str]] = field(default_factory=dict)
    levels: Counter[int] = field(default_factory=Counter)
    messages_up: int = 0
    steps: int = 0
    skipped_steps: int = 0
    dense_steps: int = 0
    silent_steps: int = 0
    gradients: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("up", "down"):
            setattr(self, name, getattr(self, name) or [Counter() for _ in range(self.workers)])
        for name in _ROWS:
            setattr(self, name, getattr(self, name) or [0] * self.workers)
        self.ranks = self.ranks or list(range(self.workers))

    def book(
        self,
        rank: int,
        outgoing: Mapping[int, Parcel],
        incoming: Mapping[int, Parcel],
        account: Literal["up", "down", "both", "inside"],
        pieces: Sequence[str],
        lengths: bool = True,
    ) -> None:
        """Book one phase as worker `rank` sees it: what it sends by receiver, and what it receives by sender.

        `lengths`: whether ranks tell each other the parcels' lengths first, as in an all-to-all.
        """
        up, down = account in ("up", "both"), account in ("down", "both")
        own, again, away, home = outgoing.get(rank), incoming.get(rank), 0, 0
        fields = {parcel: parcel.fields for parcel in incoming.values() if down or parcel is again}
        for sender, parcel in incoming.items():
            for one in fields[parcel] if down else ():
                self.down[rank].update(one)
            if sender != rank:
                home += 8 * parcel.nbytes
        counted: set[Parcel] = set()
        for receiver, parcel in outgoing.items():
            # What a rank sent itself it has read again, and so knows how long every field is.
            known = again if parcel is own and again is not None else parcel
            if up and known not in counted:
                counted.add(known)
                of_codes = fields[known] if known is again else known.fields
                for code, one, piece in zip(known.codes, of_codes, pieces, strict=False):
                    self._uplink(rank, piece, one, code.paper_bits, code.level)
            if receiver != rank:
                away += 8 * known.nbytes
        told = 8 * LENGTH_NBYTES * (self.workers - 1) if lengths else 0
        if account == "inside":
            self.inside[rank] += away
            away = home = 0
        self.sent[rank] += told + away
        self.received[rank] += told + home

    def _uplink(self, worker: int, piece: str, fields: Mapping[str, int], paper_bits: int, level: int) -> None:
        self.up[worker].update(fields)
        self.by_piece.setdefault(piece, Counter()).update(fields)
        self.paper_up[worker] += paper_bits
        self.messages_up += 1
        if level:
            self.levels[level] += 1

    @staticmethod
    def merged(ledgers: Sequence[Ledger]) -> Ledger:
        """One account of the ranks' own ones."""
        ranks = sorted({rank for one in ledgers for rank in one.ranks})
        first = ledgers[0]
        whole = Ledger(first.workers, steps=first.steps, skipped_steps=first.skipped_steps, ranks=ranks)
        whole.dense_steps, whole.silent_steps = first.dense_steps, first.silent_steps
        for one in ledgers:
            whole.add(one, {rank: rank for rank in range(one.workers)})
        return whole

    def add(self, other: Ledger, places: Mapping[int, int]) -> None:
        """Book what another account holds; its row i, if `places` has it, goes to this one's row places[i]."""
        for row, place in places.items():
            self.up[place].update(other.up[row])
            self.down[place].update(other.down[row])
            for name in _ROWS:
                getattr(self, name)[place] += getattr(other, name)[row]
        for piece, fields in other.by_piece.items():
            self.by_piece.setdefault(piece, Counter()).update(fields)
        self.levels.update(other.levels)
        self.messages_up += other.messages_up

    @property
    def bits_up_per_worker(self) -> float:
        """Bits sent by a worker so far, mean over workers."""
        return sum(account.total() for account in self.up) / len(self.ranks)

    @property
    def bits_down_per_worker(self) -> float:
        """Bits received by a worker so far, mean over workers."""
        return sum(account.total() for account in self.down) / len(self.ranks)

    @property
    def paper_bits_up_per_worker(self) -> float:
        """Bits sent by a worker in the MLMC paper's accounting (64 bits a number, indices free), mean over workers."""
        return sum(self.paper_up) / len(self.ranks)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists, ready for JSON."""
        return {
            "workers": self.workers,
            "steps": self.steps,
            "skipped_steps": self.skipped_steps,
            "dense_steps": self.dense_steps,
            "silent_steps": self.silent_steps,
            "gradients": list(self.gradients),
            "messages_up": self.messages_up,
            "bits_up_per_worker": self.bits_up_per_worker,
            "bits_down_per_worker": self.bits_down_per_worker,
            "paper_bits_up_per_worker": self.paper_bits_up_per_worker,
            "up": [dict(account) for account in self.up],
            "down": [dict(account) for account in self.down],
            "sent": list(self.sent),
            "received": list(self.received),
            "inside": list(self.inside),
            "parameters": list(self.parameters),
            "probes": list(self.probes),
            "ranks": list(self.ranks),
            "by_piece": {piece: dict(fields) for piece, fields in self.by_piece.items()},
            "levels": {str(level): count for level, count in sorted(self.levels.items())},
        }
