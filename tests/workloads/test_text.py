import math

import pytest
import torch
from torch.func import functional_call, grad, vmap

from telegrad.errors import ConfigError, DataError, SpecError
from telegrad.random import Key
from telegrad.runtime.simulate import simulate
from telegrad.spec import build

SMALL = "text(layers=1, width=16, heads=2, context=8)"
TEXT = "".join(chr(97 + (i * i + i // 3) % 7) + " " * (i % 4 == 0) for i in range(2000))


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "input.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path


def load(folder, spec=SMALL):
    return build(spec, "workload").load(folder, Key())


def decoded(task, rows):
    return "".join(task.alphabet[symbol] for symbol in rows.flatten().tolist())


def test_the_windows_are_the_text_and_their_targets_one_character_on(folder):
    task = load(folder, "text(context=8, held_out_windows=1000)")
    windows = (len(TEXT) - 1) // 8
    held_out = windows // 20
    assert [len(task.test), len(task.validation), len(task.train)] == [held_out, held_out, windows - 2 * held_out]
    parts = [task.train, task.validation, task.test]
    assert decoded(task, torch.cat([part.inputs for part in parts])) == TEXT[: 8 * windows]
    assert decoded(task, torch.cat([part.targets for part in parts])) == TEXT[1 : 8 * windows + 1]


def test_fewer_windows_are_scored_where_asked_and_none_of_them_is_trained_on(folder):
    few, many = load(folder, "text(context=8, held_out_windows=3)"), load(folder, "text(context=8)")
    assert len(few.validation) == len(few.test) == 3
    assert few.test.inputs.equal(many.test.inputs[:3])
    assert few.train.inputs.equal(many.train.inputs)


def test_the_subfolder_is_found_and_a_missing_file_names_itself_and_its_source(tmp_path):
    (tmp_path / "tinyshakespeare").mkdir()
    with pytest.raises(DataError, match=r"input\.txt.*https.*neither in .* nor in its subfolder tinyshakespeare"):
        load(tmp_path)
    (tmp_path / "tinyshakespeare" / "input.txt").write_text(TEXT)
    assert len(load(tmp_path).train)


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"\xff\xfe\x00bad", "not readable UTF-8"), (b"short", "5 characters, 0 windows"), (b"", "0 ch")],
)
def test_what_is_no_text_or_too_short_is_told(tmp_path, content, told):
    (tmp_path / "input.txt").write_bytes(content)
    with pytest.raises(DataError, match=told):
        load(tmp_path)


@pytest.mark.parametrize("spec", ["text(layers=0)", "text(width=0)", "text(width=10, heads=4)", "text(context=0)"])
def test_bad_sizes_are_refused(spec):
    with pytest.raises(SpecError, match=r"allowed; for example `text\("):
        build(spec, "workload")


def test_no_symbol_sees_what_comes_after_it(folder):
    task = load(folder)
    model = task.model(Key(1))
    inputs = task.train.inputs[:1]
    changed = inputs.clone()
    changed[0, 5] = (changed[0, 5] + 1) % len(task.alphabet)
    with torch.no_grad():
        before, after = model(inputs)[0], model(changed)[0]
    assert before[:5].equal(after[:5])
    assert not before[5].equal(after[5])


def test_the_score_is_the_mean_loss_of_all_windows_and_an_untrained_model_knows_nearly_nothing(folder):
    task = load(folder)
    model = task.model(Key(0))
    with torch.no_grad():
        losses = [
            float(task.loss(model, *(part[None] for part in pair)))
            for pair in zip(task.test.inputs, task.test.targets, strict=True)
        ]
    assert task.score(model, task.test) == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    # The logits of a new model have the variance 1, so that the loss exceeds log(symbols) by about 1/2.
    assert math.log(len(task.alphabet)) - 0.2 < task.score(model, task.test) < math.log(len(task.alphabet)) + 1.2


def test_gradients_are_the_same_over_workers_at_once_and_in_turn(folder):
    task = load(folder)
    model = task.model(Key(0))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    inputs, targets = (t[:6].view(2, 3, 8) for t in (task.train.inputs, task.train.targets))

    def loss(parameters, inputs, targets):
        logits = functional_call(model, parameters, (inputs,))
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    at_once = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, inputs, targets)
    for worker in range(2):
        alone = grad(loss)(parameters, inputs[worker], targets[worker])
        for name in parameters:
            torch.testing.assert_close(at_once[name][worker], alone[name], atol=1e-6, rtol=1e-4)


def test_it_learns_and_a_split_by_class_is_refused(folder):
    result = simulate(load(folder), "sgd(identity)", workers=2, steps=30, batch_size=8, lr=0.01, optimizer="adamw")
    assert not result.higher_is_better
    assert result.records[-1]["test"] < result.records[0]["test"] - 0.5
    with pytest.raises(ConfigError, match="targets are not classes"):
        simulate(load(folder), "sgd(identity)", workers=2, steps=1, dirichlet=0.5)
