"""examples/flower as Flower runs it: a SuperLink and two SuperNodes on loopback, and the simulation engine."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'telegrad[flower]'")
APP = Path(__file__).parents[2] / "examples" / "flower"
BIN = Path(sys.executable).parent
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port, process):
    """Until something answers on the port; a process that ended is an error at once."""
    for _ in range(600):
        assert process.poll() is None, "it ended"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.2)
    raise AssertionError(f"nothing answers on port {port}")


@pytest.fixture
def app(tmp_path, monkeypatch):
    """A copy of the example, and an environment of its own."""
    monkeypatch.setenv("FLWR_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    monkeypatch.setenv("PATH", f"{BIN}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "home").mkdir()
    return shutil.copytree(APP, tmp_path / "app")


def run_app(app, connection, rounds=2):
    config = Path(os.environ["FLWR_HOME"], "config.toml")
    config.write_text(f'[superlink]\ndefault = "here"\n[superlink.here]\n{connection}\n')
    command = [BIN / "flwr", "run", app, "here", "--stream", "--run-config", f"num-server-rounds={rounds}"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    output = ran.stdout
    accuracy = float(re.search(r"accuracy ([\d.]+)", output)[1])
    up, down = map(int, re.search(r"bits up (\d+), down (\d+)", output).groups())
    counted = map(int, re.search(r"bytes by Flower's own count up (\d+), down (\d+)", output).groups())
    for ours, flowers in zip((up, down), counted, strict=True):
        assert ours / 8 < flowers < ours / 8 + 200 * 3 * rounds  # names and metrics of at most three clients
    assert "refused 0" in output
    return accuracy, up, down


def traffic():
    """The bytes that Flower itself counts, from clients and to them, in the run of this SuperLink."""
    command = [BIN / "flwr", "list", "here", "--format", "json"]
    (run,) = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["runs"]
    return run["network-traffic"]["inbound-bytes"], run["network-traffic"]["outbound-bytes"]


def check(accuracy, up, down, clients, rounds=2, entries=64 * 64 + 64 + 64 * 10 + 10):
    assert accuracy > 0.3  # one in ten at the start
    # auto(bits=1): at most one bit an entry and a header, a client and round; the model goes down as it is, twice.
    assert 0.5 * entries < up / (clients * rounds) < 1.1 * entries
    assert down > clients * rounds * 2 * 32 * entries


@contextlib.contextmanager
def running(*commands):
    """Starts commands with their ports, one after the other: each must answer before the next starts."""
    started = []
    try:
        for port, command in commands:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            started.append(process)
            wait_for(port, process)
        yield
    finally:
        for process in started:
            process.terminate()
        for process in started:
            process.wait(timeout=600)


def superlink(port, *options):
    """A SuperLink that installs nothing: what the app needs is installed here."""
    command = [BIN / "flower-superlink", "--insecure", "--disable-runtime-dependency-installation"]
    return port, [*command, "--port", str(port), *options]


def supernode(link, number, of):
    own = free_port()
    command = [BIN / "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{link}", "--port", str(own)]
    return own, [*command, "--node-config", f"partition-id={number} num-partitions={of}"]


def test_real_processes_on_loopback(app):
    port = free_port()
    with running(superlink(port), *(supernode(port, number, 2) for number in range(2))):
        accuracy, up, down = run_app(app, f'address = "127.0.0.1:{port}"\ninsecure = true')
        check(accuracy, up, down, clients=2)
        inbound, outbound = traffic()
        print(f"bytes up and down: {up / 8:.0f} and {down / 8:.0f}, by Flower's own count {inbound} and {outbound}")
        # Flower counts requests, metrics and the programs of the app besides; nothing of ours twice.
        assert up / 8 < inbound < up / 8 + 4e5
        assert down / 8 < outbound < down / 8 + 4e5


def test_the_simulation_engine(app):
    pytest.importorskip("ray", reason="Flower's simulation engine needs ray: pip install 'flwr[simulation]'")
    port = free_port()
    options = "options.num-supernodes = 3\noptions.backend.client-resources.num-cpus = 1"
    with running(superlink(port, "--simulation")):
        check(*run_app(app, f'address = "127.0.0.1:{port}"\ninsecure = true\n{options}'), clients=3)
