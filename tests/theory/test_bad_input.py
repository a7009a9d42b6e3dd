"""Nonsense handed to every public function of the theory: an error that names the culprit and what is allowed."""

import math

import numpy as np
import pytest
import torch
from scipy.special import ndtri

import telegrad as tg
from telegrad.errors import ConfigError, DataError
from telegrad.theory import stationary
from telegrad.theory.advice import recommend, step_factor
from telegrad.theory.cost_model import Cluster, Profile, all_reduce, step_cost
from telegrad.theory.equilibrium import equilibrium
from telegrad.theory.measuring import measure
from telegrad.theory.noise_laws import Gaussian, StudentT, Symmetric
from telegrad.theory.parallelism import Problem, ef21_sgd2m_error, ef21_sgdm_error, limit, sgd_error, train
from telegrad.theory.profiles import conversion_seconds, copy_bandwidth, profile, read_speeds
from telegrad.theory.ranges import COUNT, Range
from telegrad.theory.scaling import Run, rescale
from telegrad.theory.sde import Setting, dsgd, dsign, iterate, solve, with_curvature
from telegrad.theory.tails import hill, top_share
from telegrad.theory.units import parse_bandwidth, parse_count, parse_seconds

SETTING = Setting(0.1, workers=2)
RUN = Run(0.1, 4, 8)
PROFILE = {"spec": "a", "d": 10, "bits": 80.0, "omega": 1.0, "encode": 0.1, "decode": 0.1}
FLAT = {"setting": SETTING, "d": 3}
CURVED = FLAT | {"curvature": 1.0}
BOUND = FLAT | {"start": 1.0, "time": 1.0, "L": 2.0, "mu": 1.0}
ERROR = {"samples": 10.0, "workers": 2.0, "L": 1.0, "gap": 1.0, "sigma2": 1.0}
TRAIN = {
    "problem": Problem(np.ones(3), lambda x, count, _: np.repeat(x[:, None], count, 1), lambda x: x.sum(-1)),
    "method": "sgd", "workers": 2, "steps": 2, "lrs": np.ones(1), "key": tg.Key(0),
}  # fmt: skip
SOLVE = {"sde": dsgd(lambda x: x, SETTING), "start": np.ones((2, 3)), "times": [1.0], "step": 0.1, "key": tg.Key(0)}
ITERATE = {"method": "dsgd", "gradient": lambda x: x, "setting": SETTING, "start": np.ones((2, 3)), "counts": [1]}
NAN, INF = math.nan, math.inf
CASES = [
    (Cluster, {"workers": 8, "bandwidth": 1e9}, {"workers": [0, 2.5, NAN, "x", True], "bandwidth": [-1.0, 0, NAN]}),
    (Cluster, {"workers": 8, "bandwidth": 1e9}, {"latency": [-1, INF], "fresh_bandwidth": [0, NAN], "node": [9, 0]}),
    (Profile, PROFILE, {"d": [0, 1.5], "bits": [-1, NAN], "omega": [-1, NAN], "encode": [-1], "decode": [NAN]}),
    (all_reduce, {"cluster": Cluster(2, 1e9), "d": 10}, {"d": [0, -3, NAN], "bits": [0, -1], "convert": [-1, NAN]}),
    (step_factor, {"omega": 1.0, "workers": 2, "noise": 1.0}, {"omega": [-1, NAN], "workers": [0], "noise": [-1, NAN]}),
    (
        recommend, {"cluster": Cluster(2, 1e9), "profiles": [Profile(**PROFILE)]},
        {"noise": [-1, NAN], "steps": [0, -1, NAN, INF], "convert": [-1, NAN]},
    ),
    (equilibrium, {"compute": [1.0], "send": [1.0], "omega": 1.0, "noise": 1.0}, {"omega": [-1, NAN], "noise": [INF]}),
    (equilibrium, {"compute": [1.0], "send": [0.0], "omega": 1.0, "noise": 1.0}, {"compute": [[0.0]]}),
    (StudentT, {"nu": 1.0}, {"nu": [0, -1, INF, NAN]}),
    (
        Symmetric, {"distribution": Gaussian().cdf, "quantile": ndtri, "density": 0.4},
        {"density": [0, -1, NAN, 0.3], "second_moment": [0, NAN], "quantile": [3, None], "distribution": ["gauss"]},
    ),
    (Setting, {"lr": 0.1}, {"lr": [0, -1, NAN, INF], "workers": [0, INF], "batch": [0, NAN], "sigma": [-1, INF]}),
    (Setting, {"lr": 0.1}, {"noise": [None, "t"]}),
    (with_curvature, {"sde": SOLVE["sde"], "curvature_times_gradient": None, "lr": 0.1, "sign": 1}, {"sign": [0, 2]}),
    (solve, SOLVE, {"step": [0, -1, NAN, INF], "times": [[2.0, 1.0], [-1.0], [NAN]], "start": [np.ones(3), 1.0]}),
    (solve, SOLVE, {"start": ["x", [[1, 2], [3]]]}),
    (solve, SOLVE, {"times": [1.0, ["a"], "1"], "key": [0, None]}),
    (
        iterate, ITERATE | {"key": tg.Key(0)},
        {"method": ["sgd"], "counts": [[2, 1], [-1], [1.5], ["a"], 3], "start": [np.ones(3)], "key": [0],
         "gradient": [lambda x: x.sum(), lambda x: x[0]]},
    ),
    (stationary.dsgd_floor, FLAT, {"d": [0, 1.5]}),
    (stationary.dsgd_floor_discrete, CURVED, {"d": [0], "curvature": [0, -1, NAN]}),
    (stationary.dcsgd_floor, CURVED, {"d": [0], "curvature": [0, -1, NAN]}),
    (stationary.dcsgd_floor_discrete, CURVED, {"d": [0], "curvature": [0, -1, NAN]}),
    (stationary.sign_floor, FLAT, {"d": [0, -1]}),
    (stationary.sign_floor_refined, CURVED, {"d": [0], "curvature": [0, NAN]}),
    (stationary.majority_floor, FLAT | {"setting": Setting(0.1, workers=3)}, {"d": [0]}),
    (stationary.dsgd_bound, BOUND, {"start": [-1], "time": [-1, NAN], "L": [0], "mu": [0, -1, 3.0], "d": [0]}),
    (stationary.dcsgd_bound, BOUND, {"start": [NAN], "time": [-1], "L": [NAN], "mu": [0, 3.0], "d": [1.5]}),
    (stationary.sign_bound, BOUND, {"start": [-1], "time": [INF], "L": [0], "mu": [0, 3.0], "d": [0]}),
    (
        stationary.dcsgd_gradient_bound, {name: BOUND[name] for name in ("setting", "d", "start", "time", "L")},
        {"start": [-1, NAN], "time": [0, INF], "L": [0, NAN], "d": [0, 1.5]},
    ),
    (
        stationary.sign_gradient_bound, {name: BOUND[name] for name in ("setting", "d", "start", "time", "L")},
        {"start": [-1], "time": [0], "L": [0], "d": [0]},
    ),
    (stationary.sign_phase_one, {"start": 1.0, "time": 1.0, "mu": 1.0}, {"start": [-1], "time": [-1], "mu": [0]}),
    (sgd_error, ERROR | {"omega": 1.0}, {"samples": [0, NAN], "workers": [0], "omega": [-1], "L": [0], "gap": [0]}),
    (ef21_sgdm_error, ERROR | {"alpha": 0.5}, {"alpha": [0, 1.5, NAN], "sigma2": [-1], "samples": [0]}),
    (ef21_sgd2m_error, ERROR | {"alpha": 0.5}, {"alpha": [0, 1.5], "sigma2": [NAN], "workers": [-1]}),
    (limit, {"error": lambda m: 1 + m, "floor": 1.0}, {"floor": [0, -1, NAN, 0.1], "most": [0, INF]}),
    (Problem, {"start": np.ones(3), "draw": None, "loss": None}, {"start": [np.ones((3, 2)), np.array([NAN]), 1.0]}),
    (train, TRAIN, {"lrs": [np.array([-1.0]), np.array([NAN]), np.array([]), 0.1, "x"], "key": [0]}),
    (train, TRAIN, {"workers": [0, 1.5], "steps": [0], "k": [0, 4], "chunk": [0], "momentum": [0, 1.5, NAN]}),
    (Run, {"lr": 0.1, "batch_size": 4, "workers": 8}, {"lr": [0, NAN], "momentum": [1.0], "steps": [0], "omega": [-1]}),
    (copy_bandwidth, {"d": 10}, {"d": [0, -1, 1.5, NAN], "repeats": [0, -1, NAN]}),
    (profile, {"spec": "qsgd", "x": torch.ones(9)}, {"d": [0, -1, 1.5, NAN], "repeats": [0, -1]}),
    (conversion_seconds, {"x": torch.ones(9)}, {"d": [0, -1, NAN], "repeats": [0, 1.5]}),
    (measure, {"spec": "qsgd", "x": torch.ones(9), "key": tg.Key(0), "repeats": 1}, {"repeats": [0, -1, NAN]}),
    (hill, {"v": torch.ones(50)}, {"largest": [0, -1, 1.5]}),
    (top_share, {"v": torch.ones(50)}, {"share": [0, -1, 2, NAN]}),
    (
        tg.diagnose,
        {"model": torch.nn.Linear(2, 2), "batches": [(torch.ones(2, 2), torch.tensor([0, 1]))], "specs": ["sign"]},
        {"workers": [0, -1, NAN], "repeats": [0, 1.5]},
    ),
    (rescale, {"old": RUN, "new": RUN}, {"noise": [0, NAN], "new_noise": [-1], "smoothness": [0, INF]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("function", "given", "name", "value"),
    [(f, given, name, value) for f, given, wrong in CASES for name, values in wrong.items() for value in values],
)
def test_values_out_of_range_are_named_with_what_is_allowed(function, given, name, value):
    function(**given) if function is not with_curvature else None  # what is given otherwise is fine
    with pytest.raises(ConfigError, match=rf"{name}(=| of shape).*") as error:
        function(**(given | {name: value}))
    assert any(word in str(error.value) for word in ("allowed", "at most"))


def test_what_has_no_meaning_without_noise_or_below_stability():
    quiet = Setting(0.1, sigma=0.0)
    for call in (
        lambda: dsign(lambda x: x, quiet),
        lambda: stationary.sign_floor_refined(quiet, 3, 1.0),
        lambda: stationary.sign_bound(quiet, 1.0, 1.0, 2.0, 1.0, 3),
        lambda: stationary.sign_gradient_bound(quiet, 1.0, 1.0, 2.0, 3),
    ):
        with pytest.raises(ConfigError, match=r"sigma=0.* above 0"):
            call()
    for call in (
        lambda: stationary.dsgd_bound(Setting(1.0), 1.0, 1.0, 2.0, 1.0, 3),
        lambda: stationary.dcsgd_bound(Setting(1.0, workers=3, omega=3.0), 1.0, 1.0, 1.0, 1.0, 3),
        lambda: stationary.dcsgd_gradient_bound(Setting(1.0), 1.0, 1.0, 2.0, 3),
    ):
        with pytest.raises(ConfigError, match=r"lr=1\.0: the iteration is unstable; lower lr: below 1 is allowed"):
            call()
    wild = Setting(3.0, workers=1, omega=9.0)
    for call in (
        lambda: stationary.dcsgd_floor(wild, 3, 1.0),
        lambda: stationary.dcsgd_floor_discrete(wild, 3, 1.0),
        lambda: stationary.dcsgd_bound(wild, 1.0, 1.0, 2.0, 1.0, 3),
    ):
        with pytest.raises(ConfigError, match="unstable; lower lr"):
            call()
    heavy = Setting(0.1, noise=StudentT(1.0))
    with pytest.raises(ConfigError, match="no variance"):
        stationary.dsgd_floor(heavy, 3)


def test_a_draw_of_another_shape_is_refused():
    problem = Problem(np.ones(3), lambda x, count, _: x, lambda x: x.sum(-1))
    with pytest.raises(ConfigError, match=r"shape \(1, 3\): \(1, 2, 3\) is allowed"):
        train(**(TRAIN | {"problem": problem}))
    with pytest.raises(ConfigError, match=r"the error is nan"):
        limit(lambda m: NAN, 1.0)


def test_a_topology_that_is_none_is_refused():
    with pytest.raises(ConfigError, match="topology=ring"):
        step_cost(Cluster(2, 1e9), Profile(**PROFILE), "ring")


def test_files_of_speeds_that_are_none(tmp_path):
    with pytest.raises(DataError, match="hold no compressor"):
        read_speeds([])
    for text in ("", "[]", '{"bench": "encode"}', '{"bench": "step", "results": []}', "\0\1"):
        file = tmp_path / "speeds.json"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=r"speeds\.json"):
            read_speeds([file])


@pytest.mark.parametrize(
    ("parse", "text", "words"),
    [
        *(
            (parse_bandwidth, text, "allowed|wanted")
            for text in ("-1Gbit", "0Gbit", "1Xbit", "nan", "", "Gbit", "1e400bit", "10", "10 Mbit/h", None, 10)
        ),
        *(
            (parse_seconds, text, "allowed|wanted")
            for text in ("-1ms", "1parsec", "nan", "", "1e400", "1e308h", None, 3)
        ),
        *((parse_count, text, "allowed|wanted") for text in ("-1", "0", "1.5", "nan", "", "x", "1Q")),
    ],
)
def test_units_that_are_none_are_refused_with_those_that_are(parse, text, words):
    with pytest.raises(ConfigError, match=words):
        parse(text)


def test_ranges_say_what_they_allow():
    assert COUNT.allowed == "an integer from 1"
    assert Range(low=0, high=1, open_high=True).allowed == "a number from 0 and below 1"
    assert Range(high=1, open_low=True, what="a share").allowed == "a share above 0 up to 1"
    assert COUNT.fits(np.int64(3))
    assert not COUNT.fits(10**400)
    assert not Range(infinite=True).fits(True)
