"""A rank that sends what does not fit, or tells ranks different things: one error on all ranks that names it."""

import re

import pytest
from launch import launch, outputs

UNFIT = {
    "another length": "the message is for 13 entries, where 12 are expected",
    "too few messages": "a parcel holds 1 messages where 2 are expected",
    "too many messages": "a parcel holds 3 messages where 2 are expected",
    "none": "a parcel holds 0 messages where 2 are expected",
    "another dtype": "a message for torch.float64 where torch.float32 is expected",
    "2^36 entries": "the message is for 68719476736 entries, where 12 are expected",
    "an order": "counts on the last estimate's order",
    "no parcel": "not a parcel: it starts with 7",
}
TOO_LONG = {how: f"{number} bytes announced" for how, number in (("2^40 bytes", 2**40), ("2^62 bytes", 2**62))}
TOO_LONG["-5 bytes"] = "-5 bytes announced"


def endings(topology, *lies):
    """How each rank ended, by lie."""
    ended = launch("hostile.py", 3, topology, *lies)
    found = [dict(re.findall("ENDED (.*?): (.*)", one.output)) for one in ended]
    assert all(list(one) == list(lies) for one in found), outputs(ended)
    return {how: [one[how] for one in found] for how in lies}


@pytest.mark.parametrize(
    ("topology", "lies"), [("allgather", {**UNFIT, **TOO_LONG}), ("server", UNFIT), ("two_phase", UNFIT)]
)
def test_what_does_not_fit_is_one_error_on_all_ranks(topology, lies):
    for how, found in endings(topology, *lies).items():
        assert len(set(found)) == 1, (how, found)
        assert found[0].startswith("WireError: rank 2 sent what does not fit: "), (how, found)
        # Shards have their own numbers of entries.
        assert topology == "two_phase" or lies[how] in found[0], (how, found)


def test_ranks_that_are_told_different_things_stop_a_step_later():
    for how, found in endings("allgather", "other values", "NaN", "a failure").items():
        assert len(set(found)) == 1, (how, found)
        assert found[0].startswith("DriftError: rank 2 did not send all ranks the same"), (how, found)
