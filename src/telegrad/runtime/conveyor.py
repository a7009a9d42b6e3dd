"""A thread of its own for a model's exchanges, so that they run beside the backward pass."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, final

__all__ = ["Conveyor"]

Job = Callable[[], None]


@final
class Conveyor:
    """Does jobs one after the other, in the order they came, on one thread.

    All ranks put the same jobs in the same order, so collectives run in the same order on all ranks; nothing ever waits
    inside a future's callback. The thread starts with the first job; it ends with `close`, or once its `owner` is gone,
    which it does not keep alive.
    """

    def __init__(self, owner: Any) -> None:
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._end = weakref.finalize(owner, self._queue.put, None)
        self._end.atexit = False

    def put(self, job: Job) -> None:
        """Queue a job, which must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=_work, args=(self._queue,), name="telegrad-exchange", daemon=True)
            self._thread.start()
        self._queue.put(job)

    def close(self) -> None:
        """Do what is queued, and end the thread."""
        self._end()
        if self._thread is not None:
            self._thread.join()


def _work(jobs: queue.SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # while it waits, the thread holds on to nobody
