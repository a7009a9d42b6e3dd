import pytest
import yaml

from telegrad.errors import ConfigError
from telegrad.lab import config_faults
from telegrad.lab.config import default_yaml, digest, load, parse, to_yaml
from telegrad.lab.experiment import Experiment, MethodEntry

PLAIN = {"methods": ["sgd(identity)"]}


def error_of(values):
    with pytest.raises(ConfigError) as caught:
        parse(values, "here.yaml")
    assert str(caught.value).startswith("here.yaml: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "culprit", "allowed", "example"),
    [
        ({"steps": 0}, "steps: 0", "an integer from 1", "`steps: 300`"),
        ({"steps": 2**63}, "steps: 9223372036854775808", "to 10^9", "`steps: 300`"),
        ({"seeds": 2**63}, "seeds: 9223372036854775808 seeds", "up to 100000", "`seeds: 3`"),
        ({"batch_size": 10**10}, "batch_size: 10000000000", "to 10^9", "`batch_size: 16`"),
        ({"lrs": "1e-2x"}, "lrs: '1e-2x'", "above 0", "`lrs: [0.03, 0.1, 0.3]`"),
        ({"steps": "many"}, "steps: 'many'", "an integer from 1", "`steps: 300`"),
        ({"steps": True}, "steps: true", "an integer from 1", "`steps: 300`"),
        ({"workers": 2.5}, "workers: 2.5", "an integer from 1", "`workers: 8`"),
        ({"lrs": []}, "lrs: []", "learning rates above 0", "`lrs: [0.03, 0.1, 0.3]`"),
        ({"lrs": [0.1, -1]}, "lrs[1]: -1", "learning rates above 0", "`lrs: [0.03, 0.1, 0.3]`"),
        ({"lrs": [0.1, 0.1]}, "lrs: a learning rate is listed twice", "distinct", "`lrs: [0.03, 0.1, 0.3]`"),
        ({"lrs": [float("nan")]}, "lrs[0]: nan", "learning rates above 0", "`lrs: [0.03, 0.1, 0.3]`"),
        ({"seeds": 0}, "seeds: 0", "a number of seeds from 1", "`seeds: 3`"),
        ({"seeds": [0, 0]}, "seeds: a seed is listed twice", "distinct integers", "`seeds: 3`"),
        ({"optimizer": "adam"}, "optimizer: 'adam'", "sgd or adamw", "`optimizer: sgd`"),
        ({"momentum": 1}, "momentum: 1", "[0, 1)", "`momentum: 0.9`"),
        ({"schedule": None}, "schedule: None", "constant, linear or cosine", "`schedule: cosine`"),
        ({"dirichlet": -1}, "dirichlet: -1", "from 0", "`dirichlet: 0.5`"),
        ({"target": float("inf")}, "target: inf", "value of the metric", "`target: 0.9`"),
        ({"methods": []}, "methods: []", "at least one", "`methods: ["),
        ({"methods": [3]}, "methods[0]: 3", "the spec of a method", "`spec: "),
        ({"methods": [{"label": "x"}]}, "methods[0].spec is missing", "the spec of a method", "`spec: "),
        (
            {"methods": [{"spec": "sgd(identity)", "lrs": [0]}]},
            "methods[0].lrs[0]: 0",
            "learning rates above 0",
            "`lrs: [0.03, 0.1, 0.3]`",
        ),
        ({"downlink": "topk(k=0.1)"}, "downlink: topk(k=0.1) is biased", "unbiased compressor", "`downlink: identity`"),
        ({"step": 3}, "unknown field 'step'", "did you mean 'steps'?", "`steps: 300`"),
        ({5: 3}, "unknown field", "allowed are workload, methods", "`workload: digits`"),
        (
            {"methods": [{"spec": "sgd(identity)", "lr": 1}]},
            "unknown field 'methods[0].lr'",
            "did you mean 'lrs'?",
            "`lrs: [0.03, 0.1, 0.3]`",
        ),
    ],
)
def test_an_error_names_the_field_what_is_allowed_and_an_example(values, culprit, allowed, example):
    text = error_of(PLAIN | values)
    assert culprit in text
    assert allowed in text
    assert example in text
    assert len(text.splitlines()) == 1


def test_every_field_has_a_help_text():
    assert set(config_faults._HELP) == set(Experiment.model_fields) | set(MethodEntry.model_fields)


