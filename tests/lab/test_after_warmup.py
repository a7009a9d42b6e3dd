"""After `telegrad warmup` nothing is left to compile: for any message of the catalogue, and for steps of real ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT / "tests" / "runtime"))  # launch.py

from launch import launch, outputs  # noqa: E402

from torch_has import needs_fsdp  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600), pytest.mark.xdist_group("ddp")]

SPECS = [
    *("auto(bits=1)", "mlmc(stopk(s=0.01, values=sign))", "ef21(topk(k=0.01))", "powersgd(rank=2)", "ecdq(bits=2)"),
    *("eden(bits=1, coder=trellis)", "auto"),
]


def compiled(folder):
    return {path.stem for path in folder.rglob("*.nbc")}


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder of compiled code, as `telegrad warmup` leaves an empty one."""
    folder = tmp_path_factory.mktemp("compiled")
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NUMBA_CACHE_DIR", str(folder))
        patched.setenv("PYTHONPATH", str(ROOT / "src"))
        command = [sys.executable, "-m", "telegrad", "warmup"]
        ran = subprocess.run(command, env=os.environ.copy(), capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert f"{len(compiled(folder))} loops compiled" in ran.stdout
        yield folder


def test_no_message_compiles_anything(warm):
    ran = subprocess.run([sys.executable, HERE / "many_messages.py"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert "0 loops compiled" in ran.stdout, ran.stdout


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_no_step_of_ddp_compiles_anything(spec, dtype, warm):
    check_ranks(warm, HERE / "ddp_steps.py", spec, dtype)


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("fsdp_train.py", "--steps", "3"), marks=needs_fsdp),
        ("outer_train.py", "--steps", "40"),
        ("read_ledger.py",),
    ],
)
def test_no_example_compiles_anything(arguments, warm):
    script, *words = arguments
    check_ranks(warm, ROOT / "examples" / script, *words)


def check_ranks(warm, script, *arguments):
    before = compiled(warm)
    ended = launch(script, 2, *arguments)
    assert all(one.code == 0 for one in ended), outputs(ended)
    assert sorted(compiled(warm) - before) == []
