"""Messages and trajectories are what they were when they were recorded."""

import os
import subprocess
import sys

import pytest
from made import COMMAND, FOLDER, MESSAGES, ROUNDING, TRAJECTORIES, entries, messages, recorded, rounding, without_entry

import telegrad as tg

WHAT_TO_DO = f"where that is a fault mended on purpose, name it in the commit and write `{COMMAND} PART_OF_THE_SPEC`"

ROUNDED_BY_TORCH = ("auto", "dct", "demo", "eden", "head_tail", "low_rank", "outer", "powersgd", "refinement", "srht")
"""What looks at rotated or transformed vectors, factors of matrices, or interpolates, all by torch's own arithmetic."""


def skip_where_torch_rounds_otherwise(name):
    if rounding() != recorded(ROUNDING)["torch"] and any(part in name for part in ROUNDED_BY_TORCH):
        pytest.skip("torch's sums round otherwise on this processor, or in this version, than where this was recorded")


@pytest.mark.parametrize("spec", recorded(MESSAGES))
def test_the_bytes_of_messages_are_as_recorded(spec):
    skip_where_torch_rounds_otherwise(spec)
    before, now = recorded(MESSAGES)[spec], messages(tg.compressor(spec))
    for dtype, hashes in before.items():
        differing = set(hashes.split(" ")) ^ set(now[dtype].split(" "))
        assert not differing, f"{spec} {dtype}: {sorted(differing)} changed; {WHAT_TO_DO}"


@pytest.mark.filterwarnings("ignore:.* looks at the shapes of tensors")  # shards and whole models are flat
@pytest.mark.parametrize("run", recorded(TRAJECTORIES))
def test_parameters_and_bits_after_twenty_steps_are_as_recorded(run):
    skip_where_torch_rounds_otherwise(run)
    assert entries()[TRAJECTORIES][run]() == recorded(TRAJECTORIES)[run], f"{run} changed; {WHAT_TO_DO}"


def test_every_example_of_the_catalogue_is_recorded():
    assert not without_entry(), f"`{COMMAND} {without_entry()[0]!r}` adds what is new and keeps all others as they are"


CHANGED = """
from made import MESSAGES, messages, recorded
import telegrad as tg
for spec, before in recorded(MESSAGES).items():
    if messages(tg.compressor(spec)) != before:
        print(spec)
"""


@pytest.mark.parametrize("processor", ["Prescott", "SkylakeX"])
def test_numpys_linear_algebra_for_other_processors_changes_no_byte(processor):
    # The kernels of OpenBLAS for other processors add up in other orders.
    run = subprocess.run(
        [sys.executable, "-c", CHANGED],
        env={**os.environ, "OPENBLAS_CORETYPE": processor, "PYTHONPATH": os.pathsep.join([str(FOLDER), *sys.path])},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert run.returncode == 0, run.stderr
    changed = [spec for spec in run.stdout.splitlines() if not any(part in spec for part in ROUNDED_BY_TORCH)]
    assert not changed
