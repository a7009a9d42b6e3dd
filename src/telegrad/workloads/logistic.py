"""Binary logistic regression on LIBSVM data: the convex workload with known constants.

f(x) = (1/n) Σ_j log(1 + exp(−y_j a_jᵀx)) + (l2/2) ‖x‖² + nonconvex Σ_k x_k² / (1 + x_k²) with rows a_j of A (n × d)
and labels y_j in {−1, +1}.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from telegrad.errors import DataError
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.workloads.base import LoadedTask, Split, Task, Workload
from telegrad.workloads.extras import require
from telegrad.workloads.splits import stratified

__all__ = ["Logistic", "LogisticTask"]

# The file of each data set and its number of features: a file may lack the last features (a9a.t lacks the 123rd).
_DATASETS = {
    "a9a": ("a9a", 123),
    "german": ("german.numer_scale", 24),
    "mushrooms": ("mushrooms", 112),
    "phishing": ("phishing", 68),
    "w8a": ("w8a", 300),
}
_SUFFIXES = ("", ".bz2", ".gz")


class _Linear(nn.Module):
    """x ↦ Ax with the one parameter `x` of shape (d,), zero at first."""

    def __init__(self, d: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.zeros(d, dtype=dtype))

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs @ self.x


@dataclass(frozen=True, eq=False)
class LogisticTask(LoadedTask):
    """Logistic regression with its data: inputs A (n, d), targets y (n,) in {−1, +1}, both of the task's dtype."""

    l2: float
    nonconvex: float = 0.0
    classes: int | None = 2
    metric: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False

    def model(self, key: Key) -> nn.Module:
        """x = 0, whatever the key: the usual start of convex experiments."""
        return _Linear(self.train.inputs.shape[1], self.train.inputs.dtype)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """f(x) over the batch, in nats. All parameters of `model` are regularised."""
        # softplus(−z) turns linear past 20, which is visible in float64; logsigmoid is exact to rounding everywhere.
        fit = -functional.logsigmoid(targets * model(inputs)).mean()
        squares = [parameter.square() for parameter in model.parameters()]
        loss = fit + self.l2 / 2 * torch.stack([own.sum() for own in squares]).sum()
        if self.nonconvex:
            loss = loss + self.nonconvex * torch.stack([(own / (1 + own)).sum() for own in squares]).sum()
        return loss

    def augment(self, inputs: Tensor, key: Key) -> Tensor:
        """The batch as it is."""
        return inputs

    @torch.no_grad()
    def score(self, model: nn.Module, split: Split) -> float:
        """f(x) over the whole split, the regulariser included."""
        device = next(model.parameters()).device
        return float(self.loss(model, split.inputs.to(device), split.targets.to(device)))

    def smoothness(self, rows: Tensor | None = None) -> float:
        """L = λ_max(AᵀA) / (4 n) + l2 + 2 nonconvex of the training split, or of its `rows` (int64, shape (n,)): a
        worker's L_i.

        The bound on the Hessian, AᵀDA/n + l2·I with D ≤ 1/4 and what the nonconvex regulariser adds, from
        −nonconvex/2 to 2 nonconvex, computed from the Gram matrix (d × d) in float64.
        """
        a = (self.train.inputs if rows is None else self.train.inputs[rows]).double()
        return float(torch.linalg.eigvalsh(a.T @ a)[-1]) / (4 * len(a)) + self.l2 + 2 * self.nonconvex

    def smoothness_of_examples(self) -> Tensor:
        """L_j = ‖a_j‖² / 4 + l2 + 2 nonconvex of every single training example, shape (n,), float64."""
        return self.train.inputs.double().square().sum(dim=1) / 4 + self.l2 + 2 * self.nonconvex

    def strong_convexity(self) -> float:
        """mu = l2 − nonconvex/2, a lower bound on the Hessian's least eigenvalue, everywhere; 0 where that is below."""
        return max(0.0, self.l2 - self.nonconvex / 2)

    def curvature(self, rows: Tensor | None = None) -> tuple[float, float]:
        """L and mu of the training split, or of its `rows`: a worker's."""
        return self.smoothness(rows), self.strong_convexity()


