"""`telegrad bench`: who is timed, on what, and what is written; never how long it took."""

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import telegrad as tg
from command_line import invoke
from telegrad.lab import bench
from telegrad.lab.peak_memory import peak_bytes
from telegrad.lab.peers import decoding_peers, encoding_peers
from telegrad.spec import names


def run(*arguments):
    return invoke("bench", *arguments)


@pytest.mark.parametrize("part", ["encode", "decode"])
def test_every_contender_is_timed_on_every_tensor(part):
    specs, peers = ["topk(k=0.01)", "importance(k=0.01)"], encoding_peers if part == "encode" else decoding_peers
    rows = bench.bench_codec(part, specs, [2000, 500], ["gauss", "heavy"], 2)
    x = torch.randn(500)
    ours = specs if part == "encode" else [name for spec in specs for name in (spec, f"eight of {spec}")]
    names = ["copy", *ours, *(name for name, *_ in (peers(x) if part == "encode" else peers(x, x.clone())))]
    tensors = [(size, vector) for size in (2000, 500) for vector in ("gauss", "heavy")]
    assert [(row.size, row.vector, row.name) for row in rows] == [(*t, name) for t in tensors for name in names]
    assert [row.ratio for row in rows if row.name == "copy"] == [1.0] * 4
    assert all(row.ours == (row.name in ours) for row in rows)
    z = torch.randn(2000, generator=torch.Generator().manual_seed(2000))
    message = tg.pack(tg.compressor("topk(k=0.01)").encode(z))
    assert next(row.bits for row in rows if row.name == "topk(k=0.01)") == 8 * len(message)


def test_all_stands_for_every_registered_compressor_and_ladder(monkeypatch):
    asked = []
    monkeypatch.setattr(bench, "bench_codec", lambda part, specs, *_: asked.extend(specs) or [])
    assert run("encode", "--spec", "all", "--size", 500).exit_code == 0
    assert {spec.split("(")[0] for spec in asked} == set(names("compressor"))
    over = [re.match(r"mlmc\((\w+)", spec) for spec in asked]
    assert {ladder[1] for ladder in over if ladder} == set(names("ladder"))


@pytest.mark.parametrize(
    "arguments",
    [("encode", "--size", 500, "--size", 900), ("decode", "--size", 500, "--vector", "gauss"), ("step",)],
    ids=["over sizes", "beside a copy", "shares"],
)
def test_the_plot_is_a_png_of_some_size(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "bench_step", lambda *_: [bench.Share("sgd(identity)", 4, 2.0, 0.5)])
    file = tmp_path / "new" / "speed.png"
    done = run(*arguments, "--repeats", 1, "--plot", file)
    assert done.exit_code == 0, done.output
    assert str(file) in done.output.replace("\n", "")
    width, height = Image.open(file).size
    assert width > 600
    assert height > 300


def test_the_peers_do_what_they_are_named_after():
    x = torch.randn(900, generator=torch.Generator().manual_seed(1))
    calls = {name: call for name, call, _ in encoding_peers(x)}
    top = calls["torch.topk(|x|, 1%)"]()
    assert sorted(top.indices.tolist()) == x.abs().topk(9).indices.sort().values.tolist()
    assert torch.equal(calls["fp16_compress_hook"](), x.half())
    step = float(x.max() - x.min()) / 255
    assert float((calls["quantization_pertensor_hook"]().dequantize() - x).abs().max()) <= 0.51 * step
    # Power iteration finds the leading left singular vectors of the 30 x 30 matrix: ‖Q‖ tends to their singular values.
    for _ in range(300):
        q = calls["powerSGD_hook, rank 4"]()
    values = torch.linalg.svdvals(x.view(30, 30))[:4]
    assert torch.linalg.svdvals(q).tolist() == pytest.approx(values.tolist(), rel=1e-2)
    out = torch.zeros(900)
    for name, call, _ in decoding_peers(x, out):
        out.zero_()
        call()
        off = float((out - x).abs().max())
        assert off == 0.0 if name == "dense add" else off < 0.52 * step or "index_add" in name


def test_the_command_prints_a_table_and_writes_the_figures(tmp_path):
    file = tmp_path / "new" / "bench.json"
    result = run("encode", "--spec", "topk(k=5)", "--size", "1e3", "--vector", "heavy", "--repeats", 1, "--json", file)
    assert result.exit_code == 0
    assert "1,000 entries, heavy" in result.stdout
    written = json.loads(file.read_text())
    assert written["bench"] == "encode"
    assert {"machine", "threads", "commit"} <= set(written)
    assert written["device"] == "cpu"
    assert {"name", "seconds", "ratio", "first_seconds", "bits", "extra_bytes"} <= set(written["results"][0])
    assert [row["name"] for row in written["results"]][:2] == ["copy", "topk(k=5)"]


def test_the_share_of_a_step_is_that_of_the_simulation(monkeypatch, tmp_path):
    def simulate(workload, method, *, workers, **_):
        assert (workload, workers) == ("digits", 32)
        return SimpleNamespace(seconds_per_step=0.5, encode_seconds_per_step=0.125)

    monkeypatch.setattr(bench, "simulate", simulate)
    result = run("step", "--spec", "sgd(topk(k=0.1))", "--json", tmp_path / "step.json")
    assert result.exit_code == 0
    assert "25.0 %" in result.stdout
    (row,) = json.loads((tmp_path / "step.json").read_text())["results"]
    assert (row["method"], row["share"], row["workers"]) == ("sgd(topk(k=0.1))", 0.25, 32)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["everything"], "encode, decode or step is allowed"),
        (["encode", "--vector", "flat", "--size", "10"], "gauss, heavy are there"),
        (["encode", "--device", "abacus", "--size", "10"], "device='abacus': cpu is there"),
        (["encode", "--spec", "topq(k=1)", "--size", "10"], "topk"),
    ],
)
def test_a_mistake_is_told(arguments, said):
    result = run(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system does not tell")
def test_the_memory_of_a_call_is_found_although_an_earlier_one_left_as_much():
    def call():
        parts = [torch.ones(1000) for _ in range(1000)]  # small ones, which the C library keeps
        return len(parts)

    x = torch.ones(1000)
    first = [peak_bytes(call, x) for _ in range(2)]
    assert min(first) > 2_000_000
