"""Run as 2 ranks: an Accelerate script, plain and with telegrad; prints one line of JSON."""

import json
import sys
import tempfile
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import GeneralTracker
from accelerate.utils import DistributedDataParallelKwargs, ProjectConfiguration
from regression import MEMORY, data, net

import telegrad

TRACKED = []


class Kept(GeneralTracker):
    """A tracker that keeps what the main process logs."""

    name, requires_logging_directory = "kept", False

    def __init__(self):
        super().__init__()
        self.values = []

    @property
    def tracker(self):
        return self.values

    def store_init_configuration(self, values):
        pass

    def log(self, values, step=None, **kwargs):
        self.values.append(values)


def train(spec, epochs=3, folder=None, stop=None, resume=None, late=False, accumulate=1):
    """The parameters, the losses and what was logged."""
    settings, kept = DistributedDataParallelKwargs(bucket_cap_mb=1), Kept()
    accelerator = Accelerator(
        cpu=True,
        kwargs_handlers=[settings],
        log_with=[kept] if folder else None,
        project_config=ProjectConfiguration(project_dir=folder) if folder else None,
        gradient_accumulation_steps=accumulate,
    )
    if folder:
        accelerator.init_trackers("run")
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    loader = torch.utils.data.DataLoader(data(), batch_size=16)
    attached = None if spec is None or late else telegrad.accelerate.attach(accelerator, spec)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    if late:
        attached = telegrad.accelerate.attach(accelerator, spec, model)
    first, losses, logged = 0, [], {}
    if resume:
        accelerator.load_state(resume)
        first = stop
    for epoch in range(first, epochs if resume or stop is None else stop):
        for x, y in loader:
            with accelerator.accumulate(model):
                loss = (model(x) - y).square().mean()
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
        losses.append(accelerator.gather(loss.detach()).mean().item())
        if attached is not None and folder:
            attached.log(step=epoch)
            logged = attached.metrics()
            TRACKED.extend(kept.values)
    if stop is not None and not resume:
        accelerator.save_state(str(Path(folder, "state")))
    accelerator.wait_for_everyone()
    handle = attached.handle if attached is not None else None
    steps = handle.steps if handle is not None else 0
    if folder:
        for tracker in accelerator.trackers:  # end_training would end the process group, too
            tracker.finish()
    return (
        [p.detach().double().sum().item() for p in accelerator.unwrap_model(model).parameters()],
        losses,
        logged,
        steps,
    )


def main(folder):
    plain, plain_losses, _, _ = train(None)
    whole, losses, _, _ = train(MEMORY)
    train(MEMORY, folder=folder, stop=1)
    resumed, _, _, _ = train(MEMORY, stop=1, resume=str(Path(folder, "state")))
    _, _, logged, _ = train("auto(bits=4)", folder=folder)
    told = {
        "identity": train("identity")[0] == plain,
        "late": train("identity", late=True)[0] == plain,
        "losses": [plain_losses[-1], losses[-1], train("auto(bits=4)")[1][-1]],
        "resumed": resumed == whole,
        "logged": logged,
        "files": sorted(p.name for p in Path(folder, "state").glob("telegrad*")),
        "accumulated steps": [train("identity", epochs=1, accumulate=4)[3], train("identity", epochs=1)[3]],
        "tracked": sorted({name for values in TRACKED for name in values}),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp())
