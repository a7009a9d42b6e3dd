"""Asynchronous methods with a process a worker: see asynchronous_scenarios.py."""

import asynchronous_scenarios
import pytest
from launch import launch, outputs, told_by


@pytest.fixture(scope="module")
def told():
    """What three ranks say of every situation."""
    return told_by("asynchronous_scenarios.py", 3)


@pytest.mark.xdist_group("asynchronous")
@pytest.mark.parametrize("scenario", asynchronous_scenarios.SCENARIOS)
def test_scenario(scenario, told):
    found, everything = told
    for rank in found:
        assert scenario in rank, everything
        assert not rank[scenario], rank[scenario]


@pytest.mark.xdist_group("asynchronous")
def test_a_lost_worker_ends_the_run_of_all_others_with_an_error():
    ended = launch("asynchronous_scenarios.py", 3, "lose")
    assert [one.code for one in ended] == [7, 3, 7], outputs(ended)