def test_all_faults_are_reported_at_once():
    assert len(error_of(PLAIN | {"steps": 0, "workers": 0, "momentum": 2}).splitlines()) == 3


@pytest.mark.parametrize(
    ("values", "path"),
    [
        ({"methods": ["sgd(identity)", "sgd(topkk(k=0.01))"]}, "methods[1].spec"),
        ({"methods": [{"spec": "sgd(topkk(k=0.01))"}]}, "methods[0].spec"),
        ({**PLAIN, "workload": "digit"}, "workload"),
        ({**PLAIN, "downlink": "topkk(k=0.01)"}, "downlink"),
    ],
)
def test_what_is_wrong_with_a_spec_passes_through(values, path):
    assert error_of(values).startswith(f"here.yaml: {path}: unknown ")
    assert "did you mean" in error_of(values)


def test_equal_labels_are_refused_also_where_they_come_from_the_spec():
    assert "the label 'sgd(identity)'" in error_of({"methods": ["sgd(identity)", {"spec": "sgd(identity)"}]})
    assert "the label 'a b'" in error_of(
        {"methods": [{"spec": "sgd(identity)", "label": "a b"}, {"spec": "sgd(topk(k=0.1))", "label": " a  b "}]}
    )
    two = [{"spec": "sgd(identity)", "label": "plain"}, {"spec": "sgd(identity)", "label": "slow", "lrs": [0.001]}]
    assert [entry.label for entry in parse({"methods": two}).methods] == ["plain", "slow"]


@pytest.mark.parametrize("values", [{"warmup_steps": 301}, {"evaluate_every": 301}])
def test_no_part_is_longer_than_the_run(values):
    (name,) = values
    assert f"{name}: 301 exceeds the 300 steps" in error_of(PLAIN | values)


def test_adamw_takes_no_momentum():
    methods = ["sgd(identity)", {"spec": "sgd(topk(k=0.1))", "optimizer": "adamw"}]
    assert "methods[1]: momentum: 0.5 goes with `optimizer: sgd`" in error_of({"momentum": 0.5, "methods": methods})


def test_a_method_has_its_own_setting_where_it_names_one():
    experiment = parse(
        {
            "lrs": [0.3, 0.1],
            "momentum": 0.5,
            "methods": ["sgd(identity)", {"spec": "sgd(topk(k=0.1))", "momentum": 0, "optimizer": "adamw", "lrs": [1]}],
        }
    )
    plain, own = experiment.methods
    assert experiment.lrs_of(plain) == (0.1, 0.3)
    assert experiment.lrs_of(own) == (1.0,)
    assert experiment.settings_of(plain)["momentum"] == 0.5
    assert experiment.settings_of(own)["momentum"] == 0.0
    assert experiment.settings_of(own)["optimizer"] == "adamw"


def test_the_resolved_configuration_reads_back_as_the_same(tmp_path):
    experiment = parse({**PLAIN, "lrs": ["1e-5", 0.1], "seeds": 2, "dirichlet": 0.5})
    (tmp_path / "config.yaml").write_text(to_yaml(experiment))
    again = load(tmp_path / "config.yaml")
    assert again == experiment
    assert digest(again) == digest(experiment)
    assert again.seeds == (0, 1)
    assert set(yaml.safe_load(to_yaml(experiment))) == set(Experiment.model_fields)


def test_the_digest_changes_with_any_field():
    changed = [PLAIN, PLAIN | {"steps": 299}, PLAIN | {"target": 0.9}, {"methods": ["sgd(topk(k=0.1))"]}]
    assert len({digest(parse(values)) for values in changed}) == len(changed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("steps: [", "is not valid YAML"),
        ("steps: 3\nsteps: 4\nmethods: [sgd(identity)]", "'steps' is given twice"),
        ("- a", "a mapping of fields is wanted"),
        ("", "a mapping of fields is wanted"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, text, expected):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load(tmp_path / "absent.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load(tmp_path / "c.yaml")


def test_the_packaged_comparison_is_valid():
    experiment = parse(default_yaml())
    assert experiment.workload == "digits"
    assert [entry.spec for entry in experiment.methods] == [
        "sgd(identity)",
        "sgd(topk(k=0.01))",
        "sgd(randk(k=0.01))",
        "ef21_sgdm(topk(k=0.01), momentum=0.1)",
        "sgd(mlmc(stopk(s=0.01)))",
        "sgd(mlmc(stopk(s=0.01, values=sign)))",
    ]
