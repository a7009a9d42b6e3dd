import math

import pytest

import telegrad as tg
from command_line import invoke
from telegrad.errors import ConfigError, SpecError
from telegrad.lab.rescaling import omega_on_noise
from telegrad.theory import stationary
from telegrad.theory.noise_laws import StudentT
from telegrad.theory.scaling import Run, rescale
from telegrad.theory.sde import Setting

TUNED = Run(lr=0.02, batch_size=4, workers=8, steps=1000)


def floor(run, noise=1.0, law=None):
    more = {} if law is None else {"noise": law}
    setting = Setting(run.lr, run.workers, run.batch_size, noise, omega=run.omega, **more)
    return (stationary.sign_floor if run.optimizer == "sign" else stationary.dcsgd_floor)(
        setting, 50, *(() if run.optimizer == "sign" else (1e-9,))
    )


@pytest.mark.parametrize(
    ("new", "free"),
    [
        (Run(0.02, 4, 16), "lr"),
        (Run(0.02, 32, 8), "lr"),
        (Run(0.02, 4, 8, omega=9.0), "lr"),
        (Run(0.02, 4, 8, omega=9.0), "workers"),
        (Run(0.02, 4, 8, omega=9.0), "batch_size"),
        (Run(0.02, 4, 8, optimizer="sign"), "lr"),
        (Run(0.002, 4, 4, optimizer="sign"), "workers"),
        (Run(0.05, 16, 32, optimizer="sign"), "batch_size"),
    ],
)
def test_the_rescaled_run_has_the_same_stationary_loss(new, free):
    """D4.1, D4.2, D4.6 against the independent closed forms of D3.6 (at vanishing curvature: leading order)."""
    found = rescale(TUNED, new, free, noise=2.0).run
    assert floor(found, 2.0) == pytest.approx(floor(TUNED, 2.0), rel=1e-6)


@pytest.mark.parametrize("nu", [3.0, 5.0])
def test_a_switch_under_heavy_tails_counts_their_variance(nu):
    """SGD's floor is that of the variance σ²ν/(ν − 2), that of signs of the density at 0."""
    law = StudentT(nu)
    found = rescale(TUNED, Run(0.02, 4, 8, optimizer="sign"), noise=2.0, law=law).run
    assert floor(found, 2.0, law) == pytest.approx(floor(TUNED, 2.0, law), rel=1e-6)
    back = rescale(found, TUNED, noise=2.0, law=law).run
    assert (back.lr, back.steps) == pytest.approx((TUNED.lr, TUNED.steps))


def test_the_cookbook_of_d42_and_d43():
    """Compressing an existing run: batch, workers or steps up by 1 + ω; doubled sparsity halves η."""
    sparse = Run(0.02, 4, 8, omega=9.0)
    assert rescale(TUNED, sparse, "batch_size").run.batch_size == pytest.approx(40)
    assert rescale(TUNED, sparse, "workers").run.workers == pytest.approx(80)
    slower = rescale(TUNED, sparse, "lr").run
    assert (slower.lr, slower.steps) == (pytest.approx(0.002), pytest.approx(10_000))
    assert rescale(Run(0.02, 4, 8, omega=1.0), Run(0.02, 4, 8, omega=3.0)).run.lr == pytest.approx(0.01)


def test_signs_scale_with_the_root_of_the_batch_and_not_with_bits():
    signs = Run(0.01, 4, 8, optimizer="sign")
    assert rescale(signs, Run(0.01, 16, 8, optimizer="sign")).run.lr == pytest.approx(0.02)
    assert rescale(signs, Run(0.01, 4, 24, optimizer="sign")).run.lr == pytest.approx(0.03)
    heavier = rescale(signs, signs, noise=1.0, new_noise=3.0, law=StudentT(1.0)).run
    assert heavier.lr == pytest.approx(0.01 / 3)
    switched = rescale(TUNED, Run(0.02, 4, 8, optimizer="sign"), noise=1.5).run
    assert switched.lr == pytest.approx(0.02 * math.sqrt(2 / math.pi) * 1.5 / 2)
    assert switched.steps == pytest.approx(1000 * math.pi / 2)  # 1/ℓ²


def test_adamw_follows_the_square_root_rule():
    adam = Run(1e-3, 32, 8, optimizer="adamw", momentum=0.9, beta2=0.999, steps=1000)
    found = rescale(adam, Run(1e-3, 32, 16, optimizer="adamw", momentum=0.9, beta2=0.999)).run
    assert found.lr == pytest.approx(1e-3 * math.sqrt(2))
    assert (found.steps, found.momentum, found.beta2) == pytest.approx((500, 0.8, 0.998))


def test_momentum_counts_as_a_larger_learning_rate():
    heavy = Run(0.002, 4, 8, momentum=0.9)
    assert rescale(TUNED, Run(0.02, 4, 8, momentum=0.9)).run.lr == pytest.approx(0.002)
    found = rescale(heavy, Run(0.002, 4, 8, omega=3.0, momentum=0.9)).run
    assert (found.lr, found.steps, found.momentum) == (pytest.approx(0.0005), pytest.approx(4000), 0.9)


