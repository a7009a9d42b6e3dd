"""The step sizes at which DIANA, MARINA and DASHA stop being stable, from exact second-moment matrices.

Alike scalar quadratics f_i = x²/2, half-dropout. A step is linear, z⁺ = T z with T drawn by the coins, and E z zᵀ moves
by the matrix E[T ⊗ T]: it dies out below the step size at which that matrix has spectral radius 1. T is read off the
methods' own steps, a column for each unit vector.
"""

import dataclasses
from types import SimpleNamespace

import pytest
import torch

import telegrad as tg
from telegrad.compressors.base import Encoded, Unbiased
from telegrad.methods.base import Round, Step
from telegrad.methods.oracle_method import OracleStep
from telegrad.spec import register
from telegrad.wire.code import Term
from telegrad.wire.positions import All
from telegrad.wire.values import Floats


@register("half_dropout", example="half_dropout(outcome=0)", source="C8.4")
@dataclasses.dataclass(frozen=True)
class HalfDropout(Unbiased):
    """Twice the vector or nothing: bit `rank` of `outcome` says which."""

    outcome: int = 0

    looks_at = frozenset({"rank"})

    def omega(self, d):
        return 1.0

    def _encode(self, v, key):
        kept = self.outcome >> self.context.rank & 1
        return Encoded((Term(All(len(v)), Floats(2.0 * kept * v)),))

    def _variance(self, v):
        return float(v.double().square().sum())


def second_moment(spec, n, s, names):
    """E[T ⊗ T] of one step of a method on f_i = x²/2 (μ = 1), linear in the state (x, one number a worker and name)."""
    size, total = 1 + n * len(names), 0.0
    for outcome in range(2**n):
        method, columns = tg.method(spec.format(outcome)), []
        for column in torch.eye(size, dtype=torch.float64):
            states = [
                {name: column[1 + i * n + rank : 2 + i * n + rank] for i, name in enumerate(names)} for rank in range(n)
            ]
            x, step = column[:1], Step(1, s, tg.Key(0), workers=n)
            if "shift" in names:
                server = {"shift": torch.stack([state["shift"] for state in states]).mean(0)}
                worked = [method.worker_step(x, state, rank, step) for rank, state in enumerate(states)]
                estimate, _ = method.server_step([code for code, _ in worked], server, step)
                moved = x - s * estimate
                columns.append(torch.cat([moved, *(state[name] for name in names for _, state in worked)]))
            else:  # DASHA: x moves by the mean of the g_i first; h_i = x, and the state is e_i = g_i − h_i
                known = [x + state["error"] for state in states]
                moved = x - s * torch.stack(known).mean(0)
                worked = [
                    method.worker_step(moved, {"tracked": x, "known": known[rank]}, rank, step)[1] for rank in range(n)
                ]
                columns.append(torch.cat([moved, *(state["known"] - moved for state in worked)]))
        matrix = torch.stack(columns, dim=1)
        total = total + torch.kron(matrix, matrix) / 2**n
    return float(torch.linalg.eigvals(total).abs().max())


@pytest.mark.parametrize(("n", "frontier"), [(1, 0.457427), (2, 0.780776), (3, 1.0)])
def test_dianas_stability_frontier(n, frontier):  # C8.4
    radius = [second_moment("diana(half_dropout(outcome={}), shift_rate=0.5)", n, s, ["shift"]) for s in (
        frontier * 0.999, frontier, frontier * 1.001)]  # fmt: skip
    assert radius[0] < 1 < radius[2]
    assert radius[1] == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize(("n", "frontier"), [(1, 0.632456), (2, 1.0), (3, 1.215250)])
def test_dashas_stability_frontier(n, frontier):  # C12.4
    spec = "dasha(half_dropout(outcome={}), rate=0.3333333333333333, start=zero)"
    radius = [second_moment(spec, n, s, ["error"]) for s in (frontier * 0.999, frontier, frontier * 1.001)]
    assert radius[0] < 1 < radius[2]
    assert radius[1] == pytest.approx(1, abs=2e-5)


class Quadratic:
    """The oracle of f_i = x²/2."""

    def gradient(self, x):
        return x

    full_gradient = gradient


def marinas_second_moment(n, s):
    """E[T ⊗ T] of a round of MARINA at p = 1/2, linear in the state (x, the last estimate)."""
    pieces, total = [SimpleNamespace(name="x", numel=1, shape=(1,))], 0.0
    for outcome in range(2**n):
        method = tg.method(f"marina(half_dropout(outcome={outcome}), probability=0.5)")
        for dense in (True, False):
            columns = []
            step = OracleStep(
                *(1, s, tg.Key(0)), workers=n, pieces=pieces, dtype=torch.float64, round=Round(dense=dense), done=1
            )
            for column in torch.eye(2, dtype=torch.float64):
                x, estimate = column[:1], column[1:]
                moved = x - s * estimate
                uploads = {}
                for rank in range(n):
                    own = dataclasses.replace(step, rank=rank)
                    uploads[rank], _ = method.worker_step(Quadratic(), moved, {"before": x}, own)
                _, server = method.server_step(uploads, {"estimate": estimate}, step)
                columns.append(torch.cat([moved, server["estimate"]]))
            matrix = torch.stack(columns, dim=1)
            total = total + torch.kron(matrix, matrix) / 2 / 2**n
    return float(torch.linalg.eigvals(total).abs().max())


@pytest.mark.parametrize(("n", "frontier"), [(1, 1.0), (2, 1.280776), (3, 1.435782)])
def test_marinas_stability_frontier(n, frontier):  # C10.5
    radius = [marinas_second_moment(n, s) for s in (frontier * 0.999, frontier, frontier * 1.001)]
    assert radius[0] < 1 < radius[2]
    assert radius[1] == pytest.approx(1, abs=2e-5)
