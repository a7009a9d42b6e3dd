"""The public names, and the arguments of `simulate`."""

import ast
import dataclasses
import inspect
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

import telegrad as tg
from telegrad.runtime.setting import Setting


def test_every_public_name_is_there_and_documented():
    for name in tg.__all__:
        assert (getattr(tg, name).__doc__ or "").strip(), name


def test_no_two_public_names_differ_by_one_letter():
    for one, other in combinations(tg.__all__, 2):
        assert one.lower() + "s" != other.lower()
        assert other.lower() + "s" != one.lower()
        if len(one) == len(other) and one.lower() != other.lower():  # Compressor is what compressor(…) makes
            assert sum(a != b for a, b in zip(one, other, strict=True)) > 1, (one, other)


def test_own_classes_are_made_from_public_names_alone():
    for name in ("Compressor", "Method", "Ladder", "Topology"):
        assert getattr(tg, name).kind == name.lower()
    assert callable(tg.register("name", example="name", source="source"))


def test_simulate_has_every_field_of_the_setting_with_its_default():
    parameters = inspect.signature(tg.simulate).parameters
    for field in dataclasses.fields(Setting):
        assert parameters[field.name].default == field.default
        assert parameters[field.name].annotation == field.type
    assert set(parameters) - {field.name for field in dataclasses.fields(Setting)} == {
        "workload",
        "method",
        "workers",
        "unknown",
    }
    for name in set(parameters) - {"unknown"}:
        assert re.search(rf"^    {name}: ", inspect.getdoc(tg.simulate), re.MULTILINE), name


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"worker": 4}, "unknown argument 'worker'; did you mean 'workers'?"),
        ({"learning_rate": 0.1}, "learning_rate is no argument here: write lr"),
        ({"cheese": 1}, "unknown argument 'cheese'; allowed are steps, batch_size, lr"),
        ({"batchsize": 3}, "unknown argument 'batchsize'; did you mean 'batch_size'?"),
        ({"workers": 2.0}, "workers=2.0: an integer from 1"),
        ({"workers": True}, "workers=True"),
        ({"steps": 2.5}, "steps=2.5: an integer is wanted, for example steps=2"),
        ({"steps": "10"}, "steps='10': a finite number is wanted"),
        ({"lr": "0.1"}, "lr='0.1': a number, \"theory\""),
        ({"lr": float("nan")}, "lr=nan: a finite number"),
        ({"lr": -0.1}, "lr=-0.1: a number from 0"),
        ({"batch_size": 0}, "batch_size=0: a number from 1 is allowed, or None for all examples"),
        ({"evaluate_every": -1}, "evaluate_every=-1"),
        ({"chunk": 0}, "chunk=0"),
        ({"seed": 1.5}, "seed=1.5: an integer is wanted"),
        ({"seed": None}, "seed=None"),
        ({"granularity": "modell"}, "granularity='modell': 'model', 'bucket', 'tensor' is allowed"),
        ({"schedule": "cos"}, "schedule='cos'"),
        ({"gradients": "map"}, "gradients='map'"),
        ({"optimizer": "adam"}, r"optimizer='adam': 'sgd', 'adamw', or a function of (parameters, lr) is allowed"),
        ({"dirichlet": "0.5"}, "dirichlet='0.5': a finite number is wanted, or None for equal shares"),
    ],
)
def test_a_bad_argument_of_simulate_is_named(given, reason):
    with pytest.raises(tg.ConfigError, match=re.escape(reason)):
        tg.simulate("quadratic(d=16)", "sgd(identity)", **given)


def test_a_compressor_stands_for_sgd_of_it_and_numpys_numbers_are_taken():
    setting = {"lr": np.float32(0.5), "seed": np.int64(3), "steps": np.int64(2), "workers": np.int64(2)}
    one, other = (
        tg.simulate("quadratic(d=16)", method, **setting)
        for method in (tg.compressor("qsgd(levels=4)"), "sgd(qsgd(levels=4))")
    )
    assert one.ledger.bits_up_per_worker == other.ledger.bits_up_per_worker
    assert one.parameters["x"].tolist() == other.parameters["x"].tolist()


def fresh(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("module", ["telegrad", "telegrad.cli"])
def test_neither_the_package_nor_the_command_line_imports_torch_before_it_is_needed(module):
    if module == "telegrad.cli":
        pytest.importorskip("typer", reason="the command line needs typer: pip install 'telegrad[lab]'")
    assert fresh(f"import sys, {module}; print('torch' in sys.modules)") == "False\n"


def test_threads_that_ask_for_the_first_spec_at_the_same_time_all_get_it():
    code = """
from concurrent.futures import ThreadPoolExecutor
import telegrad as tg
specs = ["auto(bits=1.0)", "mlmc(stopk(s=0.1))", "topk(k=2)", "randk(k=1)"] * 2
with ThreadPoolExecutor(8) as pool:
    print([str(c) for c in pool.map(tg.compressor, specs)] == specs)
"""
    assert fresh(code) == "True\n"


def test_an_own_class_cannot_take_a_name_of_telegrads():
    code = """
import telegrad as tg
try:
    tg.register("auto", example="auto", source="mine")(type("Mine", (tg.Compressor,), {}))
except tg.SpecError as error:
    print("registered twice" in str(error))
"""
    assert fresh(code) == "True\n"


def test_what_is_imported_late_is_what_type_checkers_are_told():
    tree = ast.parse(Path(tg.__file__).read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    told = {f"{node.module}.{name.name}" for node in block.body for name in node.names}
    modules = {tg._MODULES[name] for name in ("ddp", "fsdp", "outer")}
    late = modules | {f"{module}.{name}" for name, module in tg._HOMES.items()}
    assert told == late
    assert all(getattr(tg, name) is not None for name in [*tg._HOMES, *tg._PACKAGES, *tg.__all__])
    with pytest.raises(AttributeError, match="no attribute 'compresor'"):
        _ = tg.compresor
