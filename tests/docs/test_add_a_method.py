"""The methods that docs/extend/method.md spells out work as they stand there."""

import re
from pathlib import Path

import pytest
import torch

import telegrad as tg

TEXT = (Path(__file__).parents[2] / "docs/extend/method.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module", autouse=True)
def defined():
    """Runs the page's programs, and takes what they register out of the registry again."""
    from telegrad.spec import registry

    known = registry.registered("method")
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)):
        names = {"__name__": f"method_page_{number}"}
        exec(compile(program, "method.md", "exec", dont_inherit=True), names)
    yield
    registry.known_by_kind["method"] = known


@pytest.mark.parametrize("topology", ["server", "allgather", "two_phase", "hierarchical(node=2)"])
def test_the_gradient_method_trains_with_a_cohort(topology):
    setting = {"workers": 4, "steps": 60, "lr": 0.2, "topology": topology, "evaluate_every": 60}
    result = tg.simulate("quadratic", "forgetful(topk(k=0.25), share=0.5)", **setting)
    assert result.records[-1]["test"] < 0.2 * result.records[0]["test"]
    messages = {"two_phase": 4 * 2, "hierarchical(node=2)": 1}.get(topology, 2)
    assert result.ledger.messages_up == 60 * messages
    assert sum(result.ledger.gradients) == 60 * 2


def test_the_oracle_method_trains_with_local_steps():
    setting = {"workers": 4, "steps": 40, "lr": 0.1, "evaluate_every": 40}
    result = tg.simulate("quadratic", "local_example(randk(k=0.5), steps=4)", **setting)
    assert result.records[-1]["test"] < 0.2 * result.records[0]["test"]
    assert result.ledger.messages_up == 40 * 4
    assert result.ledger.gradients == [40 * 4] * 4


def test_without_compression_one_local_step_is_sgd():
    setting = {"workers": 4, "steps": 5, "lr": 0.1, "gradients": "loop"}
    runs = [tg.simulate("quadratic", m, **setting) for m in ("local_example(identity, steps=1)", "sgd(identity)")]
    torch.testing.assert_close(runs[0].parameters["x"], runs[1].parameters["x"], rtol=1e-5, atol=1e-6)
