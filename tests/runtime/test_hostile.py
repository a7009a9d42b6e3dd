"""A rank that sends what does not fit, or tells ranks different things: one error on all ranks that names it."""

import re

import pytest
from launch import launch, outputs

UNFIT = {
    "another length": "the message is for 13 entries, where 12 are expected",
    "another shape": "a message for a tensor of shape (3, 4), where (12,) is expected",
    "too few messages": "a parcel holds 1 messages where 2 are expected",
    "too many messages": "a parcel holds 3 messages where 2 are expected",
    "none": "a parcel holds 0 messages where 2 are expected",
    "another dtype": "a message for torch.float64 where torch.float32 is expected",
    "2^36 entries": "the message is for 68719476736 entries, where 12 are expected",
    "an order": "counts on the last estimate's order",
    "no parcel": "not a parcel: it starts with 7",
}
NUMBERS = {
    "no number": "a message for a tensor of shape (1,), where () is expected",
    "a number of float32": "a message for torch.float32 where torch.float64 is expected",
}
TO_ONE = {
    "nothing": "0 bytes where a parcel is expected",
    "an empty parcel": "a parcel holds 0 messages where 2 are expected",
}
TOO_LONG = {how: f"{number} bytes announced" for how, number in (("2^40 bytes", 2**40), ("2^62 bytes", 2**62))}
TOO_LONG["-5 bytes"] = "-5 bytes announced"
DIFFERENT = ("other values", "NaN", "a failure")
SGD, OUTER = "sgd(identity)", "outer(identity, every=1)"
MARINA, SCAFFNEW = "marina(randk(k=0.5), probability=0.5)", "scaffnew(probability=0.5)"
SHADOWHEART = "shadowheart(randk(k=0.5), noise=0.0)"
WEIGHTED = "local_sgd(identity, local_lr=0.1, weighted=true)"


UNFITTING = [
    (method, topology, how, reason)
    for method, topology, lies in (
        (SGD, "allgather", {**UNFIT, **TO_ONE, **TOO_LONG}),
        (SGD, "server", UNFIT),
        (SGD, "server(rank=2)", {**UNFIT, **TO_ONE}),
        (SGD, "two_phase", {**UNFIT, **TO_ONE}),
        (MARINA, "allgather", {**UNFIT, **TO_ONE, **TOO_LONG}),
        (MARINA, "server", UNFIT),
        (MARINA, "server(rank=2)", {**UNFIT, **TO_ONE}),
        (SCAFFNEW, "allgather", {**UNFIT, **TO_ONE}),
        (SHADOWHEART, "server", UNFIT),
        (SHADOWHEART, "allgather", {**UNFIT, **TO_ONE, **TOO_LONG}),
        (WEIGHTED, "server", {"too few messages": "a parcel holds 1 messages where 3 are expected"} | NUMBERS),
        (OUTER, "allgather", {**UNFIT, **TO_ONE}),
    )
    for how, reason in lies.items()
]
DRIFTING = [
    (method, topology, how)
    for method, topology, more in (
        (SGD, "allgather", ()),
        (SGD, "server(rank=2)", ()),
        (MARINA, "allgather", ("told a failure",)),
        (MARINA, "server(rank=2)", ()),
        (SCAFFNEW, "server(rank=2)", ("told a failure",)),
        (OUTER, "server(rank=2)", ("told a failure",)),
    )
    for how in (*DIFFERENT, *more)
]


SKIPPING = [
    (method, topology, "NaN to all")
    for method in (SGD, MARINA, SCAFFNEW, OUTER)
    for topology in ("allgather", "server", "server(rank=2)")
]


@pytest.fixture(scope="module")
def endings():
    """How each rank ended, by scenario: one start of ranks for all."""
    scenarios = [*(one[:3] for one in UNFITTING), *DRIFTING, *SKIPPING]
    ended = launch("hostile.py", 3, *(word for one in scenarios for word in one))
    found = [re.findall("^ENDED (.*)", one.output, re.MULTILINE) for one in ended]
    assert all(len(one) == len(scenarios) for one in found), outputs(ended)
    return dict(zip(scenarios, zip(*found, strict=True), strict=True))


@pytest.mark.parametrize(("method", "topology", "how", "reason"), UNFITTING)
def test_what_does_not_fit_is_one_error_on_all_ranks(endings, method, topology, how, reason):
    found = endings[method, topology, how]
    assert len(set(found)) == 1, found
    assert found[0].startswith("WireError: rank 2 sent what does not fit: "), found
    # Shards have their own numbers of entries.
    assert topology == "two_phase" or reason in found[0], found


@pytest.mark.parametrize(("method", "topology", "how"), DRIFTING)
def test_ranks_that_are_told_different_things_stop_a_step_later(endings, method, topology, how):
    found = endings[method, topology, how]
    assert len(set(found)) == 1, found
    assert found[0].startswith("DriftError: rank 2 did not send all ranks the same"), found


@pytest.mark.parametrize(("method", "topology", "how"), SKIPPING)
def test_steps_in_which_a_rank_sends_nan_to_all_are_skipped_by_all(endings, method, topology, how):
    assert set(endings[method, topology, how]) == {"skipped"}
