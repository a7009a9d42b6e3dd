"""`telegrad variance`: vectors from laws and files, figures from packed messages."""

import json
import math

import numpy as np
import pytest
import torch

import telegrad as tg
from command_line import invoke
from telegrad.errors import DataError, SpecError
from telegrad.lab.variance import measure, rate_distortion
from telegrad.lab.vectors import DISTRIBUTIONS, load_tensor, quantile_vector


def run(*arguments):
    return invoke("variance", *arguments)


@pytest.mark.parametrize(
    ("name", "product"),
    [("gauss", 63_662), ("laplace", 50_002), ("t3", 41_239), ("lognormal", 2_398), ("expdecay", 4_000)],
)
def test_the_quantile_vectors_have_the_reference_norms(name, product):
    """B10.2, column linear s = 1: ‖v‖₁² / ‖v‖² of the quantile vectors at d = 1e5."""
    v = quantile_vector(name, 100_000, tg.Key(0)).double()
    assert float(v.abs().sum() ** 2 / v.square().sum()) == pytest.approx(product, rel=2e-4)


def test_key_decides_signs_and_order_only():
    first, other = (quantile_vector("t3", 1000, tg.Key(seed)) for seed in (0, 1))
    assert not torch.equal(first, other)
    assert torch.equal(first.abs().sort().values, other.abs().sort().values)


@pytest.mark.parametrize(
    ("spec", "vector", "bits", "omega"),
    [
        # B14 at 49,000 bits, rows whose wire format is ours; omega within 10 % at equal measured bits.
        ("randk(k=1527)", "gauss", 49_000, 64.3),
        ("mlmc(stopk(s=1231))", "gauss", 49_000, 50.7),
        ("mlmc(stopk(s=1231))", "t3", 49_000, 33.3),
        ("importance(k=8020)", "gauss", 49_000, 6.79),
        ("importance(k=7960)", "laplace", 49_000, 5.12),
    ],
)
def test_rows_of_the_equal_bit_table(spec, vector, bits, omega):
    found = measure(spec, quantile_vector(vector, 100_000, tg.Key(0)), tg.Key(1), 10)
    assert found.bits == pytest.approx(bits, rel=0.02)
    assert found.predicted == pytest.approx(omega, rel=0.1)
    assert abs(found.omega - found.predicted) <= 5 * found.error


def test_measured_bits_are_the_packed_bytes_and_a_deterministic_compressor_is_measured_once():
    x = quantile_vector("gauss", 1000, tg.Key(0))
    found = measure("topk(k=0.1)", x, tg.Key(1), 50)
    assert (found.repeats, found.error) == (1, 0.0)
    assert found.bits == 8 * len(tg.pack(tg.compressor("topk(k=0.1)").encode(x)))
    assert found.omega == pytest.approx(found.predicted, rel=1e-12)


def test_rate_distortion_at_half_a_bit():
    assert rate_distortion(0.49) == pytest.approx(1.03, abs=0.005)  # B14
    assert rate_distortion(2.0) == pytest.approx(0.067, abs=0.0005)


@pytest.mark.parametrize("suffix", [".npy", ".pt", ".safetensors"])
def test_tensors_come_from_files(suffix, tmp_path):
    path, x = tmp_path / f"x{suffix}", tg.Key(3).normal(60).view(6, 10).float()
    if suffix == ".npy":
        np.save(path, x.numpy())
    elif suffix == ".pt":
        torch.save({"layer": {"weight": x}, "steps": torch.tensor(3)}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file({"layer.weight": x}, path)
    assert torch.equal(load_tensor(path), x.reshape(-1))
    if suffix != ".npy":
        assert torch.equal(load_tensor(path, "layer.weight"), x.reshape(-1))
        with pytest.raises(DataError, match=r"no tensor 'bias'; it has layer\.weight"):
            load_tensor(path, "bias")


@pytest.mark.parametrize("name", ["x.npy", "x.safetensors", "x.pt", "x.csv", "missing.npy"])
def test_files_that_are_not_tensors_are_refused_by_name(name, tmp_path):
    if not name.startswith("missing"):
        (tmp_path / name).write_bytes(b"not a tensor at all")
    result = run("--input", tmp_path / name)
    assert result.exit_code == 2
    assert name in result.stderr


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1000\n"


@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is empty"),
        (POINTER, "git lfs pull"),
        (b"../.git/annex/objects/3k/X/SHA256E-s9--0.pt", "git annex get"),
        (b"<!DOCTYPE html>\n<html>", "web page"),
        (b"\0" * 600, "zeros"),
        (b"\x80\x02nonsense", "it is damaged, or no"),
    ],
)
def test_what_stands_in_place_of_the_numbers_is_named(suffix, content, reason, tmp_path):
    path = tmp_path / f"w{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as refused:
        load_tensor(path)
    assert str(refused.value).startswith(f"cannot read {path}: ")
    assert "\n" not in str(refused.value)
    result = run("--input", path)
    assert result.exit_code == 2
    assert result.stderr == f"error: {refused.value}\n"


