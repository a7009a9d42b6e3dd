"""Warming up sends messages of what it is given, and says what was compiled."""

from telegrad.lab import warming
from telegrad.spec import build, registered


def test_after_warming_up_nothing_is_left_to_compile(monkeypatch):
    monkeypatch.setattr(warming, "whole_catalogue", lambda: ["topk(k=0.1)", "permk(workers=4)"])
    monkeypatch.setattr(warming, "registered", lambda kind: {})
    told = []
    warming.warm_up(told.append)
    assert told == ["topk(k=0.1)", "permk(workers=4)"]
    assert warming.warm_up().compiled == ()


def test_every_choice_among_words_is_warmed_up():
    eden = list(warming._variants(build("eden(bits=1)", "compressor")))
    assert {one.coder for one in eden} >= {"entropy", "trellis"}
    assert len({one.bits for one in eden}) > 3


def test_choices_within_a_ladder_are_warmed_up():
    assert "mlmc(stopk(s=0.01, values=sign))" in map(str, warming._variants(build("mlmc(stopk(s=0.01))", "compressor")))


def test_asynchronous_methods_get_their_clock():
    methods = registered("method")
    assert warming._clock(methods["async_sgd"]) is not None
    assert warming._clock(methods["shadowheart"]) is not None
    assert warming._clock(methods["sgd"]) is None
