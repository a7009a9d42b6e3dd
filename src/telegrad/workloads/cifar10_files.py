"""Where CIFAR-10 comes from: parquet files, the official Python batches, or the `datasets` package."""

from __future__ import annotations

import io
import pickle
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from telegrad.errors import DataError
from telegrad.workloads.extras import fetch, require

__all__ = ["Images", "find_cifar10"]

_SUBFOLDERS = ("", "cifar10", "cifar-10-batches-py", "plain_text")
_OFFICIAL = ([f"data_batch_{number}" for number in range(1, 6)], ["test_batch"])
_WANTED = (
    "the parquet files train-*.parquet and test-*.parquet of the Hugging Face data set uoft-cs/cifar10, or the folder "
    "cifar-10-batches-py of the Python version from https://www.cs.toronto.edu/~kriz/cifar.html"
)


@dataclass(frozen=True, eq=False)
class Images:
    """Images that are decoded when asked for.

    `labels`: int64, shape (n,). `pixels(rows)` gives uint8 of shape (k, 3, 32, 32) for ascending `rows` (int64, (k,)).
    """

    labels: Tensor
    pixels: Callable[[Tensor], Tensor]


def find_cifar10(data: Path | None) -> tuple[Images, Images]:
    """The training and the test images, from `data` or one of its usual subfolders, or by name where `data` is None.

    Raises `DataError` that says what was looked for and where.
    """
    if data is None:
        return _fetch()
    folders = [Path(data) / subfolder for subfolder in _SUBFOLDERS]
    for folder in folders:
        if any(folder.glob("train-*.parquet")):
            return _parquet(_shards(folder, "train")), _parquet(_shards(folder, "test"))
        if any((folder / name).is_file() for names in _OFFICIAL for name in names):
            _refuse_missing(folder, [name for names in _OFFICIAL for name in names])
            train, test = ([folder / name for name in names] for names in _OFFICIAL)
            return _batches(train), _batches(test)
    state = "holds neither, nor do its subfolders" if Path(data).is_dir() else "is not a folder; it should hold one of"
    raise DataError(f"cifar10 looked for {_WANTED}: {data} {state} {', '.join(_SUBFOLDERS[1:])}")


def _refuse_missing(folder: Path, names: Sequence[str]) -> None:
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"cifar10 in {folder} is incomplete: {', '.join(missing)} missing; copy all of {', '.join(names)}"
        )


def _shards(folder: Path, part: str) -> list[Path]:
    files = sorted(folder.glob(f"{part}-*.parquet"))
    count = re.search(r"-of-(\d+)\.parquet$", files[0].name) if files else None
    total = int(count.group(1)) if count else max(1, len(files))
    # A total that is no plausible number of shards would make the message below endless.
    if not files or (count and total <= 1000):
        _refuse_missing(folder, [f"{part}-{number:05d}-of-{total:05d}.parquet" for number in range(total)])
    return files


def _checked_labels(labels: np.ndarray, where: Path | str) -> Tensor:
    if (
        labels.dtype.kind not in "iu"
        or labels.ndim != 1
        or (labels.size and not 0 <= labels.min() <= labels.max() <= 9)
    ):
        raise DataError(f"{where} is not CIFAR-10: its labels are not integers from 0 to 9")
    return torch.from_numpy(labels.astype(np.int64))


def _decode(png: bytes) -> np.ndarray:
    image = require("PIL.Image", "the workload cifar10").open(io.BytesIO(png))
    if image.size != (32, 32):
        raise ValueError(f"an image of {image.size[0]} × {image.size[1]} pixels where 32 × 32 are wanted")
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@contextmanager
def _explaining(file: Path) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    # pyarrow's errors are ValueError, OSError and KeyError by kind; Pillow adds SyntaxError for a broken PNG.
    except (ValueError, OSError, KeyError, TypeError, SyntaxError) as error:
        raise DataError(f"{file} is not a readable parquet file of CIFAR-10 (columns img, label): {error}") from error


def _parquet(files: list[Path]) -> Images:
    parquet = require("pyarrow.parquet", "the workload cifar10 on parquet files")
    parts = []
    for file in files:
        with _explaining(file):
            labels = parquet.read_table(file, columns=["label"]).column("label").to_numpy()
        parts.append(_checked_labels(labels, file))
    ends = np.cumsum([len(part) for part in parts])

    def pixels(rows: Tensor) -> Tensor:
        out = np.empty((len(rows), 3, 32, 32), dtype=np.uint8)
        for file, part, end in zip(files, parts, ends, strict=True):
            begin = end - len(part)
            first, last = np.searchsorted(rows.numpy(), (begin, end))
            with _explaining(file):
                _decode_rows(parquet.ParquetFile(file), rows.numpy()[first:last] - begin, out[first:last])
        return torch.from_numpy(out)

    return Images(torch.cat(parts), pixels)


def _decode_rows(shard: Any, rows: np.ndarray, out: np.ndarray) -> None:
    """Decode the ascending `rows` of a parquet file into `out`; row groups without any are not read."""
    start = 0
    for group in range(shard.num_row_groups):
        end = start + shard.metadata.row_group(group).num_rows
        first, last = np.searchsorted(rows, (start, end))
        if first < last:
            column = shard.read_row_group(group, columns=["img.bytes"]).column("img").combine_chunks().field("bytes")
            for place in range(first, last):
                out[place] = _decode(column[int(rows[place]) - start].as_py())
        start = end


# A pickle can name any function to call. An array of numbers needs these, and none else is looked up.
_NUMPY = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}


class _ArraysOnly(pickle.Unpickler):
    """Reads dicts, lists, numbers, strings and numpy arrays; refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in _NUMPY:
            return _NUMPY[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")


def _batches(files: list[Path]) -> Images:
    images, labels = [], []
    for file in files:
        try:
            with file.open("rb") as stream:
                batch = _ArraysOnly(stream, encoding="bytes").load()
            pixels = np.asarray(batch[b"data"])
            if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape != (len(batch[b"labels"]), 3072):
                raise ValueError("the data are not one row of 3072 bytes a label")
            labels.append(_checked_labels(np.asarray(batch[b"labels"]), file))
        except DataError:
            raise
        # Damaged pickles raise nearly anything; what they can reach is limited above, so all of it means the same.
        except Exception as error:
            raise DataError(f"{file} is not a batch of CIFAR-10's Python version: {error}") from error
        images.append(torch.from_numpy(pixels.reshape(-1, 3, 32, 32)))
    every = torch.cat(images)
    return Images(torch.cat(labels), lambda rows: every[rows])


def _fetch() -> tuple[Images, Images]:
    both = fetch("cifar10", _WANTED, "uoft-cs/cifar10")

    def images(part: Any) -> Images:
        def pixels(rows: Tensor) -> Tensor:
            out = np.empty((len(rows), 3, 32, 32), dtype=np.uint8)
            for place, row in enumerate(part.select(rows.tolist())):
                out[place] = np.asarray(row["img"].convert("RGB")).transpose(2, 0, 1)
            return torch.from_numpy(out)

        return Images(_checked_labels(np.asarray(part["label"]), "uoft-cs/cifar10"), pixels)

    return images(both["train"]), images(both["test"])
