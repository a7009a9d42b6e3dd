import io
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad_and_value, vmap

from telegrad.errors import DataError, SpecError
from telegrad.random import Key
from telegrad.spec import build
from telegrad.workloads import Cifar10
from telegrad.workloads.cifar10 import Cifar10Task, normalise
from telegrad.workloads.cifar10_files import find_cifar10

parquet = pytest.importorskip("pyarrow.parquet")
pyarrow = pytest.importorskip("pyarrow")
image_module = pytest.importorskip("PIL.Image")

_DATA = Path(os.environ.get("TELEGRAD_DATA", Path(__file__).parents[3] / "shared" / "data"))
TINY = Cifar10(width=2, blocks=1, train_examples=20, validation_examples=10, test_examples=10)


def pictures(n, seed):
    return Key(seed).integers(n * 3072, 256).to(torch.uint8).view(n, 3, 32, 32).numpy()


def png(pixels):
    stream = io.BytesIO()
    image_module.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(stream, "png")
    return stream.getvalue()


def write_parquet(file, pixels, labels, encoded=None):
    cells = [{"bytes": b, "path": "x.png"} for b in encoded or map(png, pixels)]
    parquet.write_table(pyarrow.table({"img": cells, "label": pyarrow.array(labels)}), file, row_group_size=7)


def as_parquet(folder, train=(0, 1), rows=20):
    """Two shards of training images and one of test images, in row groups of 7."""
    for number in train:
        name = f"train-{number:05d}-of-00002.parquet"
        write_parquet(folder / name, pictures(rows, number), np.arange(rows) % 10)
    write_parquet(folder / "test-00000-of-00001.parquet", pictures(rows, 9), np.arange(rows) % 10)
    return folder


def python_2_batch(pixels, labels):
    """The bytes that Python 2 and its numpy wrote into the official files: text and array data are byte strings."""
    size = len(pixels).to_bytes(2, "little")
    return b"".join(
        [
            b"\x80\x02}(U\x06labels](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e",
            b"U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"(K\x01M" + size + b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R",
            b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89",
            b"T" + pixels.size.to_bytes(4, "little") + pixels.tobytes() + b"tbu.",
        ]
    )


def as_batches(folder, rows=8):
    names = [f"data_batch_{number}" for number in range(1, 6)] + ["test_batch"]
    for seed, name in enumerate(names):
        (folder / name).write_bytes(python_2_batch(pictures(rows, seed), [k % 10 for k in range(rows)]))
    return folder


def test_parquet_files_are_read_row_by_row_as_they_are(tmp_path):
    train, test = find_cifar10(as_parquet(tmp_path))
    every = np.concatenate([pictures(20, 0), pictures(20, 1)])
    assert train.labels.tolist() == [k % 10 for k in range(20)] * 2
    assert train.labels.dtype == torch.int64
    for rows in (torch.arange(40), torch.tensor([0, 6, 7, 19, 20, 39]), torch.tensor([33]), torch.tensor([]).long()):
        pixels = train.pixels(rows)
        assert pixels.dtype == torch.uint8
        assert np.array_equal(pixels.numpy(), every[rows.numpy()])
    assert np.array_equal(test.pixels(torch.arange(20)).numpy(), pictures(20, 9))


def test_only_images_in_use_are_decoded(tmp_path):
    as_parquet(tmp_path)
    encoded = [b"broken"] * 5 + [png(p) for p in pictures(2, 0)]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", None, np.zeros(7, dtype=np.int64), encoded)
    train = find_cifar10(tmp_path)[0]
    assert np.array_equal(train.pixels(torch.tensor([5, 6])).numpy(), pictures(2, 0))
    with pytest.raises(DataError, match=r"train-00000-of-00002.parquet is not a readable"):
        train.pixels(torch.tensor([4]))


def test_official_batches_are_read_as_they_are(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    train, test = find_cifar10(as_batches(folder).parent)
    every = np.concatenate([pictures(8, seed) for seed in range(5)])
    assert np.array_equal(train.pixels(torch.arange(40)).numpy(), every)
    assert train.labels.tolist() == [k % 10 for k in range(8)] * 5
    assert np.array_equal(test.pixels(torch.tensor([3])).numpy(), pictures(8, 5)[3:4])
    # A batch that today's Python and numpy pickled again.
    content = {b"data": pictures(8, 7).reshape(8, 3072), b"labels": [1] * 8}
    (folder / "test_batch").write_bytes(pickle.dumps(content))
    assert np.array_equal(find_cifar10(tmp_path)[1].pixels(torch.arange(8)).numpy(), pictures(8, 7))


def test_a_pickle_that_calls_anything_is_refused_before_it_runs(tmp_path):
    as_batches(tmp_path)
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(marker),)

    (tmp_path / "data_batch_2").write_bytes(pickle.dumps({b"data": Evil()}))
    with pytest.raises(DataError, match=r"data_batch_2 is not a batch.*mkdir, which no array needs"):
        find_cifar10(tmp_path)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        pickle.dumps([1, 2]),
        pickle.dumps({b"data": pictures(2, 0)}),
        pickle.dumps({b"data": pictures(2, 0).reshape(2, 3072), b"labels": [1]}),
        pickle.dumps({b"data": pictures(2, 0).reshape(2, 3072), b"labels": [1, 10]}),
        pickle.dumps({b"data": pictures(2, 0).reshape(2, 3072).astype(float), b"labels": [1, 2]}),
        pickle.dumps({b"data": pictures(2, 0).reshape(2, 3072), b"labels": [1, 2]})[:500],
    ],
)
def test_a_damaged_batch_is_named(tmp_path, content):
    (as_batches(tmp_path) / "data_batch_3").write_bytes(content)
    with pytest.raises(DataError, match=r"data_batch_3 is not"):
        find_cifar10(tmp_path)


