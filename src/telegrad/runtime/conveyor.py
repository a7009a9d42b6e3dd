"""A thread of its own for a model's exchanges, so that they run beside the backward pass."""

from __future__ import annotations

import contextlib
import queue
import threading
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from telegrad.runtime.pieces import Part

__all__ = ["Conveyor", "Load", "Shipper"]


@dataclass
class Load:
    """A bucket of gradients: a flat buffer that the estimate will overwrite, and the parameters that lie in it.

    `future` is fulfilled with the buffer once the whole step is through, since only then it is known that no gradient
    of it was bad.
    """

    buffer: Tensor
    parts: tuple[Part, ...]
    last: bool
    future: torch.futures.Future[Tensor] = field(init=False)
    ready: Any = field(init=False, default=None)

    def __post_init__(self) -> None:
        on_gpu = self.buffer.is_cuda
        self.future = torch.futures.Future(devices=[self.buffer.device] if on_gpu else None)
        if on_gpu:
            self.ready = torch.cuda.current_stream(self.buffer.device).record_event()


class Shipper(Protocol):
    """Who exchanges what arrives."""

    def ship(self, loads: list[Load], start: bool) -> None:
        """Exchange the newest of the `loads` of a step so far; `start`: it is the step's first."""


class Conveyor:
    """Hands the loads of a step, in the order they came, to a shipper.

    All ranks put the same loads in the same order, and one thread takes them, so collectives run in the same order on
    all ranks; nothing ever waits inside a future's callback. An error goes to all futures of the step, and to those of
    every later one: the ranks are no longer in step.
    """

    def __init__(self, shipper: Shipper) -> None:
        self._shipper = shipper
        self._queue: queue.SimpleQueue[Load] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def put(self, load: Load) -> None:
        """Queue a load."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="telegrad-exchange", daemon=True)
            self._thread.start()
        self._queue.put(load)

    def _run(self) -> None:
        error: BaseException | None = None
        loads: list[Load] = []
        while True:
            load = self._queue.get()
            loads.append(load)
            with _stream_after(load):
                if error is None:
                    try:
                        self._shipper.ship(loads, len(loads) == 1)
                    except BaseException as caught:
                        error = caught
                if error is not None:
                    for failed in loads:
                        failed.future.set_exception(error)  # type: ignore[arg-type]
                    loads = []
                elif load.last:
                    for done in loads:
                        done.future.set_result(done.buffer)
                    loads = []


def _stream_after(load: Load) -> contextlib.AbstractContextManager[Any]:
    """A side stream that waits for the load's gradients, on a GPU; nothing elsewhere."""
    if load.ready is None:
        return contextlib.nullcontext()
    stream = torch.cuda.Stream(load.buffer.device)
    stream.wait_event(load.ready)
    return torch.cuda.stream(stream)
