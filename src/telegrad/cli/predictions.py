"""The commands that predict: `telegrad theory`, `advise`, `rescale` and `diagnose`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from telegrad.cli.application import JsonFile, app, console, option, write_json

__all__: list[str] = []


@app.command()
def theory(
    method: Annotated[
        str | None,
        typer.Argument(
            metavar="METHOD", help="A name such as diana, or a spec such as sgd(randk(k=0.01)) [default: a list]"
        ),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=NUMBER", help="What is known, for example L=2 omega=9 workers=8"),
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Print step sizes and convergence bounds of a method for given constants, the papers' and the corrected ones.

    Constants that differ between workers only are taken to be equal where they are not given.
    """
    from telegrad.lab import theory_table as tables
    from telegrad.theory.constants import CONSTANTS, parse_constants

    out = console()
    if method is None:
        out.print(tables.methods_table())
        out.print(tables.constants_table(list(CONSTANTS)))
        return
    name, known = tables.method_and_constants(method, parse_constants(constants or []))
    found = tables.lines(name, known)
    out.print(tables.theory_table(name, found))
    used = {constant for line in found for constant in line.statement.wants}
    out.print(tables.constants_table([constant for constant in CONSTANTS if constant in used]))
    write_json(json_file, tables.as_json(name, known, found))


@app.command()
def advise(
    params: Annotated[str, option("Parameters of the model, for example 25e6 or 25M", metavar="NUMBER")],
    workers: Annotated[str, option("Workers", metavar="NUMBER")],
    bandwidth: Annotated[str, option("Of a worker's link, for example 1Gbit or 12.5MB/s", metavar="RATE")],
    latency: Annotated[str, typer.Option(help="One way, for example 0.1ms", metavar="TIME")] = "0.1ms",
    compute: Annotated[str, typer.Option(help="Forward and backward of a step", metavar="TIME")] = "100ms",
    overlap: Annotated[float, typer.Option(help="Share of compute that communication may run beside")] = 0.0,
    noise: Annotated[
        float,
        typer.Option(help="Gradient noise scale over the batch of all workers; `telegrad diagnose` measures it"),
    ] = 1.0,
    steps: Annotated[str, typer.Option(help="Steps to the target uncompressed", metavar="NUMBER")] = "10000",
    node: Annotated[int, typer.Option(help="Workers in a machine, for the topology hierarchical", min=1)] = 1,
    node_bandwidth: Annotated[str, typer.Option(help="Between them", metavar="RATE")] = "100Gbit",
    sharing: Annotated[float, typer.Option(help="Workers that share a processor as this machine's")] = 1.0,
    spec: Annotated[
        list[str] | None, option("A compressor's spec; may be repeated [default: nine]", metavar="SPEC")
    ] = None,
    topology: Annotated[
        list[str] | None,
        option("allgather, two_phase, server or hierarchical; may be repeated [default: the first two]"),
    ] = None,
    gradient: Annotated[
        Path | None, option("A gradient of yours, .npy or .safetensors [default: t3 quantiles]")
    ] = None,
    speeds: Annotated[
        list[Path] | None,
        option("Files of `bench encode --json` and `bench decode --json` [default: measured on the spot]"),
    ] = None,
    plot: Annotated[
        Path | None, option("Draw time to the target against bandwidth into this PNG", dir_okay=False)
    ] = None,
    json_file: JsonFile = None,
) -> None:
    """Predict step times and bytes of compressors over topologies, and say which to use, or not to compress.

    Encoding and decoding are timed on this machine, on up to a million entries.
    """
    from dataclasses import replace

    from telegrad.lab import advice_report as shown
    from telegrad.lab.vectors import load_tensor, quantile_vector
    from telegrad.random import Key
    from telegrad.theory import profiles as costs
    from telegrad.theory.advice import Advice, recommend
    from telegrad.theory.cost_model import Cluster, checked_topology
    from telegrad.theory.units import parse_bandwidth, parse_count, parse_seconds

    d, count = parse_count(params, "params"), parse_count(workers, "workers")
    topologies = [checked_topology(name) for name in topology or ("allgather", "two_phase")]
    cluster = Cluster(
        count,
        parse_bandwidth(bandwidth),
        parse_seconds(latency, "latency"),
        parse_seconds(compute, "compute"),
        node,
        parse_bandwidth(node_bandwidth, "node_bandwidth"),
        overlap=overlap,
        sharing=sharing,
        memory_bandwidth=costs.copy_bandwidth(d),
        fresh_bandwidth=costs.copy_bandwidth(d, fresh=True),
    )
    goal = parse_count(steps, "steps")
    known = costs.read_speeds(speeds) if speeds else None
    x = load_tensor(gradient) if gradient else quantile_vector("t3", min(d, 1_000_000), Key(0))
    candidates = spec or (list(known) if known else list(costs.CANDIDATES))
    found = [costs.profile(one, x, d, speeds=known) for one in candidates]
    convert = costs.conversion_seconds(x, d)

    def ask(there: Cluster) -> Advice:
        return recommend(there, found, topologies, noise, goal, convert)

    advice, out = ask(cluster), console()
    out.print(shown.advice_table(advice))
    for line in shown.advice_lines(advice):
        typer.echo(line)
    source = gradient.name if gradient else "the quantiles of Student's t with 3 degrees of freedom"
    typer.echo(f"  ω and bits on {source}; speeds of this machine" + (" from files" if known else ""))
    if plot is not None:
        shown.advice_plot(lambda rate: ask(replace(cluster, bandwidth=rate)), advice, plot)
        typer.echo(f"plot:   {plot}")
    write_json(json_file, shown.advice_json(advice))


