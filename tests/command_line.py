"""The command line, called in this process. Tests that call it skip where the extra `lab` is not installed."""

import pytest


def invoke(*arguments):
    """The result of `telegrad ARGUMENTS`, with its exit code, stdout and stderr."""
    pytest.importorskip("typer", reason="the command line needs typer: pip install 'telegrad[lab]'")
    from typer.testing import CliRunner

    from telegrad.cli import app

    return CliRunner().invoke(app, list(map(str, arguments)))
