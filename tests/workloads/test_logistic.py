import bz2
import dataclasses
import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad, jacrev, vmap

from telegrad.errors import DataError, SpecError
from telegrad.random import Key
from telegrad.spec import build
from telegrad.workloads import Logistic

pytest.importorskip("sklearn")

_DATA = Path(os.environ.get("TELEGRAD_DATA", Path(__file__).parents[3] / "shared" / "data"))


def svmlight(rows, labels=("-1", "+1"), features=24, seed=0):
    """Text of `rows` rows with three features each, labels in turn."""
    values = Key(seed).normal(3 * rows).view(rows, 3).tolist()
    columns = [sorted(set(Key(seed).fold(row=row).subset(features, 3).tolist())) for row in range(rows)]
    return "".join(
        f"{labels[row % len(labels)]} "
        + " ".join(f"{c + 1}:{v:.6g}" for c, v in zip(columns[row], values[row], strict=True))
        + "\n"
        for row in range(rows)
    )


@pytest.fixture
def task(tmp_path):
    (tmp_path / "german.numer_scale").write_text(svmlight(200))
    return build("logistic(dataset=german, l2=0.01, dtype=float64)", "workload").load(tmp_path, Key(0))


def test_one_file_is_split_by_the_key_into_three(task, tmp_path):
    assert [len(s) for s in (task.train, task.validation, task.test)] == [160, 20, 20]
    assert task.train.inputs.shape == (160, 24)
    assert task.train.inputs.dtype == task.train.targets.dtype == torch.float64
    every = torch.cat([task.train.inputs, task.validation.inputs, task.test.inputs])
    assert len(every.unique(dim=0)) == 200
    assert all(s.targets.sum() == 0 for s in (task.train, task.validation, task.test))
    other = Logistic("german", dtype="float64").load(tmp_path, Key(1))
    assert not other.test.inputs.equal(task.test.inputs)


@pytest.mark.parametrize("suffix", ["", ".bz2", ".gz"])
@pytest.mark.parametrize("folder", [".", "libsvm"])
def test_a_file_with_its_test_file_packed_or_plain(tmp_path, suffix, folder):
    pack = {"": bytes, ".bz2": bz2.compress, ".gz": gzip.compress}[suffix]
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / f"a9a{suffix}").write_bytes(pack(b"+1 1:1 123:2\n-1 5:0.5\n" * 50))
    (tmp_path / folder / f"a9a.t{suffix}").write_bytes(pack(b"-1 122:1\n+1 2:1\n-1 3:1\n"))
    task = build("logistic", "workload").load(tmp_path, Key(0))
    assert [len(s) for s in (task.train, task.validation, task.test)] == [90, 10, 3]
    assert task.test.targets.tolist() == [-1, 1, -1]
    assert task.test.inputs.shape == (3, 123)
    assert task.test.inputs[0, 121] == 1
    positive = task.train.inputs[task.train.targets == 1]
    assert positive[:, [0, 122]].unique(dim=0).tolist() == [[1, 2]]
    assert task.train.inputs.dtype == torch.float32


@pytest.mark.parametrize("labels", [("0", "1"), ("1", "2"), ("-1", "1")])
def test_the_smaller_label_becomes_minus_one(tmp_path, labels):
    (tmp_path / "phishing").write_text(f"{labels[0]} 1:1\n{labels[1]} 2:1\n" * 20)
    task = Logistic("phishing").load(tmp_path, Key(0))
    assert task.train.targets.equal(task.train.inputs[:, 1] * 2 - 1)


def test_loss_and_gradient_are_the_formula(task):
    model = task.model(Key(0))
    assert task.score(model, task.train) == pytest.approx(np.log(2), rel=1e-14)
    x = Key(1).normal(24)
    with torch.no_grad():
        model.x.copy_(x)
    a, y = task.validation.inputs.numpy(), task.validation.targets.numpy()
    margins = y * (a @ x.numpy())
    value = np.log1p(np.exp(-margins)).mean() + 0.005 * x.square().sum().item()
    gradient = -(y / (1 + np.exp(margins))) @ a / len(y) + 0.01 * x.numpy()
    loss = task.loss(model, task.validation.inputs, task.validation.targets)
    loss.backward()
    assert loss.item() == pytest.approx(value, rel=1e-13)
    assert task.score(model, task.validation) == pytest.approx(value, rel=1e-13)
    np.testing.assert_allclose(model.x.grad.numpy(), gradient, rtol=1e-12, atol=1e-14)


def test_huge_margins_overflow_nowhere(task):
    model = task.model(Key(0))
    with torch.no_grad():
        model.x.fill_(1e6)
    loss = task.loss(model, task.train.inputs, task.train.targets)
    loss.backward()
    assert loss.isfinite()
    assert model.x.grad.isfinite().all()


class _Loss(torch.nn.Module):
    """The loss as the simulator calls it: the model is a part, and its parameters come from outside."""

    def __init__(self, task):
        super().__init__()
        self.task, self.model = task, task.model(Key(0))

    def forward(self, inputs, targets):
        return self.task.loss(self.model, inputs, targets)


