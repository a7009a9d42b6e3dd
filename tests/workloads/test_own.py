import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import telegrad as tg
from telegrad.workloads import workload_of

X = torch.randn(200, 6, generator=torch.Generator().manual_seed(1))
LABELS = (X.sum(1) > 0).long()


class Pairs(torch.utils.data.Dataset):
    def __init__(self, inputs, targets):
        self.inputs, self.targets = inputs, targets

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, i):
        return self.inputs[i], self.targets[i]


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def test_a_dataset_a_model_and_a_loss_train_in_the_simulator():
    own = tg.task(net, Pairs(X, LABELS))
    result = tg.simulate(own, "sgd(topk(k=0.5))", workers=2, steps=60, batch_size=8, lr=0.5, seed=0)
    assert result.records[-1]["test"] > 0.8
    assert own.metric == "accuracy"
    assert own.higher_is_better
    assert own.classes == 2


def test_parts_are_disjoint_and_cover_everything():
    own = tg.task(net, (X, LABELS))
    rows = torch.cat([own.train.inputs, own.validation.inputs, own.test.inputs])
    assert [len(own.validation), len(own.test), len(rows)] == [20, 20, 200]
    assert len(torch.unique(rows, dim=0)) == 200


def test_given_parts_are_taken_as_they_are():
    own = tg.task(
        net, (X[:100], LABELS[:100]), validation=(X[100:150], LABELS[100:150]), test=Pairs(X[150:], LABELS[150:])
    )
    assert torch.equal(own.train.inputs, X[:100])
    assert torch.equal(own.validation.targets, LABELS[100:150])
    assert torch.equal(own.test.inputs, X[150:])


def test_float_targets_are_scored_by_the_loss():
    own = tg.task(nn.Linear(6, 1), (X, X.sum(1, keepdim=True)), functional.mse_loss)
    model = own.model(tg.Key(0))
    expected = functional.mse_loss(model(own.test.inputs), own.test.targets).item()
    assert own.metric == "loss"
    assert not own.higher_is_better
    assert own.score(model, own.test) == pytest.approx(expected, rel=1e-6)
    assert math.isnan(own.score(model, own.test.rows(torch.empty(0, dtype=torch.int64))))


def test_models_of_one_seed_are_alike_and_torchs_generator_is_undisturbed():
    own, before = tg.task(net, (X, LABELS)), torch.random.get_rng_state()
    one, same, other = (own.model(tg.Key(seed))[0].weight for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_module_is_copied_and_never_trained_itself():
    module = net()
    weights = module[0].weight.clone()
    tg.simulate(tg.task(module, (X, LABELS)), "sgd(identity)", workers=2, steps=2, batch_size=8, lr=0.5)
    assert torch.equal(module[0].weight, weights)


def test_a_bert_is_a_task_in_a_few_lines():
    from transformers import BertConfig, BertForSequenceClassification

    class Sentences(nn.Module):
        def __init__(self):
            super().__init__()
            config = BertConfig(
                vocab_size=64, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32,
                max_position_embeddings=16, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
            )  # fmt: skip
            self.bert = BertForSequenceClassification(config)

        def forward(self, tokens):
            return self.bert(tokens).logits

    tokens = torch.randint(0, 64, (80, 10), generator=torch.Generator().manual_seed(2))
    own = tg.task(Sentences, (tokens, (tokens[:, 0] < 32).long()))
    result = tg.simulate(own, "sgd(auto(bits=1))", workers=2, steps=2, batch_size=4, gradients="loop")
    assert 0 <= result.records[-1]["test"] <= 1


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((lambda width: nn.Linear(6, width), (X, LABELS)), "without arguments"),
        (("net", (X, LABELS)), "torch.nn.Module"),
        ((net, [1, 2, 3]), "a pair"),
        ((net, X), "two tensors"),
        ((net, Pairs([torch.ones(2), torch.ones(3)], [0, 1])), "one shape"),
        ((net, (X, LABELS[:5])), "200 inputs and 5 targets"),
        ((net, (X[:2], LABELS[:2])), "too few"),
    ],
)
def test_bad_arguments_say_what_is_wanted(arguments, match):
    with pytest.raises(tg.InputError, match=match):
        tg.task(*arguments)


def test_a_path_leads_to_a_task_a_workload_or_what_makes_one(tmp_path, monkeypatch):
    (tmp_path / "my_work.py").write_text(
        "import torch\nimport telegrad as tg\nx = torch.arange(120.).view(40, 3)\n"
        "def made():\n    return tg.task(torch.nn.Linear(3, 2), (x, (x[:, 0] > 60).long()))\n"
        "def one(size):\n    return made()\n"
        "ready = made()\nfrom telegrad.workloads import Digits\nnumber = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    for name in ("made", "ready", "Digits"):
        workload = workload_of(f"my_work:{name}")
        assert str(workload) == f"my_work:{name}"
        assert len(workload.load(None, tg.Key()).train) in (32, 1197)
    with pytest.raises(tg.DataError, match="leads to a int"):
        workload_of("my_work:number").load(None, tg.Key())
    with pytest.raises(
        tg.DataError, match="my_work:one is called without arguments, and cannot be: missing a required"
    ):
        workload_of("my_work:one").load(None, tg.Key())
    with pytest.raises(tg.DataError, match="has no other"):
        workload_of("my_work:other").load(None, tg.Key())
    with pytest.raises(tg.DataError, match="no module no_such_module"):
        workload_of("no_such_module:x").load(None, tg.Key())
    with pytest.raises(tg.SpecError, match=r"package\.module:Name"):
        workload_of("my_work:")
