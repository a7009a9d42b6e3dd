"""What no theory admits is refused with the reason, and taken where allow_unsupported=true says so: one way for all."""

import dataclasses

import pytest
import torch

import telegrad as tg
from cases import ours


def names(cls):
    """Of the class's arguments."""
    return [one.name for one in dataclasses.fields(cls) if one.init]


METHODS = [cls for cls in ours("method") if "compressor" in names(cls)]
RANDK, TOPK = tg.compressor("randk(k=0.5)"), tg.compressor("topk(k=0.5)")


def unfit(cls):
    """The method of the class's example with a compressor that it refuses, or None where it takes all."""
    example = tg.method(cls.example)
    for wrong in (TOPK, RANDK):
        own = {name: getattr(example, name) for name in names(cls)} | {"compressor": wrong}
        try:
            cls(**own)
        except tg.SpecError as error:
            return own, str(error)
    return None


REFUSING = [cls for cls in METHODS if unfit(cls)]


def test_most_methods_refuse_something():
    assert len(REFUSING) >= 18


@pytest.mark.parametrize("cls", REFUSING, ids=lambda cls: cls.spec_name)
def test_the_refusal_says_how_to_do_it_all_the_same(cls):
    own, refusal = unfit(cls)
    assert "allow_unsupported=true" in refusal
    method = cls(**own | {"allow_unsupported": True})
    assert tg.method(str(method)) == method
    assert "allow_unsupported" not in str(tg.method(cls.example))


def test_it_then_runs():
    setting = {"workers": 3, "steps": 5, "lr": 0.01, "batch_size": None}
    for spec in (
        "diana(topk(k=0.5), shift_rate=0.5, allow_unsupported=true)",
        "ef21(randk(k=0.5), allow_unsupported=true)",
        "outer(topk(k=0.5), every=2, allow_unsupported=true)",
        "marina(topk(k=0.5), probability=0.5, allow_unsupported=true)",
    ):
        run = tg.simulate("quadratic(d=10)", spec, **setting)
        assert bool(torch.isfinite(run.parameters["x"]).all())


def test_it_goes_by_name_only():
    with pytest.raises(tg.SpecError, match="takes 2 arguments"):
        tg.method("diana(topk(k=0.5), 0.5, true)")
