"""Workers in network namespaces of one machine, joined by a bridge, every link shaped by `tc tbf`. Needs root."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Network", "alone", "network"]

_SUBNET = "10.77.0"
_LOCK = Path(tempfile.gettempdir()) / "telegrad-network.lock"
_ENDINGS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def alone() -> Iterator[None]:
    """The right to make networks: one program of this machine has it, and what an earlier one left is removed first.

    A signal that ends programs leaves this block by SystemExit, once: further ones, which `timeout` for example sends,
    must not disturb the removal. Raises `SystemExit` with an explanation where another program has the right.
    """
    with _LOCK.open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            raise SystemExit(
                f"process {lock.read().strip()} measures on such a network already, and two would share processors "
                "and addresses: wait for its end"
            ) from None
        lock.truncate(0)
        lock.write(f"{os.getpid()}\n")
        lock.flush()
        before = {ending: signal.signal(ending, _end) for ending in _ENDINGS}
        try:
            _remove_leftovers()
            yield
        finally:
            for ending, handler in before.items():
                signal.signal(ending, handler)


def _end(number: int, _: Any) -> None:
    for ending in _ENDINGS:
        signal.signal(ending, signal.SIG_IGN)  # programs that are started from now on ignore it, too
    sys.exit(128 + number)


def _remove_leftovers() -> None:
    """What a program that was killed outright could not remove: its workers and its network."""
    for namespace in _names("ip", "netns", "list"):
        if namespace.startswith("tg") and "-" in namespace:
            for process in _names("ip", "netns", "pids", namespace):
                os.kill(int(process), signal.SIGKILL)
            _run("ip", "netns", "delete", namespace, check=False)
    for bridge in _names("ip", "-o", "link", "show", "type", "bridge", field=1):
        if bridge.startswith("tg") and bridge[2:-1].isdigit():
            _run("ip", "link", "delete", bridge.rstrip(":"), check=False)


def _names(*command: str, field: int = 0) -> list[str]:
    """A field of each line that the command prints."""
    lines = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()
    return [line.split()[field] for line in lines if line.strip()]


@dataclass(frozen=True)
class Network:
    """`workers` namespaces; worker i has the address 10.77.0.(i+1)."""

    prefix: str
    workers: int

    def start(self, script: Path, arguments: Sequence[str]) -> list[subprocess.Popen[str]]:
        """The script in every namespace, with the variables that torch.distributed reads."""
        started = []
        for rank in range(self.workers):
            environment = {
                **os.environ,
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(self.workers),
                "MASTER_ADDR": f"{_SUBNET}.1",
                "MASTER_PORT": "29555",
                "GLOO_SOCKET_IFNAME": "eth0",
                "OMP_NUM_THREADS": "1",
            }
            command = ["ip", "netns", "exec", f"{self.prefix}{rank}", sys.executable, str(script), *arguments]
            pipe = subprocess.PIPE if rank == 0 else subprocess.DEVNULL
            started.append(subprocess.Popen(command, env=environment, stdout=pipe, text=True))
        return started


def _run(*command: str, check: bool = True) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


@contextmanager
def network(workers: int, mbit: float | None) -> Iterator[Network]:
    """A network whose links, from each worker to the bridge and back, carry `mbit` Mbit/s; None: unshaped.

    Both ends of a link are shaped, so both directions are. Everything is removed afterwards, whatever happens.
    """
    prefix, bridge = f"tg{os.getpid() % 10000}-", f"tg{os.getpid() % 10000}"
    ends = [(f"{prefix}{rank}", f"{prefix}v{rank}") for rank in range(workers)]
    try:
        _run("ip", "link", "add", bridge, "type", "bridge")
        _run("ip", "link", "set", bridge, "up")
        for rank, (namespace, end) in enumerate(ends):
            _run("ip", "netns", "add", namespace)
            _run("ip", "link", "add", end, "type", "veth", "peer", "name", "eth0", "netns", namespace)
            _run("ip", "link", "set", end, "master", bridge, "up")
            inside = ("ip", "netns", "exec", namespace)
            _run(*inside, "ip", "address", "add", f"{_SUBNET}.{rank + 1}/24", "dev", "eth0")
            for device in ("lo", "eth0"):
                _run(*inside, "ip", "link", "set", device, "up")
            if mbit is not None:
                # The bucket must hold what leaves between two ticks of the clock; 64 KB do for 1 Gbit/s.
                shape = ("tbf", "rate", f"{mbit}mbit", "burst", "128kb", "latency", "200ms")
                _run(*inside, "tc", "qdisc", "add", "dev", "eth0", "root", *shape)
                _run("tc", "qdisc", "add", "dev", end, "root", *shape)
        yield Network(prefix, workers)
    finally:
        for namespace, end in ends:
            _run("ip", "link", "delete", end, check=False)
            _run("ip", "netns", "delete", namespace, check=False)
        _run("ip", "link", "delete", bridge, check=False)
