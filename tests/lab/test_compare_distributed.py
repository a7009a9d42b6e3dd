"""`telegrad compare --distributed`: every process a worker, the records of the simulator."""

import json
import os
import subprocess
import sys

import pytest

from patience import PATIENCE

ARGUMENTS = [
    *("--method", "sgd(mlmc(stopk(s=0.01)))", "--method", "ef21_sgdm(topk(k=0.01))", "--topology", "two_phase"),
    *(
        "--granularity",
        "tensor",
        "--steps",
        "12",
        "--lr",
        "0.1",
        "--lr",
        "0.3",
        "--seeds",
        "1",
        "--evaluate-every",
        "6",
    ),
]


def run(*command):
    # The second variable: PyTorch issue 135712.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    return subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@pytest.mark.xdist_group("ddp")
def test_processes_leave_the_records_of_the_simulator(tmp_path):
    launch = ("torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "telegrad", "compare")
    wire = run(*launch, "--distributed", *ARGUMENTS, "--out", str(tmp_path / "wire"))
    assert wire.returncode == 0, wire.stderr
    assert wire.stdout.count("report:") == 1, "one rank reports"
    simulated = run(
        "telegrad", "compare", "--workers", "2", "--gradients", "loop", *ARGUMENTS, "--out", str(tmp_path / "sim")
    )
    assert simulated.returncode == 0, simulated.stderr
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in ("wire", "sim")]
    for one, other in zip(*(summary["results"] for summary in summaries), strict=True):
        for name in ("method", "lr", "metric_mean", "bits_up_per_worker", "bits_down_per_worker"):
            assert one[name] == other[name], name
    again = run(*launch, "--distributed", *ARGUMENTS, "--out", str(tmp_path / "wire"))
    assert again.returncode == 0, again.stderr
    assert "lr 0.1" not in again.stderr, "finished runs are not repeated"


def test_outside_of_torchrun_it_says_how_to_start():
    ran = run("telegrad", "compare", "--distributed")
    assert ran.returncode == 2
    assert "torchrun --nproc-per-node=4 -m telegrad compare --distributed" in ran.stderr
