"""The training script of docs/start.md runs under two processes, and gets what the page promises."""

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "runtime"))  # launch.py

from launch import launch, outputs  # noqa: E402


@pytest.mark.xdist_group("ddp")
def test_the_script_trains_and_sends_a_thirtieth(tmp_path):
    text = (ROOT / "docs" / "start.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"```py\n(.*?)```", text, re.DOTALL)
    (tmp_path / "train.py").write_text(script, encoding="utf-8")
    ended = launch(tmp_path / "train.py", 2)
    assert all(one.code == 0 for one in ended), outputs(ended)
    loss, sent, plain = map(
        float, re.search(r"loss ([\d.]+); (\d+) kB .* instead of (\d+) kB", ended[0].output).groups()
    )
    assert loss < 1.5, "of 2.3 at the start"
    assert 25 < plain / sent < 35
