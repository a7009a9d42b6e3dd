"""Run as 2 ranks: FSDP2 through Accelerate or the Transformers Trainer; prints one line of JSON.

    fsdp2_ranks.py accelerate|trainer FOLDER

On CPU Accelerate leaves its FSDP plugin aside and wraps the model in DDP. Told that its processes can shard, everything
else, from `prepare` to the sharded checkpoints, is the framework's own code, on gloo.
"""

import json
import sys
import warnings
from pathlib import Path

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainingArguments
from transformers_ranks import Sentences, model

import telegrad

SPEC, STEPS, HALF = "auto(bits=4)", 8, 4
SHARDED = {
    "fsdp_version": 2,
    "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
    "state_dict_type": "SHARDED_STATE_DICT",
    "cpu_ram_efficient_loading": False,
}


def let_accelerate_shard_on_cpu():
    """From now on an FSDP plugin counts on CPU as it does on an accelerator. Returns what it was without this."""
    original, before = AcceleratorState.__init__, []

    def init(self, *args, fsdp_plugin=None, **kwargs):
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.device.type == "cpu":
            before.append(str(self.distributed_type))
            self.fsdp_plugin, self.distributed_type = fsdp_plugin, DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    AcceleratorState.__init__ = init
    return before


def sums(sharded):
    """One number a parameter, which depends on all its entries."""
    found = []
    for parameter in sharded.parameters():
        assert isinstance(parameter, DTensor), "the framework sharded the model"
        found.append(parameter.full_tensor().detach().double().sum().item())
    return found


def by_accelerate(spec, folder=None, first=0, last=STEPS):
    """Train from step `first`, where the state of an earlier call is loaded, to step `last`, where it is saved."""
    plugin = FullyShardedDataParallelPlugin(**SHARDED, transformer_cls_names_to_wrap=["BertLayer"])
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    attached = telegrad.accelerate.attach(accelerator, spec) if spec else None
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    loader = torch.utils.data.DataLoader(Sentences(), batch_size=8)
    net, optimizer, loader = accelerator.prepare(net, optimizer, loader)
    if first:
        accelerator.load_state(folder)
    losses = []
    for number, batch in enumerate(loader):
        if first <= number < last:
            loss = net(**batch).loss
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(accelerator.gather(loss.detach()).mean().item())
    if folder and not first:
        accelerator.save_state(folder)
    told = sums(net), losses, attached.metrics() if spec else {}
    AcceleratorState._reset_state(reset_partial_state=False)
    return told


def by_trainer(spec, folder, resume=None):
    arguments = TrainingArguments(
        output_dir=folder, use_cpu=True, max_steps=STEPS, per_device_train_batch_size=8, learning_rate=3e-3,
        lr_scheduler_type="constant", logging_steps=2, save_steps=HALF, save_strategy="steps", report_to=[], seed=1,
        disable_tqdm=True, max_grad_norm=0.0, fsdp=True,
        fsdp_config={**SHARDED, "transformer_layer_cls_to_wrap": ["BertLayer"]},
    )  # fmt: skip
    trainer = Trainer(model(), arguments, train_dataset=Sentences())
    if spec:
        telegrad.transformers.Telegrad(spec).attach(trainer)
    trainer.train(resume_from_checkpoint=resume)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    told = sums(trainer.model_wrapped), [entry["loss"] for entry in logged], logged[-1]
    AcceleratorState._reset_state(reset_partial_state=False)
    return told


def main(which, folder):
    before = let_accelerate_shard_on_cpu()
    if which == "accelerate":
        plain, plain_losses, _ = by_accelerate(None)
        exact, _, _ = by_accelerate("identity")
        whole, losses, logged = by_accelerate(SPEC)
        by_accelerate(SPEC, folder, last=HALF)
        resumed, _, _ = by_accelerate(SPEC, folder, first=HALF)
        saved = Path(folder)
    else:
        plain, plain_losses, _ = by_trainer(None, f"{folder}/plain")
        exact, _, _ = by_trainer("identity", f"{folder}/identity")
        whole, losses, logged = by_trainer(SPEC, f"{folder}/compressed")
        saved = Path(folder, "compressed", f"checkpoint-{HALF}")
        resumed, _, _ = by_trainer(SPEC, f"{folder}/compressed", resume=str(saved))
    told = {
        "before": before[0],
        "identity": exact == plain,
        "losses": [plain_losses[-1], None, losses[-1]],
        "resumed": resumed == whole,
        "logged": {name: value for name, value in logged.items() if name.startswith("comm/")},
        "files": sorted(path.name for path in saved.glob("telegrad*")),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main(*sys.argv[1:])
