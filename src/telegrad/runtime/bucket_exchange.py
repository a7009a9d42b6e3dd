"""A model's buckets of gradients: queued as they come, exchanged beside the backward pass, and written back."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections import deque
from dataclasses import dataclass
from functools import partial
from typing import Any, final

import torch
from torch import Tensor
from torch.autograd import Variable

from telegrad.errors import CommunicationError, ConfigError, NonFiniteError
from telegrad.methods.sgd import SGD
from telegrad.runtime.agreement import check_no_drift
from telegrad.runtime.comm_hook import Load
from telegrad.runtime.conveyor import Conveyor
from telegrad.runtime.exchange import Exchange, Running
from telegrad.runtime.exchanged_gradients import BadSteps, WastedPasses
from telegrad.runtime.memory import memory_of
from telegrad.runtime.meter import Meter, reading
from telegrad.runtime.pieces import Piece

__all__ = ["BucketExchange"]


@dataclass(frozen=True, eq=False)
class _Sent:
    """Pieces whose messages are on their way: their gradients, by parameter and as vectors, which the estimates will
    overwrite; and by how much the loss was scaled.
    """

    running: Running
    pieces: list[Piece]
    views: list[list[Tensor]]
    vectors: list[Tensor]
    scale: float


@final
class BucketExchange:
    """Takes the buckets of a model's gradients, exchanges on a thread of its own the pieces that are complete, and
    overwrites them with the estimates of their means.

    `exchange`: the method along its topology. `parameters`: those that are exchanged, by name. `step`: the number of
    the present step. `left_out`: whether backward passes exchange nothing. `error`: what ended all exchange; it goes to
    the futures of its step and of every later one, since the ranks are no longer in step. `skips`: whether buckets may
    be left out, the last among them.
    """

    def __init__(
        self,
        exchange: Exchange,
        parameters: dict[str, torch.nn.Parameter],
        pieces: list[Piece],
        meter: Meter,
        optimizer: torch.optim.Optimizer | None,
        grad_scaler: torch.amp.GradScaler | None,
        check_every: int,
        error_every: int,
        skips: bool,
    ) -> None:
        self.exchange, self.parameters, self.pieces, self.meter = exchange, parameters, pieces, meter
        self.check_every, self.error_every = check_every, error_every
        self.step, self.left_out = 0, False
        self.error: BaseException | None = None
        self._optimizer, self._grad_scaler, self._skips = optimizer, grad_scaler, skips
        self._piece_of: dict[Tensor, int] = {
            parameters[part.name]: number for number, piece in enumerate(pieces) for part in piece.parts
        }
        self._queue = Conveyor(self)
        own, remembers = self._piece_of, any(memory_of(exchange, parameters)["worker"].values())
        self._wasted = WastedPasses(list(parameters.values()), str(exchange.method) if remembers else None)
        self.bad_steps = BadSteps(own.keys, self._wasted.used)
        self._parts = [len(piece.parts) for piece in pieces]
        self._first, self._through = True, threading.Event()
        # Of the thread:
        self._views: dict[Tensor, Tensor] = {}
        self._loads: list[Load] = []
        self._missing: list[int] = []
        self._room: dict[str, Tensor] = {}
        self._under_way: deque[_Sent] = deque()
        self._stream: Any = None

    # In the backward pass.

    def begins(self, last: bool) -> bool:
        """Whether the next bucket is the first of its step; `last`: whether it is the last, too."""
        first, self._first = self._first, last
        if first:
            self.bad_steps.begin()
        return first

    def take(self, load: Load) -> None:
        """Queue a bucket."""
        if self.left_out:
            load.future.set_result(load.buffer)
            return
        first = self.begins(load.last)
        if first:
            self._through = threading.Event()
        if first if self._skips else load.last:
            # A future hands its error on as a bare RuntimeError; a callback at the end of backward raises it as it is.
            with contextlib.suppress(RuntimeError):  # outside of a backward pass, as for ranks that have joined
                Variable._execution_engine.queue_callback(self._after_backward)
        if load.last:
            self._wasted.handed_over()
        self._queue.put(partial(self._ship, load))

    def _after_backward(self) -> None:
        if not self._first:  # DDP skipped the bucket that would have been the last
            self._first = True
            self._wasted.handed_over()
            self._queue.put(self._end)
        self._through.wait()
        if self.error is not None:  # a copy: the error itself must not get a traceback, which would hold the model
            raise copy.copy(self.error) from self.error
        Variable._execution_engine.queue_callback(self._after_write_back)  # DDP hands the gradients out in between

    def _after_write_back(self) -> None:
        bad = self.bad_steps.newest
        self._wasted.written(bad)
        if bad:
            self.bad_steps.mark(self.parameters.values())

    # On the thread.

    def _ship(self, load: Load) -> None:
        """Exchange what has become complete, and fulfil the promises at the end of a step."""
        self._loads.append(load)
        with contextlib.nullcontext() if load.ready is None else self._stream_after(load):
            if self.error is None:
                try:
                    self._send_complete(load)
                except BaseException as error:
                    self.error = error
            if load.last or self.error is not None:
                self._end()

    def _stream_after(self, load: Load) -> contextlib.AbstractContextManager[Any]:
        """A stream of the thread's own that waits for the load's gradients on a GPU."""
        if self._stream is None:
            self._stream = torch.cuda.Stream(load.buffer.device)
        self._stream.wait_event(load.ready)
        return torch.cuda.stream(self._stream)

    def _send_complete(self, load: Load) -> None:
        """Send what the gradients of the pieces that are complete with this bucket are compressed to."""
        if len(self._loads) == 1:
            self._begin()
        self._views.update(load.views)
        ready = []
        for parameter in load.views:
            number = self._piece_of[parameter]
            self._missing[number] -= 1
            if not self._missing[number]:
                ready.append(number)
        if ready and not self.bad_steps.newest:
            self._under_way.append(self._send([self.pieces[number] for number in sorted(ready)]))
        # While the newest messages travel, those before are decoded; never by the clock, so that all ranks do the same.
        self._write_back_all_but(1)

    def _begin(self) -> None:
        exchange = self.exchange
        self._missing = list(self._parts)
        if self.check_every and self.step % self.check_every == 0:
            check_no_drift(exchange.transport, self.parameters, self.step)
        every = self.error_every if isinstance(exchange.method, SGD) else 0
        exchange.measures = (bool(every) and self.step % every == 0) or exchange.errors is not None
        if exchange.measures:
            exchange.error = (0.0, 0.0)
        exchange.begin(self.step, float(self._optimizer.param_groups[0]["lr"]) if self._optimizer else 1.0)

    def _send(self, pieces: list[Piece]) -> _Sent:
        scale = float(self._grad_scaler.get_scale()) if self._grad_scaler is not None else 1.0
        views, vectors, sent = [], [], []
        for piece in pieces:
            own = [self._views[self.parameters[part.name]] for part in piece.parts]
            vector = self.joined(piece, own)
            views.append(own)
            vectors.append(vector)
            taken = vector if vector.is_cpu else self.exchange.placed(vector)
            sent.append(taken if scale == 1.0 else taken / scale)
        return _Sent(self.exchange.start(pieces, [sent], overwrite=True), pieces, views, vectors, scale)

    def joined(self, piece: Piece, views: list[Tensor]) -> Tensor:
        """The piece's gradients as one vector, each in the logical order of its entries, whatever its memory format:
        DDP's buffer itself where they lie in it in this order, else a copy.
        """
        if _one_behind_the_other(views):
            return views[0].as_strided((piece.numel,), (1,))
        if piece.name not in self._room:
            self._room[piece.name] = torch.empty(piece.numel, dtype=views[0].dtype, device=views[0].device)
        return torch.cat([view.reshape(-1) for view in views], out=self._room[piece.name])

    def _write_back_all_but(self, newest: int) -> None:
        while len(self._under_way) > newest:
            try:
                self._write_back(self._under_way.popleft())
            except NonFiniteError as error:
                self.bad_steps.add(self.step, error)

    def _write_back(self, sent: _Sent) -> None:
        """Overwrite the gradients of pieces with the estimates of their means."""
        estimates = sent.running.finish()
        for piece, views, vector, estimate in zip(sent.pieces, sent.views, sent.vectors, estimates, strict=True):
            found = estimate if sent.scale == 1.0 else estimate * sent.scale
            if vector is self._room.get(piece.name):
                for view, part in zip(views, found.split(piece.sizes), strict=True):
                    view.copy_(part.view(view.shape))
            elif found.data_ptr() != vector.data_ptr():
                vector.copy_(found)

    def _end(self) -> None:
        """The end of a step, of which all that DDP hands over has come."""
        if self.error is None:
            try:
                self._finish()
            except BaseException as error:
                self.error = error
        for one in self._loads:
            if self.error is None:
                one.future.set_result(one.buffer)
            else:  # not the error itself: DDP keeps the future, and a traceback would keep the model alive with it
                one.future.set_exception(CommunicationError(str(self.error)))  # type: ignore[arg-type]
        self._loads, self._views = [], {}
        self._through.set()

    def _finish(self) -> None:
        self._write_back_all_but(0)
        for missing, piece in zip(self._missing, self.pieces, strict=True):
            if 0 < missing < len(piece.parts):  # a piece of which nothing came is one that no rank used
                names = ", ".join(part.name for part in piece.parts if self.parameters[part.name] not in self._views)
                raise ConfigError(
                    f"DDP did not hand over {names}, a part of {piece.name}, which is compressed as a whole: with "
                    'skip_all_reduce_unused_params=True write granularity="tensor"'
                )
        ledger, bad_steps = self.exchange.ledger, self.bad_steps
        ledger.skipped_steps = bad_steps.count
        if bad_steps.newest:
            for load in self._loads:
                load.buffer.fill_(torch.inf)
        else:
            self.exchange.commit()
        ledger.steps += 1
        self.step += 1
        self.meter.end_step(reading([self.exchange], self.step, bad_steps.count))

    def close(self) -> None:
        """End the thread, and what watches optimizers and parameters."""
        self._queue.close()
        if self.bad_steps.newest:  # no optimizer is told any more
            for parameter in self.parameters.values():
                parameter.grad = None
        self.bad_steps.close()
        self._wasted.close()


def _one_behind_the_other(views: list[Tensor]) -> bool:
    """Whether these tensors lie in one storage, each in its logical order, with nothing in between.

    What is next to each other in memory may be of different storages.
    """
    storage, place = views[0].untyped_storage().data_ptr(), views[0].storage_offset()
    for view in views:
        if view.storage_offset() != place or not view.is_contiguous():
            return False
        if view.untyped_storage().data_ptr() != storage:
            return False
        place += view.numel()
    return True
