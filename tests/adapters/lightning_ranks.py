"""Run as 2 ranks: a Lightning script, plain and with telegrad; prints one line of JSON."""

import json
import os
import sys
import warnings
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from regression import MEMORY, data, net, sums

import telegrad


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.net, self.losses = net(), []

    def training_step(self, batch, number):
        x, y = batch
        loss = (self.net(x) - y).square().mean()
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9)


def train(spec, folder, epochs=3, resume=None, save=False):
    callbacks = [] if spec is None else [telegrad.lightning.Telegrad(spec)]
    trainer = Trainer(
        accelerator="cpu",
        devices=2,
        strategy="ddp",
        max_epochs=epochs,
        logger=CSVLogger(folder, name=str(spec)),
        log_every_n_steps=4,
        callbacks=callbacks,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    module = Module()
    trainer.fit(module, torch.utils.data.DataLoader(data(), batch_size=16), ckpt_path=resume)
    if save:
        trainer.save_checkpoint(Path(folder, "state.ckpt"))
    return sums(module), module.losses, trainer.logger.log_dir


def main(folder):
    plain, plain_losses, _ = train(None, folder)
    whole, losses, _ = train(MEMORY, folder)
    train(MEMORY, folder, epochs=1, save=True)
    resumed, _, _ = train(MEMORY, folder, resume=str(Path(folder, "state.ckpt")))
    _, auto_losses, logs = train("auto(bits=4)", folder)
    told = {
        "identity": train("identity", folder)[0] == plain,
        "losses": [plain_losses[-1], losses[-1], auto_losses[-1]],
        "resumed": resumed == whole,
        "logged": Path(logs, "metrics.csv").read_text().splitlines()[0] if os.environ["RANK"] == "0" else "",
    }
    print(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    main(sys.argv[1])
