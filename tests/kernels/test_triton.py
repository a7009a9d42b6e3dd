"""The forms for GPUs give the CPU's bytes: compiled where there is a GPU, else in Triton's interpreter."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from test_selecting import DTYPES, vector

import telegrad as tg
from telegrad.kernels import device
from telegrad.kernels.coding.scatter import add_at
from telegrad.kernels.quantising.bit_planes import leading_bits, plane_counts
from telegrad.kernels.quantising.rounding import rounded_to_steps
from telegrad.kernels.random_numbers.uniforms import drawn_in_proportion, uniforms
from telegrad.kernels.rotation.hadamard import rotate, rotate_back
from telegrad.kernels.selection.by_rank import SMALL, MagnitudeHistogram, largest_entries
from telegrad.kernels.statistics.magnitudes import sums_of_squares

pytest.importorskip("triton", reason="Triton is not installed: the forms for GPUs cannot run")

launching = pytest.importorskip("telegrad.kernels.gpu.launching")

GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KINDS = ["heavy", "constant", "few values", "mostly zero", "subnormal"]
LENGTH = SMALL + 1500  # three programs, the last not full


@pytest.fixture
def both(monkeypatch):
    """A call: (what `work` gives for tensors on the CPU, what it gives for them on a GPU); the second by the forms
    `expected`, and perhaps others.
    """

    def ran(work, *tensors, expected):
        on_cpu, used, find = work(*tensors), set(), device._form

        def noted(module, name):
            used.add(name)
            return find(module, name)

        with monkeypatch.context() as patch:
            patch.setattr(device, "everywhere", not torch.cuda.is_available())
            patch.setattr(device, "_form", noted)
            on_gpu = work(*(tensor.to(GPU) for tensor in tensors))
        assert used >= expected
        return on_cpu, on_gpu

    return ran


def extreme(dtype):
    """Zeros of both signs, subnormal, equal and the largest numbers among ordinary ones."""
    v, limits = vector("normal", LENGTH, dtype), torch.finfo(dtype)
    v[5::7], v[6::7], v[100:900] = limits.max, -limits.smallest_normal / 4, 0.7
    v[::11], v[1::11] = 0.0, -0.0
    return v


@pytest.mark.parametrize(("n", "start"), [(1, 0), (5000, 3), (2048, 2**31 - 5), (300, 2**40)])
def test_uniforms_are_those_of_the_key(n, start, both):
    key = tg.Key(4).fold(step=n)
    made = both(lambda at: uniforms(key, n, start, at.device), torch.zeros(1), expected={"uniforms_on"})
    assert torch.equal(made[1].cpu(), key.uniform(n, start=start))
    assert torch.equal(made[0], key.uniform(n, start=start))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_draws_are_those_of_the_cpu(dtype, both):
    v = extreme(dtype)
    for threshold in (1.3, 1e-3, float(torch.finfo(dtype).max)):
        drawn = both(lambda v: drawn_in_proportion(v, threshold, tg.Key(2)), v, expected={"drawn_in_proportion"})  # noqa: B023
        assert len(drawn[0])
        assert torch.equal(*drawn)
    for n in (0, 1, 2048):
        drawn = both(lambda v: drawn_in_proportion(v, 0.5, tg.Key(2)), v[:n], expected={"drawn_in_proportion"})
        assert torch.equal(*drawn)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", [*KINDS, "extreme"])
def test_counts_sums_and_ranks_are_those_of_the_cpu(kind, dtype, both):
    v = extreme(dtype) if kind == "extreme" else vector(kind, LENGTH, dtype)
    n, summed = len(v), dtype != torch.float64

    def found(v):
        histogram = MagnitudeHistogram(v, with_sums=summed)
        full = np.flatnonzero(histogram.counts)
        windows = [(0, 57), (1, 2), (900, 2500), (n - 2000, n), (0, n), (9, 9)]
        return {
            "counts": histogram.counts.tolist(),
            "sums": histogram.sums()[full].tolist() if summed else None,
            "entries": histogram.entries(int(full[0]), int(np.median(full))).tolist(),
            "ranked": [histogram.ranked(*window).tolist() for window in windows],
        }

    on_cpu, on_gpu = both(found, v, expected={"keys_of"})
    assert on_cpu == on_gpu


def test_many_programs_share_their_counts(both):
    """More programs than copies of the counts, and a vector as long as they are."""
    v = vector("few values", 20 * 2048, torch.bfloat16)
    chosen = both(lambda v: largest_entries(v, 700), v, expected={"keys_of"})
    assert torch.equal(*chosen)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_messages_are_added_as_by_the_cpu(dtype, both):
    n = 3000
    messages = [(tg.Key(rank).subset(n, size), tg.Key(rank).normal(size)) for rank, size in enumerate([700, 0, 1500])]
    messages.append((tg.Key(3).subset(n, 900).int(), tg.Key(3).normal(900)))  # as places are received

    def total(out):
        out = out.clone()
        for (index, numbers), weight in zip(messages, (1 / 3, 1.0, -0.7, 0.1), strict=True):
            add_at(out, [(index, numbers)], weight)
        return out.cpu()

    on_cpu, on_gpu = both(total, vector("normal", n, dtype), expected={"add_at"})
    assert torch.equal(on_cpu, on_gpu)
    assert not torch.equal(on_cpu, vector("normal", n, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding_to_steps_is_the_cpus(dtype, both):
    v = vector("heavy", 5000, dtype)
    each = tg.Key(4).uniform(50) + 0.01
    for steps, bucket, most in [
        (each, 100, 30),
        (each * 1e-4, 100, 2**20),
        (torch.full((1,), 1e-3).double(), 5000, 300),
    ]:
        symbols = both(
            lambda v: rounded_to_steps(v, steps, bucket, tg.Key(2), most),  # noqa: B023
            v,
            expected={"rounded_to_steps"},
        )
        assert symbols[0].dtype == symbols[1].dtype
        assert torch.equal(*symbols)
        assert len(symbols[0].unique()) > 3


@pytest.mark.parametrize("block", [64, 100, 512, 4100, 65536])
def test_sums_of_squares_are_formed_in_the_cpus_order(block, both):
    for dtype in (torch.float32, torch.bfloat16):
        sums = both(lambda v: sums_of_squares(v, block), vector("heavy", 9001, dtype), expected={"sums_of_squares"})
        assert torch.equal(*sums)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bit_planes_are_those_of_the_cpu(dtype, both):
    v = extreme(dtype)
    m = float(v.double().abs().max())

    def planes(v):
        return *plane_counts(v, m), *(leading_bits(v, m, *bits) for bits in [(1, 1), (9, 9), (20, 15), (62, 62)])

    for on_cpu, on_gpu in zip(*both(planes, v, expected={"plane_counts", "leading_bits"}), strict=True):
        assert on_cpu.dtype == on_gpu.dtype
        assert torch.equal(on_cpu, on_gpu)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("n", [300, 65536 + 4500])
def test_rotations_are_those_of_the_cpu(n, dtype, both):
    v = vector("mostly zero", n, dtype)
    v[n // 2] = -0.0
    for turn in (rotate, rotate_back):
        on_cpu, on_gpu = both(lambda v: turn(v, 5).cpu(), v, expected={turn.__name__})  # noqa: B023
        assert on_cpu.dtype == on_gpu.dtype
        assert on_cpu.numpy().tobytes() == on_gpu.numpy().tobytes()


SPECS = {
    "mlmc(stopk(s=0.01, values=sign))": {"keys_of"},
    "mlmc(stopk(s=0.01))": {"keys_of"},
    "topk(k=0.01)": {"keys_of"},
    "importance(k=0.01)": {"keys_of", "drawn_in_proportion"},
    "qsgd(levels=20, bucket=512)": {"sums_of_squares", "rounded_to_steps"},
    "dithering(norm=2, levels=20)": {"sums_of_squares", "rounded_to_steps"},
    "terngrad": {"rounded_to_steps"},
    "fixed_point(level=3)": {"leading_bits"},
    "mlmc(fixed_point)": {"plane_counts"},
    "srht(k=0.01)": {"rotate"},
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("spec", SPECS)
def test_messages_are_those_of_the_cpu(spec, dtype, both):
    compressor, v = tg.compressor(spec), vector("heavy", LENGTH, dtype)
    for seed in (0, 1):
        messages = both(lambda v: tg.pack(compressor.encode(v, tg.Key(seed))), v, expected=SPECS[spec])  # noqa: B023
        assert messages[0] == messages[1]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Triton's packages bring NVIDIA's assembler for x86-64")
def test_kernels_compile_for_a_gpu_without_contracted_or_approximate_arithmetic(monkeypatch, both):
    """No GPU needed: what the forms launch is compiled for compute capability 9.0 in a process of its own."""
    from triton.runtime.jit import mangle_type

    from telegrad.kernels.gpu import bit_planes, hadamard, keys, magnitudes, rounding, scatter
    from telegrad.kernels.gpu import uniforms as draws

    launched = {}

    def noted(kernel, programs, *arguments, **constants):
        launch = [kernel.fn.__module__, kernel.fn.__name__, [mangle_type(one) for one in arguments], constants]
        launched[json.dumps(launch)] = kernel.fn.__name__
        launching.launch(kernel, programs, *arguments, **constants)

    for module in (draws, hadamard, magnitudes, bit_planes, rounding, scatter, keys):
        monkeypatch.setattr(module, "launch", noted)
    v = vector("normal", LENGTH, torch.float32)

    def everything(v):
        uniforms(tg.Key(), 10, 0, v.device)
        MagnitudeHistogram(v, with_sums=True).ranked(5, 50)
        drawn_in_proportion(v, 2.0, tg.Key())
        rounded_to_steps(v, torch.ones(1).double(), LENGTH, tg.Key(), 9)
        sums_of_squares(v, 512)
        leading_bits(v, 9.0, 1, 1)
        plane_counts(v, 9.0)
        rotate(vector("normal", 65536, torch.float32).to(v.device), 1)
        add_at(v.clone(), [(torch.arange(9), v[:9])], 0.3)
        add_at(v.clone(), [(torch.arange(9).int(), v[:9])], 0.3)
        add_at(v.half(), [(torch.arange(9), v[:9])], 0.3)
        add_at(v.bfloat16(), [(torch.arange(9), v[:9])], 0.3)

    both(everything, v, expected=set())
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("compile_for_gpu.py"))],
        input="\n".join(launched),
        env={**os.environ, "TRITON_INTERPRET": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    compiled = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["kernel"] for one in compiled] == list(launched.values())
    for one in compiled:
        assert one["shared"] <= 99 * 1024, "the shared memory of a block on the smaller GPUs"
        for operation in one["operations"]:
            assert not operation.startswith("fma")
            assert ".ftz" not in operation
            assert not operation.startswith(("div.full", "div.approx"))
            assert not (operation.startswith(("atom", "red")) and ".f" in operation.partition("add")[2])