@app.command()
def rescale(
    lr: Annotated[float, option("The tuned learning rate")],
    batch_size: Annotated[float, option("Examples a worker and step")],
    workers: Annotated[float, option("Workers")],
    changes: Annotated[
        list[str],
        typer.Argument(metavar="NAME=VALUE", help="What changes, for example workers=16 compressor=randk(k=0.1)"),
    ],
    compressor: Annotated[str | None, option("The tuned run's compressor [default: none]", metavar="SPEC")] = None,
    params: Annotated[str, typer.Option(help="Entries that a compressor sees", metavar="NUMBER")] = "1e6",
    optimizer: Annotated[str, typer.Option(help="sgd, sign (the mean of workers' signs) or adamw")] = "sgd",
    momentum: Annotated[float, typer.Option(help="Of sgd, or beta1 of adamw")] = 0.0,
    steps: Annotated[float, typer.Option(help="Steps of the tuned run")] = 1000,
    free: Annotated[str, typer.Option(help="What the rule sets: lr, batch_size or workers")] = "lr",
    noise: Annotated[
        float | None, option("Scale of a coordinate's gradient noise for one example, to switch to or from sign")
    ] = None,
    nu: Annotated[float | None, option("Student's t noise with so many degrees [default: Gaussian]")] = None,
    smoothness: Annotated[float | None, option("L, to check that the new learning rate is stable")] = None,
    json_file: JsonFile = None,
) -> None:
    """Rescale a tuned run's hyperparameters when workers, batch, bits or the optimizer change.

    Options describe the tuned run; NAME=VALUE what changes: workers, batch_size, compressor, omega, optimizer,
    momentum, noise. `omega` is that of a gradient that is mostly noise, as it is near the end of training.
    """
    from dataclasses import asdict

    from telegrad.lab import rescaling
    from telegrad.theory.noise_laws import Gaussian, StudentT
    from telegrad.theory.scaling import rescale as rescaled
    from telegrad.theory.units import parse_count

    options = {"lr": lr, "batch_size": batch_size, "workers": workers, "steps": steps, "momentum": momentum}
    set_by_rule = rescaling.checked_free(free)
    old, new, new_noise = rescaling.runs(
        options | {"compressor": compressor, "optimizer": optimizer},
        changes,
        parse_count(params, "params"),
        set_by_rule,
    )
    law = Gaussian() if nu is None else StudentT(nu)
    found = rescaled(old, new, set_by_rule, noise, new_noise, law, smoothness)
    console().print(rescaling.rescale_table(old, found.run))
    typer.echo(f"rule:   {found.rule}")
    for warning in found.warnings:
        typer.echo(f"beware: {warning}")
    write_json(
        json_file,
        {"old": asdict(old), "new": asdict(found.run), "rule": found.rule, "warnings": list(found.warnings)},
    )


@app.command()
def diagnose(
    workload: Annotated[str, typer.Option(help="The workload's spec")] = "digits",
    data: Annotated[str | None, option("The folder of its data, where it needs one")] = None,
    after: Annotated[int, typer.Option(help="Steps of uncompressed training before the look", min=0)] = 0,
    lr: Annotated[float, typer.Option(help="Of these steps")] = 0.1,
    optimizer: Annotated[str, typer.Option(help="Of these steps: sgd or adamw")] = "sgd",
    batch_size: Annotated[int, typer.Option(help="Examples of a worker and step", min=1)] = 32,
    batches: Annotated[int, typer.Option(help="Batches looked at", min=1)] = 16,
    workers: Annotated[int, typer.Option(help="For the advice", min=1)] = 8,
    spec: Annotated[list[str] | None, option("A compressor to measure; may be repeated [default: 19]")] = None,
    seed: Annotated[int, typer.Option(help="Decides every draw")] = 0,
    out: Annotated[Path, typer.Option(help="The page to write", dir_okay=False)] = Path("diagnosis.html"),
    json_file: JsonFile = None,
) -> None:
    """Look at a workload's gradients: tails, noise scale, omega of compressors, MLMC's levels; one HTML page.

    For a model of your own: `telegrad.diagnose(model, batches)`.
    """
    from telegrad.lab.diagnosing import diagnose_workload
    from telegrad.lab.diagnosis_report import diagnosis_json, write_diagnosis

    found = diagnose_workload(workload, data, after, lr, optimizer, batch_size, batches, workers, spec or None, seed)
    title = f"Gradients of {workload} after {after} steps"
    write_diagnosis(found, out, title)
    for line in found.advice:
        typer.echo(line)
    typer.echo(f"page:   {out}")
    write_json(json_file, {"title": title, **diagnosis_json(found)})
