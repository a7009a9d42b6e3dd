"""The command line: the commands, in a file for each part of the work.

    experiments   compare, run, merge, report, watch
    measuring     variance, bench, warmup
    catalogue     list, cite
    predictions   theory, advise, rescale, diagnose

`application` has what they share; `performing` runs experiments and shows what came of them. What a command needs is
imported inside it, so that `telegrad --help` waits for nothing but typer.
"""

# Each adds its commands, and --help lists them in this order.
# isort: off
from telegrad.cli import experiments, measuring, catalogue, predictions  # noqa: F401

# isort: on
from telegrad.cli.application import app, main

__all__ = ["app", "main"]
