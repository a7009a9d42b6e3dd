"""Run as 2 ranks: the Transformers Trainer on a BERT of one layer, plain and with telegrad; prints a line of JSON."""

import json
import sys
import warnings
from pathlib import Path

import torch
from regression import MEMORY, sums
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

import telegrad


class Sentences(torch.utils.data.Dataset):
    """Tokens whose label is whether the first is in the lower half."""

    def __init__(self, rows=128):
        self.tokens = torch.randint(1, 60, (rows, 12), generator=torch.Generator().manual_seed(3))

    def __len__(self):
        return len(self.tokens)

    def __getitem__(self, i):
        return {"input_ids": self.tokens[i], "labels": int(self.tokens[i, 0] < 30)}


def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    return BertForSequenceClassification(config)


def train(spec, folder, steps=12, resume=None):
    arguments = TrainingArguments(
        output_dir=folder, use_cpu=True, max_steps=steps, per_device_train_batch_size=8, learning_rate=3e-3,
        lr_scheduler_type="constant", logging_steps=2, save_steps=6, save_strategy="steps", report_to=[], seed=1,
        disable_tqdm=True, max_grad_norm=0.0,
    )  # fmt: skip
    trainer = Trainer(model(), arguments, train_dataset=Sentences())
    if spec is not None:
        telegrad.transformers.Telegrad(spec).attach(trainer)
    trainer.train(resume_from_checkpoint=resume)
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    return sums(trainer.model), logged


def main(folder):
    plain, plain_log = train(None, f"{folder}/plain")
    whole, log = train(MEMORY, f"{folder}/memory")
    resumed, _ = train(MEMORY, f"{folder}/memory", resume=f"{folder}/memory/checkpoint-6")
    _, auto_log = train("auto(bits=4)", f"{folder}/auto")
    told = {
        "identity": train("identity", f"{folder}/identity")[0] == plain,
        "losses": [entries[-1]["loss"] for entries in (plain_log, log, auto_log)],
        "resumed": resumed == whole,
        "logged": {name: value for name, value in auto_log[-1].items() if name.startswith("comm/")},
        "files": sorted(p.name for p in Path(folder, "memory", "checkpoint-6").glob("telegrad*")),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main(sys.argv[1])