def test_missing_files_are_named(tmp_path):
    (as_batches(tmp_path) / "data_batch_4").unlink()
    with pytest.raises(DataError, match=r"incomplete: data_batch_4 missing"):
        find_cifar10(tmp_path)


def test_missing_shards_are_named(tmp_path):
    as_parquet(tmp_path, train=(1,))
    with pytest.raises(DataError, match=r"incomplete: train-00000-of-00002.parquet missing"):
        find_cifar10(tmp_path)
    write_parquet(tmp_path / "train-00000-of-00002.parquet", pictures(1, 0), [0])
    (tmp_path / "test-00000-of-00001.parquet").unlink()
    with pytest.raises(DataError, match=r"incomplete: test-00000-of-00001.parquet missing"):
        find_cifar10(tmp_path)


def test_a_folder_without_any_of_it_is_named_with_what_was_wanted(tmp_path):
    with pytest.raises(DataError, match=r"train-\*\.parquet.*cifar-10-batches-py.*holds neither"):
        find_cifar10(tmp_path)
    with pytest.raises(DataError, match=r"nowhere is not a folder"):
        find_cifar10(tmp_path / "nowhere")


def test_damaged_and_foreign_parquet_files_are_named(tmp_path):
    as_parquet(tmp_path)
    file = tmp_path / "train-00001-of-00002.parquet"
    whole = file.read_bytes()
    wide = png(np.zeros((3, 40, 32), dtype=np.uint8))
    for damage in (
        lambda: file.write_bytes(whole[: len(whole) // 2]),
        lambda: file.write_bytes(b""),
        lambda: parquet.write_table(pyarrow.table({"text": ["a"]}), file),
        lambda: parquet.write_table(pyarrow.table({"img": [1], "label": [1]}), file),
        lambda: parquet.write_table(pyarrow.table({"img": [{"bytes": None}], "label": [1]}), file),
        lambda: write_parquet(file, pictures(1, 0), [10]),
        lambda: write_parquet(file, pictures(1, 0), ["frog"]),
        lambda: write_parquet(file, None, [1], [wide]),
        lambda: write_parquet(file, None, [1], [png(pictures(1, 0)[0])[:1000]]),
    ):
        damage()
        with pytest.raises(DataError, match=r"train-00001-of-00002.parquet is not"):
            find_cifar10(tmp_path)[0].pixels(torch.tensor([20]))


def test_without_a_folder_and_without_datasets_the_message_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"pass as data a folder.*pip install 'telegrad\[fetch\]'"):
        build("cifar10", "workload").load(None, Key(0))


def test_without_a_folder_it_is_fetched_by_name(monkeypatch):
    class Rows(list):
        def __getitem__(self, name):
            return [row[name] for row in self]

        def select(self, rows):
            return [list(self)[row] for row in rows]

    def rows(seed):
        images = [image_module.fromarray(p.transpose(1, 2, 0)) for p in pictures(30, seed)]
        return Rows({"img": image, "label": k % 10} for k, image in enumerate(images))

    asked = []
    fake = types.ModuleType("datasets")
    fake.load_dataset = lambda name: asked.append(name) or {"train": rows(0), "test": rows(1)}
    monkeypatch.setitem(sys.modules, "datasets", fake)
    task = TINY.load(None, Key(0))
    assert asked == ["uoft-cs/cifar10"]
    assert torch.cat([task.train.inputs, task.validation.inputs]).sum() == int(pictures(30, 0).sum())

    def offline(name):
        raise RuntimeError("no network")

    fake.load_dataset = offline
    with pytest.raises(DataError, match=r"cannot fetch uoft-cs/cifar10: no network; or pass as data a folder"):
        TINY.load(None, Key(0))


def test_the_parts_are_disjoint_balanced_and_nested(tmp_path):
    as_parquet(tmp_path)
    task = TINY.load(tmp_path, Key(0))
    assert [len(s) for s in (task.train, task.validation, task.test)] == [20, 10, 10]
    for split in (task.train, task.validation, task.test):
        assert split.targets.bincount(minlength=10).unique().numel() == 1
    both = torch.cat([task.train.inputs, task.validation.inputs]).flatten(1)
    assert len(both.unique(dim=0)) == 30
    more = Cifar10(train_examples=30, validation_examples=10, test_examples=10).load(tmp_path, Key(0))
    assert more.validation.inputs.equal(task.validation.inputs)
    larger = {row.tobytes() for row in more.train.inputs.numpy()}
    assert {row.tobytes() for row in task.train.inputs.numpy()} < larger
    assert not TINY.load(tmp_path, Key(1)).validation.inputs.equal(task.validation.inputs)


def test_a_folder_with_too_few_images_is_refused(tmp_path):
    as_parquet(tmp_path)
    with pytest.raises(DataError, match=r"asks for 41 training images, but .* holds 40"):
        Cifar10(train_examples=31, validation_examples=10, test_examples=10).load(tmp_path, Key(0))
    with pytest.raises(DataError, match=r"asks for 21 test images, but .* holds 20"):
        Cifar10(train_examples=30, validation_examples=10, test_examples=21).load(tmp_path, Key(0))


@pytest.mark.parametrize(
    "argument",
    ["width=0", "blocks=0", "train_examples=0", "train_examples=45001", "validation_examples=0", "test_examples=10001"],
)
def test_bad_arguments_are_refused(argument):
    with pytest.raises(SpecError, match=r"for example `cifar10\(width=16\)`"):
        build(f"cifar10({argument})", "workload")


def task_without_data(width=8, blocks=1):
    nothing = None
    return Cifar10Task(nothing, nothing, nothing, width=width, blocks=blocks)


def test_resnet_18_has_the_known_number_of_parameters():
    model = task_without_data(64, 2).model(Key(0))
    assert sum(p.numel() for p in model.parameters()) == 11_173_962
    assert sum(isinstance(m, torch.nn.Conv2d | torch.nn.Linear) for m in model.modules()) == 21
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert model.stages(model.stem(torch.zeros(1, 3, 32, 32))).shape == (1, 512, 4, 4)


class _Loss(torch.nn.Module):
    """The loss as the simulator calls it."""

    def __init__(self, task, model):
        super().__init__()
        self.task, self.model = task, model

    def forward(self, inputs, targets):
        return self.task.loss(self.model, inputs, targets)


def test_batch_norm_under_functional_call_grad_and_vmap_equals_the_loop():
    task = task_without_data()
    wrapped = _Loss(task, task.model(Key(0)))
    parameters = {name: value.detach() for name, value in wrapped.named_parameters()}
    start = {name: value.detach().clone() for name, value in wrapped.named_buffers()}
    stacked = {name: torch.stack([value] * 3) for name, value in start.items()}
    inputs = Key(1).integers(2 * 3 * 4 * 3072, 256).to(torch.uint8).view(2, 3, 4, 3, 32, 32)
    targets = Key(2).integers(24, 10).view(2, 3, 4)

    def loss(p, b, x, y):
        return functional_call(wrapped, (p, b), (x, y)), b

    step = vmap(grad_and_value(loss, has_aux=True), in_dims=(None, 0, 0, 0))
    # Two steps, so that running statistics that are not carried over would show.
    for x, y in zip(inputs, targets, strict=True):
        gradients, (losses, stacked) = step(parameters, stacked, x, y)

    assert all(value.equal(start[name]) for name, value in wrapped.named_buffers())
    for worker in range(3):
        model = task.model(Key(0))
        task.loss(model, inputs[0, worker], targets[0, worker])
        value = task.loss(model, inputs[1, worker], targets[1, worker])
        value.backward()
        torch.testing.assert_close(losses[worker], value.detach(), rtol=1e-5, atol=1e-5)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(gradients[f"model.{name}"][worker], parameter.grad, rtol=1e-5, atol=1e-5)
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(stacked[f"model.{name}"][worker], buffer, rtol=1e-5, atol=1e-5)
            assert not buffer.equal(start[f"model.{name}"])


def test_normalisation_uses_the_channels_constants():
    image = torch.tensor([0, 128, 255], dtype=torch.uint8).view(3, 1, 1).expand(2, 3, 32, 32)
    expected = torch.tensor([-0.4914 / 0.24703, (128 / 255 - 0.48216) / 0.24349, (1 - 0.44653) / 0.26159])
    torch.testing.assert_close(normalise(image), expected.view(3, 1, 1).expand(2, 3, 32, 32))


def test_augmented_images_are_moved_and_mirrored_copies():
    task = task_without_data()
    images = torch.from_numpy(pictures(200, 0))
    moved = task.augment(images, Key(4))
    assert moved.shape == images.shape
    assert moved.dtype == torch.uint8
    assert moved.equal(task.augment(images, Key(4)))
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    found = []
    for image, result in zip(padded, moved, strict=True):
        crops = image.unfold(1, 32, 1).unfold(2, 32, 1)
        for mirrored in (False, True):
            wanted = result.flip(2) if mirrored else result
            hits = (crops == wanted[:, None, None]).all(-1).all(-1).all(0).nonzero().tolist()
            found += [(*hit, mirrored) for hit in hits]
    assert len(found) == 200
    # 200 draws from 9 × 9 × 2: a shift that never occurs would have had the chance (8/9)^200 < 1e-10.
    assert {f[0] for f in found} == {f[1] for f in found} == set(range(9))
    # Five standard errors of a fair coin: 5 · sqrt(200) / 2 < 36.
    assert abs(sum(f[2] for f in found) - 100) < 36


def test_the_score_uses_running_statistics_and_leaves_them_alone(tmp_path):
    task = TINY.load(as_parquet(tmp_path), Key(0))
    model = task.model(Key(0))
    before = {name: value.clone() for name, value in model.named_buffers()}
    score = task.score(model, task.test)
    assert all(value.equal(before[name]) for name, value in model.named_buffers())
    assert model.training
    with torch.no_grad():
        guesses = model.eval()(normalise(task.test.inputs)).argmax(1)
    assert score == int((guesses == task.test.targets).sum()) / 10


@pytest.mark.skipif(not (_DATA / "cifar10").is_dir(), reason="no cifar10 folder in ../shared/data or $TELEGRAD_DATA")
def test_the_real_files():
    train, test = find_cifar10(_DATA)
    assert train.labels.bincount().tolist() == [5000] * 10
    assert test.labels.bincount().tolist() == [1000] * 10
    # The first images of the official training file are a frog and two trucks.
    assert train.labels[:3].tolist() == [6, 9, 9]
    # They are at the start of the file data_batch_1: first red row 59, 43, 50, ...
    pixels = train.pixels(torch.arange(300))
    assert pixels[0, 0, 0, :3].tolist() == [59, 43, 50]
    # 300 images × 1024 pixels estimate the channel means; images differ with a deviation of about 0.12.
    assert normalise(pixels).mean(dim=(0, 2, 3)).abs().max() < 5 * (0.12 / 0.24) / 300**0.5
