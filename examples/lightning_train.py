"""Lightning with compressed gradients. Against a plain Trainer one argument differs, besides the import.

torchrun --nproc-per-node=2 examples/lightning_train.py
"""

import argparse
import csv
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from sklearn.datasets import load_digits
from torch import nn

import telegrad


class Digits(LightningModule):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 10))

    def training_step(self, batch, number):
        inputs, targets = batch
        return nn.functional.cross_entropy(self.net(inputs), targets)

    def validation_step(self, batch, number):
        inputs, targets = batch
        self.log("accuracy", (self.net(inputs).argmax(1) == targets).float().mean(), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    options = parser.parse_args()
    torch.manual_seed(0)
    digits = load_digits()
    images, labels = torch.tensor(digits.data, dtype=torch.float32) / 16, torch.tensor(digits.target)
    order = torch.randperm(len(labels))
    test, train = order[:360], order[360:]
    model = Digits()
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=options.epochs,
        callbacks=telegrad.lightning.Telegrad("auto(bits=1)"),
        logger=CSVLogger("runs", name="lightning"),
        log_every_n_steps=10,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    data = (torch.utils.data.TensorDataset(images[rows], labels[rows]) for rows in (train, test))
    trainer.fit(model, *(torch.utils.data.DataLoader(part, batch_size=16) for part in data))
    if trainer.is_global_zero:
        with Path(trainer.logger.log_dir, "metrics.csv").open(encoding="utf-8") as file:
            ratios = [float(row["comm/ratio"]) for row in csv.DictReader(file) if row["comm/ratio"]]
        accuracy = trainer.callback_metrics["accuracy"]
        print(f"test accuracy {accuracy:.1%}, {ratios[-1]:.1f} times fewer bits")


if __name__ == "__main__":
    main()
