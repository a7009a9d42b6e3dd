"""Where SST-2 comes from: the two files of GLUE, or the `datasets` package."""

from __future__ import annotations

from pathlib import Path

from telegrad.errors import DataError
from telegrad.workloads.extras import fetch

__all__ = ["find_sst2"]

Sentences = tuple[list[str], list[int]]
"""The sentences and their labels: 0 negative, 1 positive."""

_SUBFOLDERS = ("", "sst2", "SST-2")
_FILES = ("train.tsv", "dev.tsv")
_WANTED = (
    "the files train.tsv and dev.tsv of GLUE's SST-2 (a line `sentence<TAB>label`, then a line an example), "
    "from https://gluebenchmark.com/tasks"
)


def find_sst2(data: Path | None) -> tuple[Sentences, Sentences]:
    """The training and the development set, from `data` or a usual subfolder, or by name where `data` is None.

    Raises `DataError` that says what was looked for and where.
    """
    if data is None:
        both = fetch("sst2", _WANTED, "stanfordnlp/sst2")
        train, dev = ((list(part["sentence"]), list(part["label"])) for part in (both["train"], both["validation"]))
        return train, dev
    for folder in (Path(data) / subfolder for subfolder in _SUBFOLDERS):
        missing = [name for name in _FILES if not (folder / name).is_file()]
        if not missing:
            return _read(folder / _FILES[0]), _read(folder / _FILES[1])
        if len(missing) < len(_FILES):
            raise DataError(f"sst2 in {folder} is incomplete: {missing[0]} missing; copy both of {', '.join(_FILES)}")
    state = "holds neither, nor do its subfolders" if Path(data).is_dir() else "is not a folder; it should hold one of"
    raise DataError(f"sst2 looked for {_WANTED}: {data} {state} {', '.join(_SUBFOLDERS[1:])}")


def _read(file: Path) -> Sentences:
    # GLUE's sentences hold single quotation marks, so that a reader of quoted CSV would join lines.
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} is not readable UTF-8 text: {error}") from error
    if lines[0].strip() != "sentence\tlabel":
        raise DataError(f"{file} does not begin with the line `sentence<TAB>label` but with {lines[0][:60]!r}")
    sentences, labels = [], []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        sentence, tab, label = line.rstrip("\r").rpartition("\t")
        if not tab or label not in ("0", "1"):
            raise DataError(f"{file}, line {number}: `sentence<TAB>0` or `sentence<TAB>1` is wanted, not {line[:60]!r}")
        sentences.append(sentence.strip())
        labels.append(int(label))
    if not sentences:
        raise DataError(f"{file} holds no examples")
    return sentences, labels
