import json

import pytest

from command_line import invoke
from telegrad.theory import step_sizes


def call(*arguments):
    result = invoke("theory", *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_theory_reads_the_compressors_constants(tmp_path):
    file = tmp_path / "theory.json"
    code, out, _ = call("sgd(randk(k=0.1))", "d=1000", "L=2", "workers=8", "--json", str(file))
    assert code == 0
    rows = json.loads(file.read_text())["statements"]
    largest = next(row for row in rows if row["assumes"] == "any f, largest step")
    assert largest["value"] == step_sizes.sgd(L=2.0, workers=8, omega=9.0)
    assert "B7.4" in out


def test_theory_lists_its_methods_and_takes_a_bare_name():
    code, out, _ = call()
    assert code == 0
    assert "compressed_scaffnew" in out
    code, out, _ = call("ef21", "L=2", "L_mean=2.549510", "alpha=0.5")
    assert code == 0
    assert "0.122623" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ef22"], "did you mean 'ef21'"),
        (["ef21", "L=-2"], "above 0"),
        (["sgd(randk(k=0.1))"], "add for example d=100000"),
        (["sgd(randq(k=0.1))", "d=10"], "did you mean 'randk'"),
        (["sgd(randk(k=100))", "d=10"], "k=100"),
    ],
)
def test_bad_input_is_explained(arguments, said):
    code, _, err = call(*arguments)
    assert code == 2
    assert said in err
