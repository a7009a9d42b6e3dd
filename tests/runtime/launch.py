"""Starts a script as several ranks on this machine, as torchrun would, and waits for all."""

import json
import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from patience import PATIENCE

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """How a rank ended: its exit code, and what it printed."""

    code: int
    output: str


def launch(script, ranks, *arguments, abandoned=()):
    """Run tests/runtime/<script> as ranks 0 … ranks−1; returns how each ended.

    `abandoned`: ranks that are not waited for, but killed once all others have ended.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(ranks):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, str(HERE / "rank.py"), str(HERE / script), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
    try:
        ended = {rank: _ended(process, PATIENCE) for rank, process in enumerate(started) if rank not in abandoned}
    finally:
        for process in started:
            process.kill()
    return [ended.get(rank) or _ended(process, None) for rank, process in enumerate(started)]


def _ended(process, timeout):
    output, _ = process.communicate(timeout=timeout)
    return Ended(process.returncode, output)


def outputs(ended):
    """What all ranks printed, for a failing test's message."""
    return "\n".join(f"--- rank {rank}: exit {one.code}\n{one.output}" for rank, one in enumerate(ended))


@cache
def _told_by(script, ranks):
    """What every rank of a script says of its situations, the failure of each by name; and what all printed."""
    ended = launch(script, ranks)
    lines = [[line for line in one.output.splitlines() if line.startswith('{"scenario"')] for one in ended]
    return [{said["scenario"]: said["failure"] for said in map(json.loads, rank)} for rank in lines], outputs(ended)


def check_scenario(script, ranks, name):
    """Fail where a rank of a script, which runs once for all of its situations, came to this one and says that it
    failed, or never came to it.
    """
    found, everything = _told_by(script, ranks)
    for rank, said in enumerate(found):
        assert name in said, f"rank {rank} never came to it\n{everything}"
        assert not said[name], said[name]
