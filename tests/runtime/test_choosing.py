"""What is chosen from given numbers: a pure function, over a grid of links."""

from dataclasses import replace

import pytest
import torch

import telegrad as tg
from telegrad.runtime.choosing import CANDIDATES, HALF, PLAIN, Automatic, Way, automatic, decide
from telegrad.theory.cost_model import Cluster, Profile, all_reduce, step_cost

D = 25_000_000
LINKS = (1e7, 1e8, 1e9, 1e10, 1e11, 4e11)
PROFILES = (
    Profile("randk(k=1.0, values=bf16)", D, 16.0 * D, 5e-6, 6e-9 * D, 2e-9 * D),
    Profile("auto(bits=0.1)", D, 0.1 * D, 4.0, 30e-9 * D, 1e-9 * D),
    Profile("auto(bits=1.0)", D, 1.0 * D, 0.38, 60e-9 * D, 9e-9 * D),
    Profile("auto(bits=3.0)", D, 3.0 * D, 0.0185, 60e-9 * D, 9e-9 * D),
)


def cluster(bandwidth, workers=8, compute=0.2):
    return Cluster(workers, bandwidth, 1e-4, compute, efficiency=1.0)


def choose(where, measured=None, patience=2.0, profiles=PROFILES):
    return decide(where, profiles, D, 4 * D, patience, measured or {})


def reality(where, way, slower=1.0):
    """Seconds a step of `way`: as predicted, compressors `slower`."""
    if way == PLAIN:
        return all_reduce(where, D).seconds
    profile = next(one for one in PROFILES if one.spec == way.spec)
    return slower * step_cost(where, profile, way.topology).seconds


def settled(where, slower=1.0, patience=2.0):
    """What trials lead to, and all that were made."""
    measured = {}
    for _ in range(10):
        choice = choose(where, measured, patience)
        if choice.settled:
            return choice, measured
        assert choice.way not in measured  # every trial tells something new
        measured[choice.way] = reality(where, choice.way, slower)
    raise AssertionError("no end of trials")


def test_10_mbit_names_compression_at_once_and_400_gbit_none():
    slow, fast = choose(cluster(1e7)), choose(cluster(4e11))
    assert slow.way.spec.startswith("auto(bits=")
    assert fast.way == PLAIN
    assert PLAIN not in settled(cluster(1e7))[1]  # a step of plain DDP would take two and a half minutes
    assert settled(cluster(4e11))[0].way == PLAIN


def test_on_a_grid_the_least_time_to_a_target_is_taken_and_plain_ddp_within_five_percent():
    for bandwidth in LINKS:
        for workers in (2, 8, 64):
            where = cluster(bandwidth, workers)
            choice, _ = settled(where)
            plain = reality(where, PLAIN)
            best = plain
            for profile in PROFILES:
                for topology, second in (("allgather", 0.0), ("two_phase", profile.omega)):
                    factor = (1 + profile.omega / workers) * (1 + second)
                    if factor <= 2.0:
                        best = min(best, factor * reality(where, Way(profile.spec, topology)))
            taken = next(option for option in choice.options if option.way == choice.way)
            assert taken.to_target == pytest.approx(best if best <= 0.95 * plain else plain), (bandwidth, workers)


def test_a_compressor_that_proves_slower_than_predicted_never_ends_above_plain_ddp():
    for bandwidth in LINKS:
        for slower in (1.5, 3.0, 10.0, 1000.0):
            where = cluster(bandwidth)
            choice, measured = settled(where, slower)
            taken = next(option for option in choice.options if option.way == choice.way)
            assert taken.measured
            assert taken.seconds <= reality(where, PLAIN)
            assert len(measured) <= 5


def test_patience_bounds_the_steps():
    where = cluster(1e7)
    for patience, specs in ((1.0, set()), (1.01, {PROFILES[0].spec, PROFILES[3].spec}), (1.1, {PROFILES[2].spec})):
        allowed = {option.way.spec for option in choose(where, patience=patience).options} - {"none"}
        assert allowed >= specs if specs else not allowed
    # 1 + .38/8 over allgather; over two_phase (1 + .38)(1 + .38/8)
    factors = {option.way: option.factor for option in choose(where).options}
    assert factors[Way("auto(bits=1.0)", "allgather")] == pytest.approx(1.0475)
    assert factors[Way("auto(bits=1.0)", "two_phase")] == pytest.approx(1.38 * 1.0475)
    assert Way("auto(bits=0.1)", "two_phase") not in factors


SHORT = (
    Profile("auto(bits=0.03)", D, 0.03 * D, 36.0, 30e-9 * D, 1e-9 * D),
    Profile("auto(bits=0.1)", D, 0.1 * D, 10.0, 30e-9 * D, 1e-9 * D),
    Profile("auto(bits=0.3)", D, 0.3 * D, 2.6, 40e-9 * D, 2e-9 * D),
    *PROFILES[2:],
)