def test_warnings_and_refusals():
    assert "unstable" in rescale(TUNED, Run(0.02, 400, 8), smoothness=2.0).warnings[0]
    assert "pass smoothness" in rescale(TUNED, Run(0.02, 400, 8)).warnings[0]
    assert not rescale(TUNED, Run(0.02, 4, 16)).warnings
    with pytest.raises(ConfigError, match="needs noise"):
        rescale(TUNED, Run(0.02, 4, 8, optimizer="sign"))
    with pytest.raises(ConfigError, match="tune the learning rate anew"):
        rescale(TUNED, Run(0.02, 4, 8, optimizer="adamw"))
    with pytest.raises(ConfigError, match=r"momentum=0\.9: there is no rule for signs with momentum"):
        rescale(Run(0.02, 4, 8, momentum=0.9), Run(0.02, 4, 8, optimizer="sign", momentum=0.9), noise=1.0)
    with pytest.raises(
        ConfigError, match=r"lr=0\.02: the tuned run is unstable at smoothness=100: below 0\.02 is allowed"
    ):
        rescale(TUNED, Run(0.02, 4, 16), smoothness=100.0)
    assert rescale(
        Run(0.02, 4, 8, momentum=0.9), TUNED, smoothness=100.0
    ).warnings  # heavy-ball bears nearly twice as much
    with pytest.raises(ConfigError, match="noise of the tuned run"):
        rescale(TUNED, TUNED, new_noise=2.0)
    adam = Run(1e-3, 4, 8, optimizer="adamw")
    with pytest.raises(ConfigError, match="no rule for adamw under other noise"):
        rescale(adam, adam, noise=1.0, new_noise=2.0)
    with pytest.raises(ConfigError, match="too far apart"):
        rescale(Run(1e-300, 4, 1e300), Run(1e-300, 1e300, 1e300))
    for wrong in ((None, TUNED, {}), (TUNED, "sign", {}), (TUNED, TUNED, {"law": "t"})):
        with pytest.raises(ConfigError, match=r"of type .* is wanted"):
            rescale(*wrong[:2], **wrong[2])
    with pytest.raises(ConfigError, match="no variance"):
        rescale(TUNED, TUNED, law=StudentT(2.0))
    for name in ("noise", "new_noise", "smoothness"):
        for wrong in (0.0, -1.0, math.nan, math.inf):
            with pytest.raises(ConfigError, match=f"{name}=.*above 0"):
                rescale(TUNED, Run(0.02, 4, 16), **{name: wrong})
    with pytest.raises(ConfigError, match="below 1"):
        rescale(TUNED, Run(0.02, 400, 8), "workers")
    with pytest.raises(ConfigError, match="workers=0"):
        Run(0.1, 1, 0)


def test_omega_on_noise_is_that_of_the_gaussian_column():
    assert omega_on_noise(None, 10) == 0
    assert omega_on_noise("randk(k=0.1)", 1000) == pytest.approx(9.0)
    # B14's Gaussian column holds for what is not flat: far from s-Top-k's worst case of d/s − 1.
    assert 20 < omega_on_noise("mlmc(stopk(s=0.01))", 10_000) < tg.compressor("mlmc(stopk(s=0.01))").omega(10_000)
    with pytest.raises(SpecError, match="biased"):
        omega_on_noise("topk(k=0.1)", 10)


def call(*arguments):
    base = ["rescale", "--lr", "0.1", "--batch-size", "32", "--workers", "8"]
    result = invoke(*base, *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_the_command_prints_both_runs(tmp_path):
    file = tmp_path / "rescaled.json"
    code, out, _ = call("workers=16", "compressor=randk(k=0.5)", "--params", "1000", "--json", str(file))
    assert code == 0
    assert '"lr": 0.1' in file.read_text()
    assert "D4.1" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["wrokers=16"], "did you mean workers"),
        (["workers"], "NAME=VALUE"),
        (["workers=many"], "a number is wanted"),
        (["workers=-1"], "from 1"),
        (["workers=1.5"], "workers=1.5: an integer from 1 is allowed"),
        (["batch_size=0.5"], "an integer from 1"),
        (["workers=16", "--smoothness", "100"], "the tuned run is unstable"),
        (["optimizer=sign"], "needs noise"),
        (["optimizer=lion"], "sgd, sign or adamw"),
        (["compressor=topk(k=0.1)"], "biased"),
        (["workers=16", "--free", "steps"], "lr, batch_size or workers"),
        (["workers=16", "--nu", "0"], "nu=0"),
    ],
)
def test_bad_input_is_explained(arguments, said):
    code, _, err = call(*arguments)
    assert code == 2
    assert said in err
