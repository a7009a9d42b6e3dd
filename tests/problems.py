"""The reference's small problems T2 and F4 as tasks, and compressors whose draws a test chooses."""

import dataclasses
import math
from typing import ClassVar

import torch
from torch import nn

import telegrad as tg
from telegrad.compressors.base import Encoded, Unbiased
from telegrad.runtime.flat import FlatModel, OptimizerStep
from telegrad.runtime.oracle import TaskOracle
from telegrad.runtime.oracle_run import OracleRun
from telegrad.runtime.pieces import pieces_of
from telegrad.runtime.transport import LocalTransport
from telegrad.spec import build, register
from telegrad.wire.code import Term
from telegrad.wire.positions import IndexSet
from telegrad.wire.values import Floats
from telegrad.workloads import Split, Task


class Quadratics(nn.Module):
    """½ xᵀ A x − bᵀ x + c for every row (A, b, c), x = 0 at first."""

    def __init__(self, d):
        super().__init__()
        self.x = nn.Parameter(torch.zeros(d, dtype=torch.float64))

    def forward(self, inputs):
        d = len(self.x)
        a, b, c = inputs[:, : d * d].reshape(-1, d, d), inputs[:, d * d : -1], inputs[:, -1]
        return 0.5 * (a @ self.x * self.x).sum(1) - b @ self.x + c


@dataclasses.dataclass(frozen=True, eq=False)
class QuadraticTask(Task):
    """One quadratic an example; the score is f(x) over all of them."""

    train: Split
    metric: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False
    classes = None

    @property
    def validation(self):
        return self.train

    test = validation

    def model(self, key):
        return Quadratics((math.isqrt(4 * self.train.inputs.shape[1] - 3) - 1) // 2)

    def loss(self, model, inputs, targets):
        return model(inputs).mean()

    def augment(self, inputs, key):
        return inputs

    def score(self, model, split):
        return float(self.loss(model, split.inputs, split.targets).detach())


def quadratics(matrices, vectors, constants):
    """A task of these quadratics, float64: (n, d, d), (n, d) and (n,)."""
    rows = torch.cat([matrices.flatten(1), vectors, constants[:, None]], dim=1).double()
    return QuadraticTask(Split(rows, torch.zeros(len(rows))))


def t2():
    """T2: f_1 = ½ [(x1−1)² + 2 x2²], f_2 = ½ [3 x1² + (x2−1)²]; x* = (1/4, 1/3)."""
    matrices = torch.stack([torch.diag(torch.tensor([1.0, 2.0])), torch.diag(torch.tensor([3.0, 1.0]))])
    return quadratics(matrices, torch.eye(2), torch.tensor([0.5, 0.5]))


def t2_gradients(x):
    """∇f_1 and ∇f_2 of T2 at x."""
    curvature = torch.tensor([[1.0, 2.0], [3.0, 1.0]], dtype=torch.float64)
    return list(curvature * x - torch.eye(2, dtype=torch.float64))


def f4():
    """F4: ten quadratics in twenty dimensions, L = 100, mu = 1."""
    n, d = 10, 20
    i, k = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    scale = torch.where(k == 0, math.sqrt(0.5), 1.0)
    q = math.sqrt(1 / 10) * scale * torch.cos(math.pi * (2 * k[:, None] + 1) * k / 40)
    spectrum = 100 ** (k / 19) * (1 + 0.42 * torch.cos(2 * math.pi * (i / 10 + 0.618 * k)))
    matrices = q @ torch.diag_embed(spectrum) @ q.T
    return quadratics(matrices, torch.sin((i + 1) * (k + 1)), torch.zeros(n, dtype=torch.float64))


# Coordinates (counted from 0) that the traces on T2 draw for workers (1, 2) in rounds 1, 2, 3; "anchor" is ADIANA's δ.
DRAWS = {"": [(0, 1), (1, 0), (0, 0)], "anchor": [(1, 0), (0, 1), (0, 0)]}


@register("drawn_by_hand", example="drawn_by_hand", source="the traces on T2")
@dataclasses.dataclass(frozen=True)
class DrawnByHand(Unbiased):
    """Rand-1 in two dimensions, twice the coordinate that `DRAWS` says; `first` is the step of round 1."""

    first: int = 0

    looks_at = frozenset({"rank", "step"})

    def omega(self, d):
        return d - 1.0

    def _encode(self, v, key):
        context, message = self.context, dict(key.path).get("message", "")
        drawn = DRAWS[message][context.step - self.first][context.rank]
        return Encoded((Term(IndexSet(2, torch.tensor([drawn])), Floats(2 * v[drawn : drawn + 1])),))

    def _variance(self, v):
        return float(v.double().square().sum())


def oracle_run(task, method, workers, *, topology="server", clock=None, granularity="model", seed=0):
    """The run of a method whose worker i holds example i."""
    model = task.model(tg.Key(seed))
    parameters = dict(model.named_parameters())
    flat = FlatModel(parameters, pieces_of(parameters, granularity))

    def oracle(rank):
        own = task.train.rows(torch.tensor([rank]))
        return TaskOracle(rank, task, model, flat, lambda number: own, own, None)

    return OracleRun(
        *(tg.method(method), build(topology, "topology"), None, LocalTransport(workers), tg.Key(seed), flat),
        *({rank: oracle(rank) for rank in range(workers)}, None),
        clock,
    )


def plain_sgd(run):
    """Let a run's optimizer be x − lr · g."""
    run._make = lambda: OptimizerStep(run.model, lambda own: torch.optim.SGD(own, lr=1.0))
    return run
