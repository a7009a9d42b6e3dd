"""The mean over ranks at half the bytes: numbers are rounded stochastically to bfloat16 on both ways."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor

from telegrad.kernels.quantising.narrowing import narrowed
from telegrad.kernels.threads import in_blocks
from telegrad.random import Key
from telegrad.runtime.group_transport import GroupTransport, lost

__all__ = ["average_in_bfloat16", "in_bfloat16", "sent_bits"]

_PIECE = 16384  # entries whose float64 copies the caches hold


def in_bfloat16(v: Tensor, key: Key) -> Tensor:
    """The flat v rounded stochastically, so that its mean over keys is v; NaN and infinity stay."""
    if v.is_cuda:
        return narrowed(v, torch.bfloat16, key)
    out = torch.empty(len(v), dtype=torch.bfloat16)

    def work(start: int, stop: int) -> None:
        out[start:stop] = narrowed(v[start:stop], torch.bfloat16, key, start)

    in_blocks(work, len(v), _PIECE)
    return out


def average_in_bfloat16(buffer: Tensor, transport: GroupTransport, key: Key) -> None:
    """Make the flat float32 `buffer` the mean over ranks, in place, the same on all of them.

    Every rank is sent a share of all others' numbers, adds them up in float32, and sends the mean of its share to all.
    Both times numbers are rounded stochastically, by this rank's `key`: unbiased, with an error of about 2^−9 of each
    number. Every rank must call this. Raises `CommunicationError` where a rank is lost.
    """
    workers = transport.workers
    share = -(-len(buffer) // workers)
    own = torch.zeros(workers * share, dtype=torch.bfloat16, device=buffer.device)
    own[: len(buffer)] = in_bfloat16(buffer, key.fold(phase="there"))
    got = torch.empty_like(own)
    try:
        dist.all_to_all_single(got.view(torch.uint8), own.view(torch.uint8), group=transport.group)
        mean = got.view(workers, share).float().sum(0).div_(workers)
        dist.all_gather_into_tensor(
            own.view(torch.uint8), in_bfloat16(mean, key.fold(phase="back")).view(torch.uint8), group=transport.group
        )
    except RuntimeError as error:
        raise lost(error) from error
    buffer.copy_(own[: len(buffer)])


def sent_bits(entries: int, workers: int) -> int:
    """Bits that a rank sends, and receives, for a buffer of so many entries."""
    return 2 * (workers - 1) * 16 * -(-entries // workers)
