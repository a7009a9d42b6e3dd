"""By how much a call raises the memory in use at its peak."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

__all__ = ["peak_bytes"]


def peak_bytes(call: Callable[[], Any], x: Tensor) -> int | None:
    """By how much a call raises the process's resident memory at its peak, or, for an x on a GPU, what is allocated
    there; None where the system does not tell.
    """
    if x.is_cuda:
        torch.cuda.reset_peak_memory_stats(x.device)
        allocated = torch.cuda.memory_allocated(x.device)
        call()
        return torch.cuda.max_memory_allocated(x.device) - allocated
    status, clear = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    _give_memory_back()
    try:
        clear.write_text("5", encoding="ascii")  # forget the highest resident set so far
        before = _status_kib(status, "VmRSS")
        call()
        return max(0, _status_kib(status, "VmHWM") - before) * 1024
    except (OSError, ValueError):
        call()
        return None


def _give_memory_back() -> None:
    """To the system what earlier calls have left: a call that takes it again would seem to need nothing."""
    with contextlib.suppress(OSError, AttributeError):  # glibc has this function
        ctypes.CDLL(None).malloc_trim(0)


def _status_kib(status: Path, name: str) -> int:
    line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith(name))
    return int(line.split()[1])
