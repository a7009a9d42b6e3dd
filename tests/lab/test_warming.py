"""Warming up sends messages of what it is given, and says what was compiled."""

from telegrad.lab import warming


def test_after_warming_up_nothing_is_left_to_compile(monkeypatch):
    monkeypatch.setattr(warming, "whole_catalogue", lambda: ["topk(k=0.1)", "permk(workers=4)"])
    monkeypatch.setattr(warming, "registered", lambda kind: {})
    told = []
    warming.warm_up(told.append)
    assert told == ["topk(k=0.1)", "permk(workers=4)"]
    assert warming.warm_up().compiled == ()
