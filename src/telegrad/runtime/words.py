"""What ranks tell each other beside their parcels: how long these are, what they were sent, and what did not fit."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from telegrad.errors import DriftError, WireError

__all__ = ["Words"]

_DRIFT = -(1 << 32)
_TEXT_NBYTES = 512
_PATIENCE = timedelta(seconds=30)  # until the others come to their next exchange


class Words:
    """A rank's words to the others of its group: two numbers to each in every phase, the length of its parcel and a
    hash of all that it was sent alike with the others in the step before.

    Where something does not fit, the length is negative and says whose fault it is: all ranks then gather the reasons,
    and raise the same error, that of the first rank at fault.
    """

    def __init__(self, group: dist.ProcessGroup | None, device: torch.device) -> None:
        self._group, self._device, self._workers = group, device, dist.get_world_size(group)
        self._heard = [hashlib.blake2b(digest_size=8) for _ in range(self._workers)]
        self._before = self._now()
        self._drifted = False

    def begin(self) -> None:
        """Enter a step: what was noted so far is what ranks compare from now on."""
        self._before = self._now()

    def _now(self) -> list[int]:
        return [_number(one.digest()) for one in self._heard]

    def note(self, received: Sequence[bytes | memoryview]) -> None:
        """What all ranks should have been sent alike, by sender."""
        for heard, data in zip(self._heard, received, strict=True):
            heard.update(len(data).to_bytes(8, "little"))
            heard.update(data)

    def exchange(self, lengths: Sequence[int]) -> list[int]:
        """How long the others' parcels will be. Raises what a rank has told of a fault."""
        own = _number(hashlib.blake2b(repr(self._before).encode(), digest_size=8).digest())
        found = self._all_to_all(torch.tensor([[length, own] for length in lengths], dtype=torch.int64))
        marks = found[:, 0].tolist()
        if any(mark == _DRIFT or -self._workers <= mark < 0 for mark in marks):
            self._raise(marks, "")
        self._drifted = bool((found[:, 1] != own).any())
        return marks

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


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little", signed=True)