@pytest.mark.parametrize("share", [0.01, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".npy", ".safetensors", ".pt"])
def test_files_that_were_cut_off_are_refused(suffix, share, tmp_path):
    path, x = tmp_path / f"w{suffix}", torch.ones(1000)
    if suffix == ".npy":
        np.save(path, x.numpy())
    elif suffix == ".pt":
        torch.save({"w": x}, path)
    else:
        pytest.importorskip("safetensors.torch").save_file({"w": x}, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError, match="cannot read"):
        load_tensor(path)


def test_checkpoints_of_every_kind_of_tensor_are_read(tmp_path):
    x = tg.Key(3).normal(6).float()
    kinds = {
        "float8": x.to(torch.float8_e4m3fn),
        "half": x.half(),
        "bfloat16": x.bfloat16(),
        "double": x.double(),
        "sparse": x.to_sparse(),
        "counts": torch.arange(6),
        "complex": torch.complex(x, x),
    }
    torch.save(kinds, tmp_path / "w.pt")
    for name in ("half", "bfloat16", "double", "sparse"):
        assert torch.equal(load_tensor(tmp_path / "w.pt", name), kinds[name].to_dense())
    assert torch.equal(load_tensor(tmp_path / "w.pt", "float8"), kinds["float8"].float())
    whole = load_tensor(tmp_path / "w.pt")
    assert (len(whole), whole.dtype) == (5 * 6, torch.float64)
    for name in ("counts", "complex"):
        with pytest.raises(DataError, match=f"{name} is of {kinds[name].dtype}"):
            load_tensor(tmp_path / "w.pt", name)


@pytest.mark.parametrize("dtype", [">f4", "<f4", ">f8", "f2", np.longdouble])
def test_arrays_of_any_byte_order_are_read(dtype, tmp_path):
    array = np.linspace(-1, 1, 12).reshape(3, 4).astype(dtype)
    np.save(tmp_path / "g.npy", np.asfortranarray(array))
    assert load_tensor(tmp_path / "g.npy").tolist() == array.reshape(-1).astype(float).tolist()


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.array([{"a": 1}], dtype=object), "allow_pickle"),
        (np.array(["text"]), "cannot read"),
        (np.arange(3), "only torch.int64"),
        (np.ones(3, dtype=complex), "only torch.complex128"),
    ],
)
def test_arrays_of_other_things_are_refused(array, reason, tmp_path):
    np.save(tmp_path / "g.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=reason):
        load_tensor(tmp_path / "g.npy")


def test_a_vector_that_is_not_finite_ends_with_one_line(tmp_path):
    np.save(tmp_path / "g.npy", np.array([1, np.nan], dtype=np.float32))
    result = run("--input", tmp_path / "g.npy", "--spec", "topk(k=1)")
    assert result.exit_code == 2
    assert "NaN" in result.stderr


def test_the_command_prints_draws_and_writes(tmp_path):
    specs = ("topk(k=0.1)", "mlmc(stopk(s=0.1))", "randk(k=0.1)", "identity")
    chosen = [part for spec in specs for part in ("--spec", spec)]
    result = run(*chosen, "--size", 500, "--repeats", 8, "--plot", tmp_path / "p.png", "--json", tmp_path / "v.json")
    assert result.exit_code == 0, result.stderr
    written = json.loads((tmp_path / "v.json").read_text())
    assert written["d"] == 500
    assert {row["spec"] for row in written["results"]} == set(specs)
    bits = [row["bits"] for row in written["results"]]
    assert bits == sorted(bits)
    assert all(math.isfinite(row["omega"]) for row in written["results"])
    assert all(spec in result.stdout for spec in specs)
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (("--spec", "tokp(k=1)"), "did you mean 'topk'"),
        (("--spec", "topk(k=1000)", "--size", 10), "k=1000"),
        (("--distribution", "cauchy"), "gauss, laplace, t3"),
    ],
)
def test_bad_arguments_exit_with_two_and_name_the_culprit(arguments, culprit):
    result = run(*arguments)
    assert result.exit_code == 2
    assert culprit in result.stderr


def test_a_zero_vector_has_no_relative_error(tmp_path):
    np.save(tmp_path / "zero.npy", np.zeros(10, dtype=np.float32))
    result = run("--input", tmp_path / "zero.npy")
    assert result.exit_code == 2
    assert "zero" in result.stderr


def test_unknown_distribution_raises_spec_error():
    with pytest.raises(SpecError, match="valid: gauss"):
        quantile_vector("normal", 10, tg.Key(0))


def test_every_distribution_is_finite_at_one_entry_and_at_many():
    for name in DISTRIBUTIONS:
        for d in (1, 7, 1000):
            assert bool(quantile_vector(name, d, tg.Key(0)).isfinite().all())
