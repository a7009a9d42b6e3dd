"""A thread of its own for a model's exchanges, so that they run beside the backward pass."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, final

__all__ = ["Conveyor"]

Job = Callable[[], None]
_PATIENCE = 5.0  # seconds


@final
class Conveyor:
    """Does jobs one after the other, in the order they came, on one thread.

    All ranks put the same jobs in the same order, so collectives run in the same order on all ranks; nothing ever waits
    inside a future's callback. The thread starts with the first job; it ends with `close`, or once its `owner` is gone,
    which it does not keep alive.
    """

    def __init__(self, owner: Any) -> None:
        self._queue: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self.put: Callable[[Job], None] = self._start
        """Queue a job, which must not raise."""
        self._threads: list[threading.Thread] = []
        # Also when Python ends: a thread that is then still busy with torch's objects would abort the process.
        self.close = weakref.finalize(owner, _end, self._queue, self._threads)

    def _start(self, job: Job) -> None:
        thread = threading.Thread(target=_work, args=(self._queue,), name="telegrad-exchange", daemon=True)
        self._threads.append(thread)
        thread.start()
        self.put = self._queue.put
        self.put(job)


def _work(jobs: queue.SimpleQueue[Job | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
        del job  # while it waits, the thread holds on to nobody


def _end(jobs: queue.SimpleQueue[Job | None], threads: list[threading.Thread]) -> None:
    """Let the thread do what is queued, and end; one that hangs in an exchange is left to itself."""
    jobs.put(None)
    for thread in threads:
        if thread is not threading.current_thread():
            thread.join(timeout=_PATIENCE)
