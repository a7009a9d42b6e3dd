"""Warming up sends messages of what it is given, and says what was compiled."""

from telegrad.lab import warming


def test_after_warming_up_nothing_is_left_to_compile(monkeypatch):
    monkeypatch.setattr(warming, "whole_catalogue", lambda: ["topk(k=0.1)", "permk(workers=4)"])
    monkeypatch.setattr(warming, "registered", lambda kind: {})
    told = []
    warming.warm_up(told.append)
    assert told == ["topk(k=0.1)", "permk(workers=4)"]
    assert warming.warm_up().compiled == ()


def test_every_choice_among_words_is_warmed_up():
    assert {one.coder for one in warming._variants("eden(bits=1)")} >= {"entropy", "trellis"}


def test_asynchronous_methods_get_their_clock():
    from telegrad.spec import registered

    methods = registered("method")
    assert warming._clock(methods["async_sgd"]) is not None
    assert warming._clock(methods["shadowheart"]) is not None
    assert warming._clock(methods["sgd"]) is None
