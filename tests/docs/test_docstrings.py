"""Public docstrings have one form: a summary, every argument with its unit, what comes back, what is raised, an example
that runs.
"""

import dataclasses
import doctest
import inspect
import re

import numpy as np
import pytest
import torch

import telegrad as tg
from telegrad.citation import references
from telegrad.methods import Method
from telegrad.spec import fields_in_order, registered

FUNCTIONS = {
    **{name: getattr(tg, name) for name in tg.__all__ if inspect.isfunction(getattr(tg, name))},
    **{f"Key.{name}": thing for name, thing in inspect.getmembers(tg.Key, inspect.isfunction) if name[0] != "_"},
    **{f"Code.{name}": getattr(tg.Code, name) for name in ("within", "add_to", "decode")},
    **{f"{name}.register": getattr(tg, name).register for name in ("ddp", "fsdp", "outer")},
}
CLASSES = {name: getattr(tg, name) for name in ("Key", "Code", "Context", "Result")}
REGISTERED = [
    cls
    for kind in ("compressor", "ladder", "method", "topology", "workload")
    for cls in registered(kind).values()
    if cls.__module__.startswith("telegrad.")
]


def arguments(function):
    return [name for name in inspect.signature(function).parameters if name not in ("self", "unknown")]


def section(text, title):
    found = re.search(rf"^{title}:\n((?:    .*\n|\n)+)", inspect.cleandoc(text) + "\n", re.MULTILINE)
    return found[1] if found else ""


def args(text):
    return re.findall(r"^    (\w+):", section(text, "Args"), re.MULTILINE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_name_every_argument_and_what_they_return(name):
    function = FUNCTIONS[name]
    text = function.__doc__
    assert re.match(r"\S.*\.$", text.splitlines()[0]), "the summary is one sentence in one line"
    assert args(text) == arguments(function)
    if inspect.signature(function).return_annotation not in (None, "None"):
        assert section(text, "Returns"), name
    assert section(text, "Example"), name


@pytest.mark.parametrize("name", CLASSES)
def test_classes_name_every_field(name):
    cls = CLASSES[name]
    assert re.findall(r"^    (\w+):", section(cls.__doc__, "Attributes"), re.MULTILINE) == arguments(cls)


@pytest.mark.parametrize("cls", REGISTERED, ids=lambda cls: f"{cls.kind}-{cls.spec_name}")
def test_what_specs_name_says_what_its_arguments_are_and_where_it_comes_from(cls):
    text = inspect.getdoc(cls)
    assert re.match(r"\S.*\.$", text.splitlines()[0]), "the summary is one sentence in one line"
    common = [field.name for field in dataclasses.fields(Method)]  # it says so itself
    wanted = [field.name for field in fields_in_order(cls) if field.init and field.name not in common]
    listed = args(text)
    if like := re.search(r"arguments are those of `(\w+)`", text):
        # A method with defaults of its own for another one's arguments says what is its own, and where the rest stands.
        assert listed == [name for name in wanted if name in inspect.get_annotations(cls)]
        listed = args(inspect.getdoc(registered(cls.kind)[like[1]]))
    assert listed == wanted
    cited = " ".join(section(text, "References").split())
    for paper in references(cls):
        assert paper.title in cited
        assert paper.fields.get("url", "") in cited


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_examples_give_what_they_say(name, tmp_path, monkeypatch):
    thing = {**FUNCTIONS, **CLASSES}[name]
    monkeypatch.chdir(tmp_path)
    lines = {"tg": tg, "torch": torch, "np": np}
    examples = doctest.DocTestFinder(recurse=False).find(thing, name, globs=lines)
    runner = doctest.DocTestRunner(verbose=False, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    for one in examples:
        if one.examples:
            assert not runner.run(one).failed
