"""DDP and FSDP2 over gloo: the situations of *_scenarios.py, lost workers, and the examples."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import automatic_scenarios
import ddp_scenarios
import fsdp_scenarios
import pytest
import torch
from launch import check_scenario, launch, outputs

from patience import PATIENCE
from torch_has import needs_fsdp

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("ddp")


@pytest.mark.parametrize(
    ("script", "scenario"),
    [("ddp_scenarios.py", name) for name in ddp_scenarios.SCENARIOS]
    + [pytest.param("fsdp_scenarios.py", name, marks=needs_fsdp) for name in fsdp_scenarios.SCENARIOS]
    + [("automatic_scenarios.py", name) for name in automatic_scenarios.SCENARIOS],
)
def test_scenario(script, scenario):
    check_scenario(script, 2, scenario)


@pytest.mark.parametrize("how", ["exit", "hang"])
def test_a_lost_worker_ends_the_step_with_an_error_within_the_groups_timeout(how):
    ended = launch("lost_worker.py", 3, how, abandoned=(2,))
    for one in ended[:2]:
        assert one.code == 7, outputs(ended)
        assert "a worker is lost or the network is down" in one.output
    # Where it hung, it did so still when the others had ended.
    assert ended[2].code == (-signal.SIGKILL if how == "hang" else 0), outputs(ended)


def torchrun(*arguments, ranks=2, restarts=0):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    # The second variable: PyTorch issue 135712, restarted ranks find the addresses of the lost ones.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    command += [f"--max-restarts={restarts}", *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False)


def test_the_example_trains_and_differs_from_plain_ddp_by_two_lines():
    ran = torchrun(ROOT / "examples/ddp_train.py")
    assert ran.returncode == 0, ran.stderr
    accuracy = [float(x) for x in re.findall(r"accuracy ([\d.]+)%", ran.stdout)]
    assert len(accuracy) == 12
    assert accuracy[-1] > 90
    source = (ROOT / "examples/ddp_train.py").read_text()
    body = source.split('"""')[2]
    assert sum("telegrad" in line for line in body.splitlines()) == 2


def test_after_kill_9_of_a_rank_an_elastic_run_ends_as_if_nothing_had_happened(tmp_path):
    script = ROOT / "examples/ddp_elastic.py"
    whole = torchrun(script, "--folder", tmp_path / "whole")
    killed = torchrun(script, "--folder", tmp_path / "killed", "--kill-at", 25, restarts=1)
    assert whole.returncode == 0, whole.stderr
    assert killed.returncode == 0, killed.stderr
    assert "from step 0 to 40" in whole.stdout
    assert "from step 20 to 40" in killed.stdout
    one, other = (torch.load(tmp_path / run / "final.pt") for run in ("whole", "killed"))
    assert all(torch.equal(one[name], other[name]) for name in one)
