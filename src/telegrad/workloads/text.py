"""A small character transformer on a text: the language model that two cores can train."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from telegrad.errors import DataError
from telegrad.random import Key
from telegrad.spec import check_that, register
from telegrad.workloads.base import LoadedTask, Split, Task, Workload
from telegrad.workloads.extras import fetch
from telegrad.workloads.initialise import build_model
from telegrad.workloads.transformer import Transformer

__all__ = ["Text", "TextTask"]

_FILE, _SUBFOLDERS = "input.txt", ("", "tinyshakespeare")
_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
_WANTED = f"the file {_FILE} (any text in UTF-8; for Tiny Shakespeare take {_URL})"
_HELD_OUT = 0.05  # the share of the text for validation, and again for test


@dataclass(frozen=True, eq=False)
class TextTask(LoadedTask):
    """A text cut into windows: inputs (n, context) and targets (n, context), the input moved on by one; int64 symbols.

    `alphabet` holds the characters in the order of their numbers.
    """

    alphabet: str
    layers: int
    width: int
    heads: int
    classes: int | None = None
    metric: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False

    def model(self, key: Key) -> nn.Module:
        """A `Transformer` without buffers."""
        context = self.train.inputs.shape[1]
        return build_model(lambda: Transformer(len(self.alphabet), self.layers, self.width, self.heads, context), key)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats a character."""
        return functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())

    def augment(self, inputs: Tensor, key: Key) -> Tensor:
        """The batch as it is."""
        return inputs

    @torch.no_grad()
    def score(self, model: nn.Module, split: Split) -> float:
        """Mean cross-entropy in nats a character, in batches of 100 windows; NaN for an empty split."""
        device = next(model.parameters()).device
        losses = [
            len(inputs) * float(self.loss(model, inputs.to(device), targets.to(device)))
            for inputs, targets in zip(split.inputs.split(100), split.targets.split(100), strict=True)
        ]
        return math.fsum(losses) / len(split) if losses else math.nan


@register(
    "text",
    example="text(layers=2, width=64)",
    source="A. Karpathy, The unreasonable effectiveness of recurrent neural networks, 2015 (Tiny Shakespeare)",
)
@dataclass(frozen=True)
class Text(Workload):
    """A decoder-only transformer of `layers`, `width` and `heads` that predicts the next character of `input.txt`.

    The text is cut into windows of `context` characters without overlap. The last twentieth is for test, the
    twentieth before it for validation, the rest for training; of validation and test, the first `held_out_windows`
    are scored. Its classes are no labels of examples, so a Dirichlet split does not apply.

    Args:
        layers: of the transformer.
        width: of its vectors.
        heads: of attention.
        context: characters of a window.
        held_out_windows: windows scored of each of validation and test.

    References:
        Karpathy, "The Unreasonable Effectiveness of Recurrent Neural Networks", 2015,
            https://karpathy.github.io/2015/05/21/rnn-effectiveness/
    """

    layers: int = 4
    width: int = 128
    heads: int = 4
    context: int = 64
    held_out_windows: int = 500

    def __post_init__(self) -> None:
        for name in ("layers", "width", "heads", "context", "held_out_windows"):
            check_that(getattr(self, name) >= 1, self, name, "an integer from 1 is allowed")
        check_that(self.width % self.heads == 0, self, "heads", f"a divisor of width={self.width} is allowed")

    def load(self, data: Path | None, key: Key) -> Task:
        """Read `input.txt` from `data` or its subfolder `tinyshakespeare`; fetch it where `data` is None.

        Raises `DataError` for a missing file, one that is no text, and one that is too short for the windows.
        """
        text, origin = _read(data)
        alphabet = "".join(sorted(set(text)))
        number = {character: place for place, character in enumerate(alphabet)}
        symbols = torch.tensor([number[character] for character in text])
        windows = (len(symbols) - 1) // self.context
        held_out = int(_HELD_OUT * windows)
        if held_out < 1:
            raise DataError(
                f"{origin} has {len(text)} characters, {windows} windows of {self.context}; at least "
                f"{round(1 / _HELD_OUT)} windows are wanted: take a longer text, or lower context"
            )
        used = windows * self.context
        inputs, targets = (symbols[start : start + used].view(windows, self.context) for start in (0, 1))
        train, validation = windows - 2 * held_out, windows - held_out
        scored = min(held_out, self.held_out_windows)

        def part(first: int, count: int) -> Split:
            return Split(inputs[first : first + count], targets[first : first + count])

        return TextTask(
            train=part(0, train),
            validation=part(train, scored),
            test=part(validation, scored),
            alphabet=alphabet,
            layers=self.layers,
            width=self.width,
            heads=self.heads,
        )


def _read(data: Path | None) -> tuple[str, str]:
    """The text and where it is from."""
    if data is None:
        lines = fetch("text", _WANTED, "text", data_files=_URL, split="train", keep_linebreaks=True)["text"]
        return "".join(lines), _URL
    candidates = [Path(data) / subfolder / _FILE for subfolder in _SUBFOLDERS]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        raise DataError(f"text looked for {_WANTED}: it is neither in {data} nor in its subfolder {_SUBFOLDERS[1]}")
    try:
        return file.read_text(encoding="utf-8"), str(file)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not readable UTF-8 text: {error}") from error
