"""The number of Python calls in a step of DDP's hook, which short vectors' speed depends on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "way_of_a_gradient.py"


@pytest.mark.parametrize(("spec", "most"), [("identity", 140), ("mlmc(stopk(s=0.01, values=sign))", 200)])
def test_a_step_takes_no_more_calls_than_told(spec, most):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, SCRIPT, spec], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = re.match(r".*: (\d+) calls of", done.stdout)
    assert 50 < int(found[1]) <= most
