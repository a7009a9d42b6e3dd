"""Starts a script as several ranks on this machine, as torchrun would, and waits for all."""

import os
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Ended:
    """How a rank ended: its exit code, and what it printed."""

    code: int
    output: str


def launch(script, ranks, *arguments, timeout=240):
    """Run tests/runtime/<script> as ranks 0 … ranks−1; returns how each ended."""
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
        command = [sys.executable, str(HERE / script), *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        started.append(subprocess.Popen(command, env=environment, **pipes))
    ended = []
    try:
        for process in started:
            output, _ = process.communicate(timeout=timeout)
            ended.append(Ended(process.returncode, output))
    finally:
        for process in started:
            process.kill()
    return ended


def outputs(ended):
    """What all ranks printed, for a failing test's message."""
    return "\n".join(f"--- rank {rank}: exit {one.code}\n{one.output}" for rank, one in enumerate(ended))
