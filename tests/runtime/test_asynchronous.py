"""Asynchronous methods with a process a worker: see asynchronous_scenarios.py."""

import asynchronous_scenarios
import pytest
from launch import check_scenario, launch, outputs


@pytest.mark.xdist_group("asynchronous")
@pytest.mark.parametrize("scenario", asynchronous_scenarios.SCENARIOS)
def test_scenario(scenario):
    check_scenario("asynchronous_scenarios.py", 3, scenario)


@pytest.mark.xdist_group("asynchronous")
def test_a_lost_worker_ends_the_run_of_all_others_with_an_error():
    ended = launch("asynchronous_scenarios.py", 3, "lose")
    assert [one.code for one in ended] == [7, 3, 7], outputs(ended)