def test_what_noise_costs_is_seen_where_a_quicker_step_may_come_of_it():
    """Short codes are beyond patience by their bounds: the quickest within it is tried, and then they are taken."""
    where = cluster(1e9, workers=4)
    first = decide(where, SHORT, D, 4 * D, 10.0, {}, harm=None)
    within = [option for option in first.options if option.way not in (PLAIN, HALF)]
    assert first.way == min(within, key=lambda option: option.seconds).way
    assert not first.settled
    assert max(option.factor for option in first.options) <= 10.0
    measured = {first.way: 1.0, PLAIN: reality(where, PLAIN)}
    assert decide(where, SHORT, D, 4 * D, 10.0, measured, harm=1e-3).way.spec == "auto(bits=0.03)"
    assert decide(where, SHORT, D, 4 * D, 10.0, measured, harm=1.0).way.spec != "auto(bits=0.03)"
    assert decide(cluster(4e11), SHORT, D, 4 * D, 10.0, {}, harm=None).way == PLAIN


def test_by_default_patience_leaves_short_codes_to_their_time_to_the_target():
    """Over 1 Mbit/s four ranks' messages are all that counts: bits (1 + ω/M), least at .1 bits an entry: 1 + 10/4."""
    slow = cluster(1e6, workers=4)
    first = choose(slow, patience=Automatic().patience, profiles=SHORT)
    assert first.way == Way("auto(bits=0.1)", "allgather")
    assert first.options[0].factor == pytest.approx(3.5)
    assert choose(slow, patience=2.0, profiles=SHORT).way.spec == "auto(bits=0.3)"


def test_the_noisier_the_gradients_the_longer_the_code():
    """From 1 + ω/M steps without noise to 1 + ω where noise is all there is."""
    slow = cluster(1e6, workers=4)
    chosen = [decide(slow, SHORT, D, 4 * D, 10.0, {}, noise).options[0] for noise in (0.0, 1.0, 100.0, float("inf"))]
    lengths = [float(option.way.spec.partition("=")[2].rstrip(")")) for option in chosen]
    assert lengths == sorted(lengths)
    assert lengths[0] == 0.1 < lengths[-1]
    assert chosen[-1].way == Way("auto(bits=1.0)", "two_phase")
    assert chosen[-1].factor == pytest.approx(1.38**2)


def test_an_all_reduce_in_bfloat16_is_taken_where_halving_the_bytes_is_all_that_pays():
    where = cluster(1e10, compute=0.05)
    plain = reality(where, PLAIN)
    half = all_reduce(where, D, 16.0, 0.01).seconds
    assert half < 0.95 * plain
    choice = decide(where, (), D, 4 * D, 10.0, {PLAIN: plain}, halving=0.01)
    assert (choice.way, choice.settled) == (HALF, False)
    assert choice.options[0].seconds == half
    assert decide(where, (), D, 4 * D, 10.0, {PLAIN: plain, HALF: half}, halving=0.01).settled
    assert decide(where, (), D, 4 * D, 10.0, {PLAIN: plain, HALF: plain}, halving=0.01).way == PLAIN
    assert decide(where, (), D, 4 * D, 10.0, {PLAIN: plain}).way == PLAIN


def test_a_measured_step_counts_in_place_of_the_predicted():
    where = cluster(1e9)
    first = choose(where)
    assert (first.way, first.settled) == (PLAIN, False)
    bf16 = choose(where, {PLAIN: 10.0})
    assert bf16.way != PLAIN
    assert not bf16.settled
    again = choose(where, {PLAIN: 10.0, bf16.way: 9.6})
    assert again.way not in (PLAIN, bf16.way)
    alone = replace(where, workers=1)
    assert choose(alone).way == PLAIN


def test_what_does_not_fit_is_left_out():
    profiles = (replace(PROFILES[2], encode=float("inf")),)
    assert choose(cluster(1e7), profiles=profiles).way == PLAIN


def test_the_reason_names_both_times_and_the_link():
    reason = settled(cluster(1e7))[0].reason
    for words in ("(measured)", "instead of", "(predicted)", "times the steps", "10 Mbit/s with 0.1 ms latency"):
        assert words in reason


def test_words_for_the_rule():
    assert automatic("auto") == automatic("auto()") == Automatic()
    assert automatic(" auto(patience=1.2, every=50)") == Automatic(1.2, 50)
    assert automatic(Automatic(1.5)) == Automatic(1.5)
    for other in ("auto(bits=1)", "auto(0.5)", "auto(omega=0.1)", "sgd(auto(bits=1))", "topk(k=1)", "auto((", 3):
        assert automatic(other) is None
    with pytest.raises(tg.SpecError, match="patience"):
        automatic("auto(patience=0.5)")
    with pytest.raises(tg.SpecError, match="every"):
        automatic("auto(every=2)")
    with pytest.raises(tg.SpecError, match="bits"):
        automatic("auto(patience=1.2, bits=1)")
    with pytest.raises(tg.SpecError, match="patience"):
        Automatic(float("nan"))


def test_all_candidates_are_unbiased_and_have_no_memory():
    for spec in CANDIDATES:
        assert tg.compressor(spec).unbiased, spec
        assert not tg.method(spec).worker_init(8, torch.float32), spec
