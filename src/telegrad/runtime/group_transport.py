"""The transport over torch.distributed, and what ranks tell each other beside their parcels: how long these are, what
they were sent, and what did not fit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from operator import methodcaller
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from telegrad.errors import CommunicationError, DriftError, TelegradError, WireError
from telegrad.kernels.device import away_from_default_device
from telegrad.kernels.threads import each
from telegrad.runtime.expectations import Expected, longest
from telegrad.runtime.transport import Delivery, Outgoing, Transport
from telegrad.wire.parcel import ELEMENTS_A_BYTE, Parcel, pack_parcel

__all__ = ["GroupTransport", "lost"]

_DRIFT = -(1 << 32)
_TEXT_NBYTES = 512
_PATIENCE = timedelta(seconds=30)  # until the others come to their next exchange


class GroupTransport(Transport):
    """A rank a process, over a process group: each phase is an all-to-all of lengths and one of bytes; the bytes travel
    while the ranks do something else.

    Works on gloo and NCCL: both have the uneven all-to-all. Bytes travel from `device`, which NCCL wants to be a GPU.
    """

    foreign = True

    def __init__(self, group: dist.ProcessGroup | None = None) -> None:
        self.group = group
        self.workers, self.ranks = dist.get_world_size(group), [dist.get_rank(group)]
        self.device = torch.device("cuda" if dist.get_backend(group) == "nccl" else "cpu")
        self._words = Words(group, self.device)

    def begin(self) -> None:
        self._words.begin()

    def send(self, outgoing: Sequence[Outgoing], expected: Sequence[Expected]) -> Delivery:
        (parcels,), (wanted,), (me,) = outgoing, expected, self.ranks
        packed: dict[Parcel, bytes] = {}  # one often goes to many
        data = [b""] * self.workers
        for receiver, parcel in parcels.items():
            if parcel not in packed:
                packed[parcel] = pack_parcel(parcel)
            data[receiver] = packed[parcel]
        # What a rank sends itself is decoded as by all others, so that it shares no memory with gradients.
        own, data[me] = data[me], b""
        try:
            lengths = self._words.exchange(list(map(len, data)))
            # Whatever is announced, no more room is made than what may come needs.
            most = list(map(longest, map(wanted.shapes.get, range(self.workers))))
            sizes = [length if 0 <= length <= room else room for length, room in zip(lengths, most, strict=True)]
            work, got = self._all_to_all(data, sizes)
        except RuntimeError as error:
            raise _named(error) from error

        def read(sender: int) -> Parcel | WireError | None:
            try:
                if lengths[sender] != sizes[sender]:
                    raise WireError(f"{lengths[sender]} bytes announced, where up to {most[sender]} are allowed")
                return wanted.read(sender, received[sender])
            except WireError as error:
                return error

        received: list[bytes | memoryview] = []

        def inbox() -> list[dict[int, Parcel]]:
            try:
                work.wait()
                view, at = got.cpu().numpy().data, 0
            except RuntimeError as error:
                raise lost(error) from error
            for sender, size in enumerate(sizes):
                received.append(own if sender == me else view[at : at + size])
                at += size
            found, came = each(read, range(self.workers), ELEMENTS_A_BYTE * sum(map(len, received))), {}
            for sender, parcel in enumerate(found):
                if isinstance(parcel, WireError):
                    self._words.tell(sender, f"rank {sender} sent what does not fit: {parcel}")
                elif parcel is not None:
                    came[sender] = parcel
            self._words.check()
            if wanted.alike:
                self._words.note(received)
            return [came]

        return inbox

    def _all_to_all(self, data: Sequence[bytes], sizes: Sequence[int]) -> tuple[dist.Work, Tensor]:
        lengths = list(map(len, data))
        sent = torch.frombuffer(bytearray().join(data) or bytearray(1), dtype=torch.uint8)[: sum(lengths)]
        sent, got = sent.to(self.device), torch.empty(sum(sizes), dtype=torch.uint8, device=self.device)
        return dist.all_to_all_single(got, sent, list(sizes), lengths, group=self.group, async_op=True), got

    @away_from_default_device
    def gathered(self, tensors: Tensor) -> Tensor:
        rows = [torch.empty_like(tensors[0], device=self.device) for _ in range(self.workers)]
        try:
            self._words.hear()
            dist.all_gather(rows, tensors[0].contiguous().to(self.device), group=self.group)
        except RuntimeError as error:
            raise _named(error) from error
        return torch.stack(rows).to(tensors.device)

    @away_from_default_device
    def told(self, tensors: Tensor) -> Tensor:
        try:
            return self._words.told(tensors[0].contiguous())
        except RuntimeError as error:
            raise _named(error) from error

    @away_from_default_device
    def objects(self, mine: Any) -> list[Any]:
        found: list[Any] = [None] * self.workers
        try:
            self._words.hear()
            dist.all_gather_object(found, mine, group=self.group)
        except RuntimeError as error:
            raise _named(error) from error
        return found


class Words:
    """A rank's words to the others of its group: two numbers to each in every phase, the length of its parcel and a
    hash of all that it was sent alike with the others in the step before.

    Where something does not fit, the length is negative and says whose fault it is: all ranks then gather the reasons,
    and raise the same error, that of the first rank at fault.
    """

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device) -> None:
        self._group, self._device, self._workers = group, device, dist.get_world_size(group)
        self._heard = [hashlib.blake2b(digest_size=8) for _ in range(self._workers)]
        self._drifted = False
        self.begin()

    def begin(self) -> None:
        """Enter a step: what was noted so far is what ranks compare from now on."""
        self._before = list(map(_number, map(_digest, self._heard)))
        self._own = _number(hashlib.blake2b(repr(self._before).encode(), digest_size=8).digest())

    def note(self, received: Sequence[bytes | memoryview]) -> None:
        """What all ranks should have been sent alike, by sender."""
        for heard, data in zip(self._heard, received, strict=True):
            heard.update(len(data).to_bytes(8, "little"))
            heard.update(data)

    def exchange(self, lengths: Sequence[int]) -> list[int]:
        """How long the others' parcels will be. Raises what a rank has told of a fault."""
        mine = torch.tensor([lengths, [self._own] * self._workers], dtype=torch.int64)
        marks, heard = self._all_to_all(mine.t()).t().tolist()
        if min(marks) < 0 and any(mark == _DRIFT or -self._workers <= mark < 0 for mark in marks):
            self._raise(marks, "")
        self._drifted = heard.count(self._own) < self._workers
        return list(marks)

    def told(self, mine: Tensor) -> Tensor:
        """Every rank's few numbers, by row. Raises `DriftError`, on all ranks, where one told them different ones."""
        self.hear()
        rows = self._all_to_all(mine.expand(self._workers, *mine.shape))
        self.note([row.numpy().tobytes() for row in rows])
        self.begin()
        self.hear()
        return rows

    def hear(self) -> None:
        """Raise what a rank has told of a fault: what else ranks do together must not meet its telling."""
        self.exchange([0] * self._workers)
        self.check()

    def check(self) -> None:
        """Raise `DriftError`, on all ranks, where not all were sent the same in the step before."""
        if self._drifted:
            self._tell(_DRIFT, "")

    def tell(self, sender: int, reason: str) -> None:
        """Raise `WireError` with the reason on all ranks, on the others in their next exchange at the latest."""
        self._tell(-1 - sender, reason)

    def _tell(self, mark: int, reason: str) -> None:
        try:
            found = self._all_to_all(torch.tensor([[mark, 0]] * self._workers, dtype=torch.int64), _PATIENCE)
            self._raise(found[:, 0].tolist(), reason)
        except RuntimeError as error:
            if isinstance(error, DriftError):
                raise
            # The others are gone, or do something else: what this rank knows must do.
            if mark == _DRIFT:
                raise DriftError("ranks were sent different things in the step before") from None
            raise WireError(reason) from None

    def _raise(self, marks: Sequence[int], reason: str) -> None:
        """Raise the first rank's fault; all ranks take part."""
        text = torch.zeros(_TEXT_NBYTES, dtype=torch.uint8)
        own = reason.encode()[:_TEXT_NBYTES]
        text[: len(own)] = torch.frombuffer(bytearray(own), dtype=torch.uint8) if own else 0
        before = torch.tensor(self._before, dtype=torch.int64)
        mine = torch.cat([before.view(torch.uint8), text]).to(self._device)
        rows = [torch.empty_like(mine) for _ in range(self._workers)]
        dist.all_gather(rows, mine, group=self._group)
        told = [row.cpu() for row in rows]
        faults = [(-1 - mark, finder) for finder, mark in enumerate(marks) if _DRIFT < mark < 0]
        if faults:
            raise WireError(
                bytes(told[min(faults)[1]][8 * self._workers :].numpy()).rstrip(b"\0").decode(errors="replace")
            )
        heard = torch.stack([row[: 8 * self._workers].clone().view(torch.int64) for row in told])
        for sender in range(self._workers):
            if bool((heard[:, sender] != heard[0, sender]).any()):
                raise DriftError(
                    f"rank {sender} did not send all ranks the same in the step before, so they are no longer alike: "
                    "find out what is wrong with it, and start all ranks from the last checkpoint"
                )
        raise DriftError("a rank says that it was sent something else than all others, and does not say by whom")

    def _all_to_all(self, rows: Tensor, timeout: timedelta | None = None) -> Tensor:
        mine = rows.contiguous().to(self._device)
        theirs = torch.zeros_like(mine)
        work = dist.all_to_all_single(theirs, mine, group=self._group, async_op=True)
        if timeout is None:
            work.wait()
        else:
            work.wait(timeout)
        return theirs.cpu()


_digest = methodcaller("digest")
_number = partial(int.from_bytes, byteorder="little", signed=True)


def _named(error: RuntimeError) -> TelegradError:
    return error if isinstance(error, TelegradError) else lost(error)


def lost(error: Exception) -> CommunicationError:
    """The error for a collective that did not come about."""
    reason = str(error).strip().splitlines()[0]
    return CommunicationError(
        f"the exchange with the other ranks failed: a worker is lost or the network is down ({reason}); "
        "under torchrun with --max-restarts training goes on from the last checkpoint"
    )
