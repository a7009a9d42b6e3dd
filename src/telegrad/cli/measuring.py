"""The commands that measure compressors on this machine: `telegrad variance`, `bench` and `warmup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from telegrad.cli.application import JsonFile, Threads, app, console, option, write_json

__all__: list[str] = []


@app.command()
def variance(
    spec: Annotated[list[str] | None, option("A compressor's spec; may be repeated [default: a catalogue]")] = None,
    source: Annotated[
        Path | None, typer.Option("--input", help="A .npy, .safetensors, .pt or .pth file", show_default=False)
    ] = None,
    tensor: Annotated[str | None, option("Which tensor of the file [default: all, joined]")] = None,
    distribution: Annotated[
        str, typer.Option(help="Without --input: gauss, laplace, t3, lognormal or expdecay")
    ] = "gauss",
    size: Annotated[int, typer.Option(help="Entries of that vector", min=1)] = 100_000,
    repeats: Annotated[int, typer.Option(help="Messages a random compressor", min=2)] = 20,
    seed: Annotated[int, typer.Option(help="Decides every draw")] = 0,
    plot: Annotated[Path | None, option("Draw omega against bits into this PNG")] = None,
    json_file: JsonFile = None,
) -> None:
    """Measure error and bits of compressors on a tensor, from messages really packed."""
    from telegrad.lab import variance as measuring
    from telegrad.lab.tables import variance_table
    from telegrad.lab.vectors import load_tensor, quantile_vector
    from telegrad.random import Key

    key = Key(seed)
    x = quantile_vector(distribution, size, key) if source is None else load_tensor(source, tensor)
    name = f"{distribution}, {size} entries" if source is None else f"{source.name}, {x.numel()} entries"
    found = measuring.measure_all(spec or measuring.DEFAULT_SPECS, x, key, repeats)
    console().print(variance_table(found, name))
    if plot is not None:
        measuring.plot(found, name, plot)
        typer.echo(f"plot:   {plot}")
    write_json(json_file, measuring.as_json(found, name, x.numel()))


@app.command()
def bench(
    part: Annotated[str, typer.Argument(metavar="encode|decode|step", help="What is timed")],
    spec: Annotated[
        list[str] | None,
        option(
            "A compressor's spec, for `step` a method's; may be repeated; all: every example of `list` [default: a few]"
        ),
    ] = None,
    size: Annotated[
        list[float] | None, option("Entries, 1e4 to 1e8; may be repeated [default: 1e4, 1e6, 25e6]", min=1)
    ] = None,
    vector: Annotated[list[str] | None, option("gauss or heavy; may be repeated [default: both]")] = None,
    repeats: Annotated[int, typer.Option(help="Timings of each", min=1)] = 7,
    peers: Annotated[bool, typer.Option(help="Time what torch offers too")] = True,
    workers: Annotated[int, typer.Option(help="Of `step`", min=1)] = 32,
    device: Annotated[str, typer.Option(help="Where the tensors of encode and decode lie: cpu or cuda")] = "cpu",
    threads: Threads = None,
    plot: Annotated[Path | None, option("Draw the times into this PNG")] = None,
    json_file: JsonFile = None,
) -> None:
    """Time encoding, decoding or a simulated training step, beside peers, as ratios to a copy of the tensor."""
    import torch

    from telegrad.errors import ConfigError
    from telegrad.lab import bench as timing
    from telegrad.lab.tables import share_table, timing_table

    if threads is not None:
        torch.set_num_threads(threads)
    out = console()
    if part == "step":
        methods = spec or [f"sgd({compressor})" for compressor in ("identity", *timing.STEP_SPECS)]
        rows: Any = timing.bench_step(methods, workers, 20, min(repeats, 3))
        out.print(share_table(rows))
    elif part in ("encode", "decode"):
        sizes = [round(entries) for entries in size or (1e4, 1e6, 25e6)]
        chosen = list(vector or timing.VECTORS)
        specs = timing.whole_catalogue() if spec == ["all"] else spec or timing.DEFAULT_SPECS
        which: Any = part
        rows = timing.bench_codec(
            which, specs, sizes, chosen, repeats, peers, lambda text: typer.echo(text, err=True), device
        )
        for table in timing_table(rows):
            out.print(table)
    else:
        raise ConfigError(f"bench {part}: encode, decode or step is allowed")
    if plot is not None:
        from telegrad.lab.speed_plot import speed_plot

        speed_plot(rows, plot)
        typer.echo(f"plot:   {plot}")
    write_json(json_file, timing.as_json(part, rows, device))


@app.command()
def warmup() -> None:
    """Compile the loops that compressors and methods use, ahead of a job's first step, and say how long it took."""
    from telegrad.lab.warming import warm_up

    done = warm_up(lambda text: typer.echo(text, err=True))
    typer.echo(f"{len(done.compiled)} loops compiled, {done.seconds:.1f} seconds in all")