@register("logistic", example="logistic(dataset=a9a, l2=0.001)", source="C.-C. Chang, C.-J. Lin, LIBSVM Data, 2011")
@dataclass(frozen=True)
class Logistic(Workload):
    """Logistic regression on a LIBSVM file, plain, .bz2 or .gz, in the data folder or its subfolder `libsvm`.

    Args:
        dataset: a9a, german (the file german.numer_scale), mushrooms, phishing or w8a. A file with `.t` after its name
            is the test split where there is one, and a tenth of the training file validates; otherwise a tenth each of
            the one file is for validation and test. Splits are keyed and stratified. The smaller of the two labels in
            the file becomes −1, the larger +1. Features are stored dense.
        l2: weight of the squared norm.
        dtype: of features and parameters.
        nonconvex: weight of the regulariser Σ_k x_k² / (1 + x_k²).

    References:
        Chang and Lin, "LIBSVM: A Library for Support Vector Machines", 2011, https://doi.org/10.1145/1961189.1961199
    """

    dataset: Literal["a9a", "german", "mushrooms", "phishing", "w8a"] = "a9a"
    l2: float = 0.001
    dtype: Literal["float32", "float64"] = "float32"
    nonconvex: float = 0.0

    def __post_init__(self) -> None:
        check_that(self.dataset in _DATASETS, self, "dataset", f"one of {', '.join(_DATASETS)} is allowed")
        check_that(0 <= self.l2 < float("inf"), self, "l2", "a number from 0 is allowed")
        check_that(0 <= self.nonconvex < float("inf"), self, "nonconvex", "a number from 0 is allowed")
        check_that(self.dtype in ("float32", "float64"), self, "dtype", "float32 or float64 is allowed")

    def load(self, data: Path | None, key: Key) -> Task:
        """Raises `DataError` where the file is missing or not svmlight text with two labels and the right features."""
        name = _DATASETS[self.dataset][0]
        found = _find(data, name)
        if found is None:
            places = "no data folder was given" if data is None else f"looked in {data} and {Path(data) / 'libsvm'}"
            raise DataError(
                f"{self} reads the file {name} (or {name}.bz2, {name}.gz): {places}; fetch it from "
                "https://www.csie.ntu.edu.tw/~cjlin/libsvmtools/datasets/binary.html and pass its folder as data"
            )
        every, labels = self._read(found, None)
        tenth = len(every) // 10
        found_test = _find(data, f"{name}.t")
        if found_test is not None:
            test = self._read(found_test, labels)[0]
            validation, train = stratified(every.targets, (tenth, len(every) - tenth), key.fold(name="split"))
            return LogisticTask(every.rows(train), every.rows(validation), test, self.l2, self.nonconvex)
        sizes = (tenth, tenth, len(every) - 2 * tenth)
        held_out, validation, train = stratified(every.targets, sizes, key.fold(name="split"))
        return LogisticTask(every.rows(train), every.rows(validation), every.rows(held_out), self.l2, self.nonconvex)

    def _read(self, path: Path, labels: np.ndarray | None) -> tuple[Split, np.ndarray]:
        features = _DATASETS[self.dataset][1]
        read = require("sklearn.datasets", "the workload logistic").load_svmlight_file
        try:
            matrix, raw = read(str(path), n_features=features, zero_based=False, dtype=np.dtype(self.dtype))
        except (ValueError, OSError, EOFError) as error:
            raise DataError(f"{path} is not svmlight text with up to {features} features: {error}") from error
        present = np.unique(raw)
        if labels is None and len(present) != 2:
            raise DataError(f"{path} has the labels {present[:5].tolist()}; exactly two are wanted")
        if labels is not None and not np.isin(present, labels).all():
            raise DataError(f"{path} has the labels {present[:5].tolist()}, but its training file {labels.tolist()}")
        known = present if labels is None else labels
        inputs = torch.from_numpy(matrix.toarray())
        if not torch.isfinite(inputs).all():
            raise DataError(f"{path} holds features that are not finite")
        targets = torch.from_numpy(np.where(raw == known[1], 1.0, -1.0)).to(inputs.dtype)
        return Split(inputs, targets), known


def _find(data: Path | None, name: str) -> Path | None:
    if data is None:
        return None
    folders = (Path(data), Path(data) / "libsvm")
    candidates = (folder / f"{name}{suffix}" for folder in folders for suffix in _SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)
