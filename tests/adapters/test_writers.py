"""Writers of a handle's figures: TensorBoard as it is, Weights & Biases and MLflow where they are installed, and by
stand-ins with their signatures elsewhere.
"""

import builtins
import inspect
import sys
import types

import pytest
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import telegrad as tg

FIGURES = {
    "comm/bits_up",
    "comm/bits_down",
    "comm/ratio",
    "comm/omega",
    "comm/encode_ms",
    "comm/wait_ms",
    "comm/skipped",
}


@pytest.fixture
def handle(tmp_path):
    """The handle of a model after two steps, in a group of one rank."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    model = DistributedDataParallel(torch.nn.Linear(8, 4))
    with tg.ddp.register(model, "qsgd(levels=4)") as registered:
        for seed in range(2):
            model.zero_grad()
            model(torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))).square().mean().backward()
        yield registered
    dist.destroy_process_group()


def test_tensorboard_holds_the_figures(handle, tmp_path):
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed: pip install tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from torch.utils.tensorboard import SummaryWriter

    log = tg.writers.tensorboard(tmp_path / "runs")
    log(handle, 7)
    with SummaryWriter(str(tmp_path / "own")) as own:
        tg.writers.tensorboard(own)(handle, 9)
    mean = handle.ledger.up[0].total() / 2  # of two steps; then nothing is new, and the last step is said again
    for folder, step, bits in (("runs", 7, mean), ("own", 9, handle.last_step["comm/bits_up"])):
        found = EventAccumulator(str(tmp_path / folder))
        found.Reload()
        assert set(found.Tags()["scalars"]) == FIGURES
        (event,) = found.Scalars("comm/bits_up")
        assert event.step == step
        assert event.value == bits > 0


class Run:
    """A run of wandb, as far as it is used: `wandb.sdk.wandb_run.Run.log`."""

    def __init__(self):
        self.logged = []

    def log(self, data, step=None, commit=None):
        self.logged.append((data, step))


def fake_wandb():
    module = types.ModuleType("wandb")
    module.run = None
    return module


def fake_mlflow(logged):
    module = types.ModuleType("mlflow")

    def log_metrics(metrics, step=None, synchronous=None, run_id=None, timestamp=None, model_id=None, dataset=None):
        logged.append((metrics, step, run_id))

    module.log_metrics = log_metrics
    return module


def test_wandb_gets_the_figures(handle, monkeypatch):
    module = fake_wandb()
    monkeypatch.setitem(sys.modules, "wandb", module)
    log = tg.writers.wandb()
    with pytest.raises(tg.ConfigError, match=r"call wandb\.init\(\) first"):
        log(handle, 1)
    module.run, own = Run(), Run()
    log(handle, 2)
    tg.writers.wandb(own)(handle, 3)
    for run, step in ((module.run, 2), (own, 3)):
        ((figures, at),) = run.logged
        assert set(figures) == FIGURES
        assert at == step


def test_mlflow_gets_the_figures(handle, monkeypatch):
    logged = []
    monkeypatch.setitem(sys.modules, "mlflow", fake_mlflow(logged))
    tg.writers.mlflow()(handle, 4)
    tg.writers.mlflow("another")(handle, 5)
    assert [(set(figures), step, run) for figures, step, run in logged] == [
        (FIGURES, 4, None),
        (FIGURES, 5, "another"),
    ]


def test_the_stand_ins_have_the_real_signatures():
    real = pytest.importorskip("wandb", reason="wandb is not installed")
    assert list(inspect.signature(real.Run.log).parameters) == list(inspect.signature(Run.log).parameters)
    real = pytest.importorskip("mlflow", reason="MLflow is not installed")
    fake = inspect.signature(fake_mlflow([]).log_metrics).parameters
    assert list(inspect.signature(real.log_metrics).parameters) == list(fake)


def test_the_real_wandb_gets_the_figures(handle, tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with wandb.init(mode="offline", dir=str(tmp_path), project="telegrad") as run:
        tg.writers.wandb()(handle, 2)
        run.log({}, step=3)  # a step is kept when the next one begins
        assert {name for name in run.summary.keys() if not name.startswith("_")} == FIGURES  # noqa: SIM118


def test_the_real_mlflow_gets_the_figures(handle, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed")
    mlflow.set_tracking_uri(f"file:{tmp_path}/mlruns")
    with mlflow.start_run() as run:
        tg.writers.mlflow()(handle, 4)
    assert set(mlflow.get_run(run.info.run_id).data.metrics) == FIGURES


@pytest.mark.parametrize(
    ("name", "arguments", "module", "package"),
    [
        ("tensorboard", ("runs",), "torch.utils.tensorboard", "tensorboard"),
        ("wandb", (), "wandb", "wandb"),
        ("mlflow", (), "mlflow", "mlflow"),
    ],
)
def test_a_logger_that_is_missing_is_named(name, arguments, module, package, monkeypatch):
    real = builtins.__import__

    def without(wanted, *args, **kwargs):
        if wanted == module:
            raise ImportError(wanted)
        return real(wanted, *args, **kwargs)

    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=rf"telegrad\.writers\.{name} needs .*: pip install {package}"):
        getattr(tg.writers, name)(*arguments)


def test_ranks_other_than_0_write_nothing(handle, monkeypatch):
    run = Run()
    monkeypatch.setattr(dist, "get_rank", lambda group=None: 1)
    tg.writers.wandb(run)(handle, 1)
    assert not run.logged


def test_what_is_no_handle_is_refused():
    run = Run()
    tg.writers.wandb(run)(None, 1)
    assert not run.logged
    with pytest.raises(tg.InputError, match="a handle is wanted"):
        tg.writers.wandb(run)({"comm/bits_up": 1.0}, 1)