def test_the_regulariser_follows_functional_call_and_vmap(task):
    wrapped = _Loss(task)
    points = Key(2).normal(3 * 24).view(3, 24)
    inputs, targets = task.train.inputs[:30].view(3, 10, 24), task.train.targets[:30].view(3, 10)
    stacked = vmap(grad(lambda x, a, y: functional_call(wrapped, {"model.x": x}, (a, y))))(points, inputs, targets)
    for worker in range(3):
        y, a = targets[worker], inputs[worker]
        expected = -(y / (1 + (y * (a @ points[worker])).exp())) @ a / 10 + 0.01 * points[worker]
        torch.testing.assert_close(stacked[worker], expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("nonconvex", [0.0, 0.3])
def test_the_constants_bound_the_hessian_and_are_reached(task, nonconvex):
    task = dataclasses.replace(task, nonconvex=nonconvex)
    wrapped = _Loss(task)

    def curvatures(x, rows):
        split = task.train.rows(rows)
        return torch.linalg.eigvalsh(
            jacrev(grad(lambda x: functional_call(wrapped, {"model.x": x}, (split.inputs, split.targets))))(x)
        )

    every, some = torch.arange(len(task.train)), torch.tensor([3, 5, 8, 100])
    # At x = 0 all weights of the Hessian are 1/4, so the bound is an equality there.
    for rows in (every, some):
        assert curvatures(torch.zeros(24).double(), rows)[-1] == pytest.approx(task.smoothness(rows), rel=1e-12)
        spectrum = curvatures(Key(3).normal(24), rows)
        assert task.l2 - nonconvex / 2 - 1e-11 <= spectrum[0] <= spectrum[-1] < task.smoothness(rows)
    assert task.smoothness() == task.smoothness(every)
    assert task.strong_convexity() == max(0, task.l2 - nonconvex / 2)
    single = [task.smoothness(torch.tensor([row])) for row in range(5)]
    torch.testing.assert_close(task.smoothness_of_examples()[:5], torch.tensor(single).double())


def test_a_missing_file_is_named_with_the_places(tmp_path):
    with pytest.raises(DataError, match=r"reads the file w8a \(or w8a.bz2, w8a.gz\): looked in .*libsvm; fetch it"):
        Logistic("w8a").load(tmp_path, Key(0))
    with pytest.raises(DataError, match="no data folder was given"):
        Logistic("w8a").load(None, Key(0))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a9a", b"+1 1:1\n-1 garbage\n", "not svmlight text"),
        ("a9a", b"+1 124:1\n-1 1:1\n", "not svmlight text with up to 123 features"),
        ("a9a", b"+1 0:1\n-1 1:1\n", "not svmlight text"),
        ("a9a", b"", "labels"),
        ("a9a", b"+1 1:1\n+1 2:1\n", r"labels \[1.0\]; exactly two"),
        ("a9a", b"1 1:1\n2 2:1\n3 1:1\n", "exactly two"),
        ("a9a", b"1 1:nan\n2 2:1\n", "not finite"),
        ("a9a.bz2", bz2.compress(b"+1 1:1\n-1 2:1\n" * 500)[:-20], "not svmlight text"),
        ("a9a.bz2", b"not bzip2", "not svmlight text"),
        ("a9a.gz", gzip.compress(b"+1 1:1\n-1 2:1\n" * 500, mtime=0)[:-20], "not svmlight text"),
    ],
)
def test_a_damaged_file_is_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Logistic().load(tmp_path, Key(0))


def test_a_test_file_with_foreign_labels_is_refused(tmp_path):
    (tmp_path / "a9a").write_text("+1 1:1\n-1 2:1\n" * 10)
    (tmp_path / "a9a.t").write_text("0 1:1\n1 2:1\n")
    with pytest.raises(DataError, match="but its training file"):
        Logistic().load(tmp_path, Key(0))


@pytest.mark.parametrize(
    "spec", ["logistic(dataset=iris)", "logistic(l2=-1)", "logistic(nonconvex=-1)", "logistic(dtype=float16)"]
)
def test_bad_arguments_are_refused(spec):
    with pytest.raises(SpecError, match=r"allowed.*for example `logistic\("):
        build(spec, "workload")


def test_bad_arguments_are_refused_without_a_spec_too():
    with pytest.raises(SpecError, match="a9a or german"):
        Logistic("iris")


@pytest.mark.skipif(not (_DATA / "libsvm").is_dir(), reason="no libsvm folder in ../shared/data or $TELEGRAD_DATA")
@pytest.mark.parametrize(
    ("name", "sizes", "positive"),
    [
        ("a9a", [29305, 3256, 16281], 7841 + 3846),
        ("mushrooms", [6500, 812, 812], 4208),
        ("phishing", [8845, 1105, 1105], 6157),
        ("german", [800, 100, 100], 300),
        ("w8a", [39801, 4974, 4974], 1479),
    ],
)
def test_the_real_files(name, sizes, positive):
    task = Logistic(name).load(_DATA, Key(0))
    splits = (task.train, task.validation, task.test)
    assert [len(s) for s in splits] == sizes
    assert sum(int((s.targets == 1).sum()) for s in splits) == positive
    assert task.score(task.model(Key(0)), task.test) == pytest.approx(np.log(2), rel=1e-5)
