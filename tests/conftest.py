import os
from contextlib import ExitStack

import pytest
import torch
from hypothesis import settings

from telegrad.kernels import compilation

# Before anything imports triton: where there is no GPU, its kernels run in an interpreter, on the CPU's tensors.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# The same examples on every run and machine, and no stopwatch: a test fails because of what it shows, or not at all.
settings.register_profile("telegrad", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("telegrad")


@pytest.fixture
def disable_numba():
    """A call after which the loops run in the torch and numpy forms that define them."""
    with ExitStack() as until_the_end:
        yield lambda: until_the_end.enter_context(compilation.reference_forms())


@pytest.fixture
def threads():
    """torch.set_num_threads, undone after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
