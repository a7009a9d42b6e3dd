import inspect

import pytest

import telegrad.workloads
from telegrad.spec import build, registered
from telegrad.workloads import Split, Task, Workload, task, workload_of

# Other tests may register workloads of their own.
OURS = [cls for cls in registered("workload").values() if cls.__module__.startswith("telegrad.")]


@pytest.mark.parametrize("name", [cls.spec_name for cls in OURS])
def test_every_workload_is_registered_with_an_example_that_survives_a_round_trip(name):
    workload = build(registered("workload")[name].example, "workload")
    assert isinstance(workload, Workload)
    assert build(str(workload), "workload") == workload
    assert build(name, "workload") == type(workload)()


def test_the_package_exports_workloads_and_their_contract_only():
    exported = {getattr(telegrad.workloads, name) for name in telegrad.workloads.__all__}
    assert {"Cifar10", "Digits", "Logistic", "Quadratic"} <= {cls.__name__ for cls in OURS}
    assert exported == {Split, Task, Workload, task, workload_of, *OURS}


@pytest.mark.parametrize("cls", OURS, ids=lambda cls: cls.__name__)
def test_workloads_are_final_frozen_and_cited(cls):
    assert not inspect.isabstract(cls)
    assert not cls.__subclasses__()
    assert cls.__dataclass_params__.frozen
    assert cls.source
