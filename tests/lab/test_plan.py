"""What is run next: learning rates first, widened at their edges, then seeds round by round."""

import pytest

from telegrad.lab.config import parse
from telegrad.lab.finished_run import FinishedRun
from telegrad.lab.plan import Left, left, missing, next_rate

GRID = (0.1, 0.3, 0.9)


def finished(lr, validation, label="a", seed=0):
    return FinishedRun(
        label=label,
        spec="sgd(identity)",
        lr=lr,
        seed=seed,
        phase="search",
        diverged=validation is None,
        records=[] if validation is None else [{"step": 1, "validation": validation, "test": 0.0}],
        ledger=None,
        metric="accuracy",
        higher_is_better=True,
        parameters=1,
        seconds_per_step=1.0,
        encode_seconds_per_step=0.0,
        provenance={},
    )


def searched(**validation):
    return {float(lr): finished(float(lr), value) for lr, value in validation.items()}


@pytest.mark.parametrize(
    ("validation", "wanted"),
    [
        ({}, 0.1),
        ({"0.1": 0.5}, 0.3),
        ({"0.1": 0.5, "0.3": 0.6, "0.9": 0.7}, 2.7),  # the greatest is best
        ({"0.1": 0.7, "0.3": 0.6, "0.9": 0.5}, 0.0333),  # the least is best
        ({"0.1": 0.5, "0.3": 0.7, "0.9": 0.6}, 0.52),  # between the best and its better neighbour
        ({"0.1": 0.6, "0.3": 0.7, "0.9": 0.5}, 0.173),
        ({"0.1": 0.6, "0.3": 0.7, "0.9": None}, 0.173),
        ({"0.1": None, "0.3": None, "0.9": None}, 0.0333),
        ({"0.1": 0.5, "0.3": 0.5, "0.9": 0.5}, 2.7),  # all guess
        ({"0.1": 0.5, "0.3": 0.5, "0.9": None}, 0.173),
        ({"0.1": 0.5, "0.3": 0.6, "0.9": 0.7, "2.7": 0.8}, 8.1),
        ({"0.1": 0.5, "0.3": 0.6, "0.9": 0.7, "2.7": 0.8, "8.1": 0.1}, None),
    ],
)
def test_the_next_rate_goes_where_the_best_one_points(validation, wanted):
    assert next_rate(GRID, 5, searched(**validation)) == wanted


def test_without_a_number_of_runs_the_grid_is_all():
    assert next_rate(GRID, None, searched(**{"0.1": 0.1, "0.3": 0.2, "0.9": 0.3})) is None
    assert next_rate((0.1,), 2, searched(**{"0.1": 0.1})) == pytest.approx(0.0333)


def experiment(**more):
    methods = [{"label": name, "spec": "sgd(identity)"} for name in ("a", "b")]
    return parse({"methods": methods, "lrs": [0.1, 0.3], "seeds": 3, "steps": 10, **more})


def test_every_method_gets_as_many_runs_to_be_tuned_and_then_its_seeds_by_rounds():
    wanted, runs, order = experiment(tuning_runs=4), [], []
    while cells := sorted(missing(wanted, runs), key=lambda cell: cell.stage):
        assert left(wanted, runs) == Left(12 - len(runs), 10 * (12 - len(runs)))
        cell = cells[0]
        order.append((cell.entry.label, cell.seed, cell.phase))
        # "a" likes small rates, "b" large ones.
        value = -cell.lr if cell.entry.label == "a" else cell.lr
        runs.append(finished(cell.lr, value, cell.entry.label, cell.seed))
    assert left(wanted, runs) == Left(0, 0)
    assert order == [("a", 0, "search")] * 4 + [("b", 0, "search")] * 4 + [
        (label, seed, "repeat") for seed in (1, 2) for label in ("a", "b")
    ]
    rates = {label: sorted({run.lr for run in runs if run.label == label}) for label in "ab"}
    assert rates == {"a": [0.0111, 0.0333, 0.1, 0.3], "b": [0.1, 0.3, 0.9, 2.7]}
    assert {run.lr for run in runs if run.seed} == {0.0111, 2.7}


def test_a_method_that_diverged_everywhere_has_nothing_left():
    runs = [finished(lr, None, label) for lr in (0.1, 0.3) for label in "ab"]
    assert missing(experiment(), runs) == []
    assert left(experiment(), runs) == Left(0, 0)
