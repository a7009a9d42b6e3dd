"""Accelerate, Lightning and the Transformers Trainer, as two real processes each, against plain DDP."""

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from launch import launch, outputs

import telegrad as tg
from telegrad.adapters.attach import load_rank, save_rank
from torch_has import needs_fsdp

HERE = Path(__file__).parent
METRICS = {"comm/bits_up", "comm/bits_down", "comm/ratio", "comm/encode_ms", "comm/wait_ms", "comm/skipped"}
pytestmark = pytest.mark.xdist_group("ddp")


def said(script, *arguments):
    """What the two ranks say."""
    ended = launch(HERE / script, 2, *arguments)
    assert all(one.code == 0 for one in ended), outputs(ended)
    return [json.loads(one.output.splitlines()[-1]) for one in ended]


def check_training(told):
    assert told["identity"], "without loss, the parameters are those of plain DDP, bit for bit"
    assert told["resumed"], "a run resumed from the framework's checkpoint ends as the uninterrupted one, bit for bit"
    plain, _, auto = told["losses"]
    assert auto < 1.5 * plain + 0.05


def check_metrics(logged):
    assert set(logged) - {"comm/omega"} == METRICS
    assert 3 < logged["comm/ratio"] < 9, "auto(bits=4) sends about an eighth of 32 bits an entry, and headers"
    assert logged["comm/encode_ms"] > 0
    assert 0 < logged["comm/omega"] < 0.2
    assert logged["comm/skipped"] == 0


@pytest.mark.timeout(1200)
def test_accelerate(tmp_path):
    pytest.importorskip("accelerate", reason="Accelerate is not installed: pip install 'telegrad[accelerate]'")
    for rank, told in enumerate(said("accelerate_ranks.py", tmp_path)):
        assert set(told["tracked"]) - {"comm/omega"} == (METRICS if rank == 0 else set())
        check_training(told)
        check_metrics(told["logged"])
        assert told["late"], "attached after prepare it is the same"
        assert told["files"] == ["telegrad-rank0.pt", "telegrad-rank1.pt"]
        assert told["accumulated steps"] == [2, 8], "four passes are accumulated before an exchange"


@pytest.mark.timeout(1200)
def test_lightning(tmp_path):
    pytest.importorskip("lightning", reason="Lightning is not installed: pip install 'telegrad[lightning]'")
    told = said("lightning_ranks.py", tmp_path)
    for one in told:
        check_training(one)
    assert set(told[0]["logged"].split(",")) >= METRICS


@pytest.mark.timeout(1200)
def test_the_transformers_trainer(tmp_path):
    pytest.importorskip("accelerate", reason="the Trainer needs Accelerate: pip install 'telegrad[accelerate]'")
    for rank, told in enumerate(said("transformers_ranks.py", tmp_path)):
        check_training(told)
        if rank == 0:
            check_metrics(told["logged"])
        assert told["files"] == ["telegrad-rank0.pt", "telegrad-rank1.pt"]


@needs_fsdp
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("framework", ["accelerate", "trainer"])
def test_fsdp2_of_a_framework(framework, tmp_path):
    pytest.importorskip("accelerate", reason="Accelerate is not installed: pip install 'telegrad[accelerate]'")
    for told in said("fsdp2_ranks.py", framework, tmp_path):
        check_training(told)
        check_metrics(told["logged"])
        assert told["files"] == ["telegrad-rank0.pt", "telegrad-rank1.pt"]
        assert told["before"] == "DistributedType.MULTI_CPU", "Accelerate shards on CPU by itself now: drop the helper"


def test_one_process_does_nothing_and_says_so():
    model = torch.nn.Linear(2, 2)
    with pytest.warns(tg.TelegradWarning, match="one process, which exchanges no gradients"):
        assert tg.attach(model, "auto(bits=1)") is None


def test_accelerate_in_one_process_trains_as_without(tmp_path):
    pytest.importorskip("accelerate", reason="Accelerate is not installed: pip install 'telegrad[accelerate]'")
    script = (
        "import torch, accelerate, telegrad\n"
        "a = accelerate.Accelerator(cpu=True)\n"
        "attached = telegrad.accelerate.attach(a, 'topk(k=1)')\n"
        "model = a.prepare(torch.nn.Linear(2, 2))\n"
        "assert attached.handle is None and attached.metrics() == {}\n"
        "a.save_state(str(__import__('pathlib').Path('state')))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert len(re.findall("one process, which exchanges no gradients", ran.stderr)) == 1


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda data: b"", "it is empty"),
        (lambda data: data[: len(data) // 2], "it is damaged"),
        (lambda data: b"version https://git-lfs.github.com/spec/v1\n", "it is a git-lfs pointer"),
    ],
)
def test_a_damaged_state_in_a_checkpoint_is_named(damage, reason, tmp_path, monkeypatch):
    class Handle:
        def state_dict(self):
            return {"memory": torch.arange(1000.0)}

        def load_state_dict(self, state):
            assert torch.equal(state["memory"], torch.arange(1000.0))

    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    save_rank(Handle(), tmp_path)
    assert load_rank(Handle(), tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(tg.DataError, match=rf"cannot read .*telegrad-rank1\.pt: {reason}.*starts anew"):
        load_rank(Handle(), tmp_path)


def test_unfit_calls_are_refused_with_what_to_write():
    accelerate = pytest.importorskip("accelerate", reason="Accelerate is not installed")
    from accelerate.utils import DDPCommunicationHookType, DistributedDataParallelKwargs

    with pytest.raises(tg.InputError, match=r"an accelerate\.Accelerator is wanted"):
        tg.accelerate.attach(torch.nn.Linear(2, 2), "topk(k=1)")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        settings = DistributedDataParallelKwargs(comm_hook=DDPCommunicationHookType.FP16)
        accelerator = accelerate.Accelerator(cpu=True, kwargs_handlers=[settings])
        with pytest.raises(tg.InputError, match="comm_hook=fp16"):
            tg.accelerate.attach(accelerator, "topk(k=1)")
        accelerator.ddp_handler = None
        tg.accelerate.attach(accelerator, "topk(k=1)")
        with pytest.raises(tg.InputError, match="attached to this accelerator already"):
            tg.accelerate.attach(accelerator, "topk(k=1)")
