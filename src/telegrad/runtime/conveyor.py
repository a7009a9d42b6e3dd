"""A thread of its own for a model's exchanges, so that they run beside the backward pass."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd import Variable

__all__ = ["Conveyor", "Load", "Shipper"]


@dataclass
class Load:
    """A bucket of gradients: a flat buffer, which the estimate will overwrite, and its views by parameter.

    `future` is fulfilled with the buffer once the whole step is through, since only then it is known that no gradient
    of it was bad.
    """

    buffer: Tensor
    views: Mapping[str, Tensor]
    last: bool
    future: torch.futures.Future[Tensor] = field(init=False)
    through: threading.Event = field(init=False, default_factory=threading.Event)
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
        self._error: BaseException | None = None

    def put(self, load: Load) -> None:
        """Queue a load."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="telegrad-exchange", daemon=True)
            self._thread.start()
        if load.last:
            # A future hands its error on as a bare RuntimeError; a callback at the end of backward raises it as it is.
            with contextlib.suppress(RuntimeError):  # outside of a backward pass, as for ranks that have joined
                Variable._execution_engine.queue_callback(lambda: self._raise_after(load))
        self._queue.put(load)

    def _raise_after(self, load: Load) -> None:
        load.through.wait()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        loads: list[Load] = []
        while True:
            load = self._queue.get()
            loads.append(load)
            with _stream_after(load):
                if self._error is None:
                    try:
                        self._shipper.ship(loads, len(loads) == 1)
                    except BaseException as error:
                        self._error = error
                if load.last or self._error is not None:
                    for one in loads:
                        if self._error is None:
                            one.future.set_result(one.buffer)
                        else:
                            one.future.set_exception(self._error)  # type: ignore[arg-type]
                        one.through.set()
                    loads = []


def _stream_after(load: Load) -> contextlib.AbstractContextManager[Any]:
    """A side stream that waits for the load's gradients, on a GPU; nothing elsewhere."""
    if load.ready is None:
        return contextlib.nullcontext()
    stream = torch.cuda.Stream(load.buffer.device)
    stream.wait_event(load.ready)
    return torch.cuda.stream(stream)
