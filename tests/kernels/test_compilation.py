"""Sharing loops out over threads."""

import importlib
import itertools
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from patience import PATIENCE
from telegrad.errors import TelegradWarning
from telegrad.kernels import compilation
from telegrad.kernels.compilation import Loop
from telegrad.kernels.threads import chunks, each, in_chunks, kept


@pytest.mark.parametrize("n", [0, 1, 65535, 131072, 1_000_003])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_chunks_cover_everything_once_and_obey_torchs_number_of_threads(n, count, threads):
    threads(count)
    cut = chunks(n, multiple=64)
    assert [i for start, stop in cut for i in (start, stop)] == sorted(i for pair in cut for i in pair)
    assert sum(stop - start for start, stop in cut) == n
    assert len(cut) <= count
    assert all(start % 64 == 0 for start, _ in cut)
    assert len(chunks(65535)) == 1, "small arrays stay whole"


def test_results_come_in_the_order_of_the_chunks_and_errors_come_out(threads):
    threads(2)
    assert in_chunks(lambda number, start, stop: (number, start, stop), 1 << 20) == [
        (0, 0, 1 << 19),
        (1, 1 << 19, 1 << 20),
    ]
    barrier = threading.Barrier(2, timeout=PATIENCE)  # passes only if both chunks run side by side
    in_chunks(lambda *_: barrier.wait(), 1 << 20)
    with pytest.raises(ZeroDivisionError):
        in_chunks(lambda number, *_: 1 // (1 - number), 1 << 20)


def test_what_is_kept_is_made_once_an_object_and_side_by_side_for_several(threads):
    threads(2)
    barrier, made = (
        threading.Barrier(2, timeout=PATIENCE),
        [],
    )  # passes only if both objects make theirs at the same time

    class Maker:
        @kept
        def place(self):
            barrier.wait()
            made.append(self)
            return [self]

    makers = [Maker(), Maker()]
    assert each(lambda one: one.place, makers, 1 << 20) == [[one] for one in makers]
    assert len(made) == 2
    assert makers[0].place is makers[0].place
    assert len(made) == 2
    assert isinstance(Maker.place, kept)


@pytest.mark.parametrize("count", [1, 3])
def test_items_are_worked_on_in_any_thread_and_their_results_are_in_order(count, threads):
    threads(count)
    items = list(range(20))

    def work(item):
        # Within an item nothing is cut, so that threads never wait for threads.
        return item, in_chunks(lambda *chunk: chunk, 1 << 20), each(abs, [-item, item], 1 << 20)

    whole = [(0, 0, 1 << 20)] if count > 1 else in_chunks(lambda *chunk: chunk, 1 << 20)
    assert each(work, items, 1 << 24) == [(item, whole, [item, item]) for item in items]
    assert len(in_chunks(lambda *chunk: chunk, 1 << 20)) == count, "afterwards all is as before"
    assert each(abs, [], 0) == []


def test_long_items_run_side_by_side_and_short_ones_do_not(threads):
    threads(2)
    barrier = threading.Barrier(2, timeout=PATIENCE)
    each(lambda _: barrier.wait(), [0, 1], 1 << 20)  # passes only if both run at once
    here = threading.get_ident()
    assert each(lambda _: threading.get_ident(), [0, 1, 2], 3000) == [here] * 3


def test_the_error_is_that_of_the_first_item_that_fails(threads):
    threads(2)

    def work(item):
        if item >= 3:
            raise ValueError(f"item {item}")
        return item

    with pytest.raises(ValueError, match="item 3"):
        each(work, list(range(8)), 1 << 20)
    assert each(work, [0, 1, 2], 1 << 20) == [0, 1, 2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_makes_threads_of_its_own(threads):
    threads(2)
    in_chunks(lambda *_: None, 1 << 20)
    child = os.fork()
    if child == 0:
        done = in_chunks(lambda number, *_: number, 1 << 20) == [0, 1]
        os._exit(0 if done else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_without_numba_the_reference_runs_and_that_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "numba", None)
    compilation._numba.cache_clear()
    try:
        with pytest.warns(TelegradWarning, match="numba is not installed"):
            assert Loop(lambda: "compiled", lambda: "reference")() == "reference"
    finally:
        compilation._numba.cache_clear()


def test_what_is_cached_is_out_of_date_when_a_helper_in_another_file_changes(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "loops_of_this_test.py").write_text(
        "from helpers_of_this_test import helped\n\n\ndef scalar(x):\n    return helped(x)\n"
    )

    def answer(body):
        (tmp_path / "helpers_of_this_test.py").write_text(f"def helped(x):\n    return {body}\n")
        for name in ("loops_of_this_test", "helpers_of_this_test"):
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        loops = importlib.import_module("loops_of_this_test")
        return Loop(loops.scalar, loops.scalar, uses=[loops.helped])(20)

    assert answer("x + 1") == 21
    assert answer("x * 2 + 1") == 41


def test_threads_that_call_a_loop_first_share_one_compiled_form(monkeypatch):
    """A second form would take the place of the first while another thread is in it: the process would crash."""
    numbers, start, both = itertools.count(), threading.Barrier(2), threading.Barrier(2)

    def slowly(numba, scalar):
        number = next(numbers)
        both.wait()  # until the other thread has come here, too
        return lambda x: number

    monkeypatch.setattr(compilation, "cached", slowly)
    loop = compilation.Loop(lambda x: x + 1, lambda x: x + 1)

    def call(x):
        start.wait()
        return loop(x)

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(call, (1, 2))
    assert first == second == loop(3)
