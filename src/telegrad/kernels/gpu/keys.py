"""Histograms of magnitudes and windows of ranks on a GPU: only counts and the indices of what is selected leave it."""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from telegrad.kernels.gpu.launching import BLOCK, launch, write_chosen
from telegrad.kernels.selection.keys import INTEGERS, first_bits

__all__ = ["Keys", "keys_of"]

_COPIES = 8  # of the counts, so that programs do not wait for each other at a common bin


@triton.jit(do_not_specialize=["low", "high", "shift", "bins"])
def _count(  # type: ignore[no-untyped-def]
    keys, n, mask: tl.int64, low: tl.int64, high: tl.int64, shift, bins, counts, sums,
    COPIES: tl.constexpr, SUMS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    program = tl.program_id(0).to(tl.int64)
    i = program * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + i, mask=i < n, other=0).to(tl.int64) & mask
    inside = (i < n) & (key >= low) & (key <= high)
    number = (key - low) >> shift
    row = (program % COPIES) * bins
    # Entries in the bin of the block's first one are added up beforehand: a tensor of equal numbers would make all
    # programs wait for one place.
    first = ((tl.load(keys + program * BLOCK).to(tl.int64) & mask) - low) >> shift
    alike = inside & (number == first)
    count = tl.sum(alike.to(tl.int32))
    tl.atomic_add(counts + row + first, count, mask=count > 0, sem="relaxed")
    tl.atomic_add(counts + row + number, 1, mask=inside & (number != first), sem="relaxed")
    if SUMS:
        below = (key - low) - (number << shift)
        total = tl.sum(tl.where(alike, below, 0))
        tl.atomic_add(sums + row + first, total, mask=count > 0, sem="relaxed")
        tl.atomic_add(sums + row + number, below, mask=inside & (number != first), sem="relaxed")


@triton.jit(do_not_specialize=["first", "first_ties", "last", "last_ties", "room"])
def _window(  # type: ignore[no-untyped-def]
    keys, n, mask: tl.int64, first: tl.int64, first_ties: tl.int64, last: tl.int64, last_ties: tl.int64,
    numbers, out, room, WRITE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Of a block: how many keys lie between the two, and how many are each of them; or the indices of the wanted."""
    program = tl.program_id(0).to(tl.int64)
    i = program * BLOCK + tl.arange(0, BLOCK)
    key = tl.load(keys + i, mask=i < n, other=0).to(tl.int64) & mask
    wanted = (i < n) & (key <= first) & (key >= last)
    firsts = (wanted & (key == first)).to(tl.int32)
    lasts = (wanted & (key == last)).to(tl.int32)
    row = numbers + program * 3
    if WRITE:
        tie_of_first = tl.load(row + 1) + tl.cumsum(firsts, 0) - firsts
        tie_of_last = tl.load(row + 2) + tl.cumsum(lasts, 0) - lasts
        wanted = wanted & ((key != first) | (tie_of_first >= first_ties)) & ((key != last) | (tie_of_last < last_ties))
        write_chosen(wanted, i, tl.load(row), out, room)
    else:
        tl.store(row, tl.sum((wanted & (key < first) & (key > last)).to(tl.int32)))
        tl.store(row + 1, tl.sum(firsts))
        tl.store(row + 2, tl.sum(lasts))


class Keys:
    """A vector's magnitudes as integers of `bits` bits, and the passes over them, as the CPU's `Keys`."""

    exact = True

    def __init__(self, v: Tensor) -> None:
        self.dtype, self._plain, self._n = v.dtype, v.detach().view(INTEGERS[v.dtype]), len(v)
        self.bits, self.width = 8 * v.element_size() - 1, first_bits(v)
        self.shift, self._mask = self.bits - self.width, (1 << self.bits) - 1
        self._programs = -(-self._n // BLOCK)

    def counted(self, low: int, shift: int, within: int | None = None) -> np.ndarray:
        """The counts of key >> shift; of only the keys from `low` on to low + 2^within − 1, relative to low."""
        return self._tables(low, shift, self.bits if within is None else within, sums=False)[:, 0]

    def counted_with_offsets(self) -> np.ndarray:
        """The counts of the keys' first bits and the sums of what is below these, int64, shape (bins, 2)."""
        return self._tables(0, self.shift, self.bits, sums=True)

    def _tables(self, low: int, shift: int, within: int, sums: bool) -> np.ndarray:
        bins, copies = 1 << (within - shift), _COPIES if self._programs > _COPIES else 1
        tables = torch.zeros((1 + sums, copies, bins), dtype=torch.int64, device=self._plain.device)
        high = low + (1 << within) - 1
        launch(
            _count, self._programs, self._plain, self._n, self._mask, low, high, shift, bins, tables[0], tables[-1],
            COPIES=copies, SUMS=sums, BLOCK=BLOCK,
        )  # fmt: skip
        return np.ascontiguousarray(tables.sum(1).cpu().numpy().T)

    def collected(self, low: int, high: int, most: int) -> tuple[np.ndarray, None]:
        """The indices of the entries with keys from low to high, of which there are `most`; their keys stay."""
        return self.window((high, 0), (low, self._n), most).numpy(), None

    def window(self, first: tuple[int, int], last: tuple[int, int], count: int) -> Tensor:
        """The indices, increasing, of the `count` entries that are ranked before `last`, and not before `first`: each
        (key, ties) stands for all larger keys and the first `ties` of the entries with that one.
        """
        numbers = torch.empty((self._programs, 3), dtype=torch.int64, device=self._plain.device)
        out = torch.empty(count, dtype=torch.int64, device=self._plain.device)
        for write in (False, True) if count else ():
            launch(
                _window, self._programs, self._plain, self._n, self._mask, *first, *last, numbers, out, count,
                WRITE=write, BLOCK=BLOCK,
            )  # fmt: skip
            if not write:
                numbers = _starts(numbers, first, last)
        return out.cpu()


def keys_of(v: Tensor) -> Keys:
    """The passes over v's magnitudes."""
    return Keys(v)


def _starts(counts: Tensor, first: tuple[int, int], last: tuple[int, int]) -> Tensor:
    """From the counts of each block: the place of its first wanted entry, and the numbers of its first ties."""
    ends = counts.cumsum(0)
    starts = ends - counts
    if first[0] == last[0]:
        ties = ends[:, 1].clamp(max=last[1]) - starts[:, 1].clamp(min=first[1])
        wanted = counts[:, 0] + ties.clamp(min=0)
    else:
        of_first = ends[:, 1] - starts[:, 1].clamp(min=first[1])
        of_last = ends[:, 2].clamp(max=last[1]) - starts[:, 2]
        wanted = counts[:, 0] + of_first.clamp(min=0) + of_last.clamp(min=0)
    starts[:, 0] = wanted.cumsum(0) - wanted
    return starts
