"""Work shared out over threads: chunks of a vector, blocks whose sums have one order, and messages side by side.

Compiled loops release the interpreter's lock, so ordinary threads run them, as many as torch is told to use: safe
within backward passes and communication threads, where numba's own threading layers are not.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, TypeVar, overload

import torch

__all__ = ["ONE_CHUNK", "chunks", "each", "in_blocks", "in_chunks", "kept"]

T = TypeVar("T")
R = TypeVar("R")

_SMALLEST_CHUNK = 65536

ONE_CHUNK = 2 * _SMALLEST_CHUNK
"""What has fewer elements, one thread does."""


def chunks(n: int, multiple: int = 1) -> list[tuple[int, int]]:
    """0 … n−1 cut into as many runs of adjacent elements as torch may use threads, each but the last a `multiple` long.

    Small n stay whole: handing over a chunk costs about as much as a pass over some ten thousand elements.
    """
    parts = max(1, min(torch.get_num_threads(), n // _SMALLEST_CHUNK))
    size = -(-n // parts)
    size = -(-size // multiple) * multiple
    return [(start, min(n, start + size)) for start in range(0, n, size)] if n else []


def in_chunks(work: Callable[[int, int, int], Any], n: int, multiple: int = 1) -> list[Any]:
    """[work(number, start, stop) for every chunk of 0 … n−1], side by side; the results in the order of the chunks.

    What is computed must not depend on how n is cut: sums of integers, or writes to places of its own. Within `work`
    and `each` nothing is cut.
    """
    if n < ONE_CHUNK or _within.work:
        return [work(0, 0, n)] if n else []
    return _together([partial(work, number, *chunk) for number, chunk in enumerate(chunks(n, multiple))])


def in_blocks(work: Callable[[int, int], R], n: int, block: int) -> list[R]:
    """[work(start, stop) for every run of `block` of 0 … n−1], side by side, in their order: for sums of floats, which
    are then added in an order that no number of threads changes.
    """
    parts = in_chunks(
        lambda _, start, stop: [work(low, min(stop, low + block)) for low in range(start, stop, block)], n, block
    )
    return [one for part in parts for one in part]


def each(work: Callable[[T], R], items: Sequence[T], size: int) -> list[R]:
    """[work(item) for item in items], of `size` elements in all, by as many threads as torch may use; for messages,
    which have much that cannot be cut. An error is that of the first item that fails.

    Items of fewer than some ten thousand elements are mostly Python's, which one thread does best.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads < 2 or size < _SMALLEST_CHUNK * len(items) or _within.work:
        return list(map(work, items))
    waiting, done = iter(range(len(items))), [None] * len(items)
    failed: dict[int, BaseException] = {}

    def share() -> None:
        for number in waiting:  # one iterator for all threads
            try:
                done[number] = work(items[number])  # type: ignore[call-overload]
            except BaseException as error:
                failed[number] = error
                return

    _together([share] * threads)
    if failed:
        raise failed[min(failed)]
    return done  # type: ignore[return-value]


class kept(cached_property[T]):
    """`functools.cached_property` for what takes long: before Python 3.12 that has one lock for all objects of a class,
    so that the threads of `each` wait for each other.

    Threads that ask the same object at the same time may each compute it.
    """

    @overload
    def __get__(self, instance: None, owner: type[Any] | None = None) -> kept[T]: ...
    @overload
    def __get__(self, instance: object, owner: type[Any] | None = None) -> T: ...
    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        assert self.attrname is not None  # set with the class
        value = instance.__dict__[self.attrname] = self.func(instance)
        return value


class _Within(threading.local):
    """Whether the thread is at work for `in_chunks` or `each` already."""

    work = False


_within = _Within()


def _together(tasks: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of tasks that run side by side, the first of them in this thread."""

    def run(task: Callable[[], Any]) -> Any:
        _within.work = True
        try:
            return task()
        finally:
            _within.work = False

    rest = [_pool(os.getpid()).submit(run, task) for task in tasks[1:]]
    first = run(tasks[0])
    return [first, *(one.result() for one in rest)]


_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


def _pool(process: int) -> ThreadPoolExecutor:
    """The threads of this process: those of a parent do not survive a fork."""
    with _lock:
        if process not in _pools:
            _pools.clear()
            _pools[process] = ThreadPoolExecutor(os.cpu_count() or 1, thread_name_prefix="telegrad")
        return _pools[process]
