"""The shaped network of benchmarks/network: nothing is left behind, and two measurements do not run at once."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks" / "network"
HOLD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from links import alone, network
with alone(), network(2, 100.0):
    print("up", flush=True)
    time.sleep(600)
"""


def namespaces():
    told = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False)
    return {line.split()[0] for line in told.stdout.splitlines() if line.startswith("tg")}


def started():
    command = [sys.executable, "-c", HOLD, str(FOLDER)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def holder():
    if os.geteuid() != 0 or not shutil.which("ip") or not shutil.which("tc"):
        pytest.skip("network namespaces need root, ip and tc")
    process = started()
    if process.stdout.readline().strip() != "up":
        why = process.communicate()[1].strip().splitlines()[-1]
        pytest.skip(f"no network can be made here: {why}")
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_program_that_is_ended_twice_removes_its_network(holder, ending):
    """`timeout` sends its signal twice: to the program, and to its group."""
    assert len(namespaces()) == 2
    holder.send_signal(ending)
    holder.send_signal(ending)
    assert holder.wait(timeout=120) == 128 + ending
    assert not namespaces()


def test_a_second_program_is_told_to_wait_and_leaves_the_first_alone(holder):
    before = namespaces()
    second = started()
    _, error = second.communicate(timeout=120)
    assert second.returncode == 1
    assert f"process {holder.pid} measures on such a network already" in error
    assert namespaces() == before


def test_what_a_killed_program_left_is_removed_by_the_next(holder):
    before = namespaces()
    holder.kill()
    holder.wait()
    assert namespaces() == before
    after = started()
    assert after.stdout.readline().strip() == "up"
    assert len(namespaces()) == 2
    assert not namespaces() & before
    after.terminate()
    assert after.wait(timeout=120) == 128 + signal.SIGTERM
    assert not namespaces()
