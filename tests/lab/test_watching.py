"""The page that follows a running experiment: over real sockets, and in a real browser."""

import json
import re
import shutil
import subprocess
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest
from fake_simulate import FakeSimulate
from rich.console import Console

import telegrad as tg
from patience import PATIENCE
from telegrad.lab.config import parse
from telegrad.lab.progress import Lines
from telegrad.lab.records import RunDirectory
from telegrad.lab.runner import run_experiment
from telegrad.lab.watching import Following, server

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
EXPERIMENT = {"methods": ["sgd(identity)", "sgd(topk(k=0.01))"], "lrs": [0.3], "seeds": [0], "workers": 2, "steps": 40}


class Stopped(Exception):
    pass


def interrupted_run(path, monkeypatch, at=2):
    """An experiment that stops in the middle of run number `at`, as far as it looks to who follows it."""
    fake, seen = FakeSimulate(), []

    class Holding(Following):
        def record(self, record):
            super().record(record)
            self._write()
            seen.append(record)
            if len(fake.calls) == at and record["step"] >= 20:
                raise Stopped

        def __exit__(self, *_):  # a run that goes on
            pass

    monkeypatch.setattr("telegrad.lab.runner.simulate", fake)
    directory = RunDirectory.open(path, parse(EXPERIMENT))
    with pytest.raises(Stopped), Holding(Lines(Console(quiet=True)), path) as following:
        run_experiment(directory.experiment, directory, following)
    return directory


@contextmanager
def served(path, **options):
    with server(path, **options) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        try:
            yield running.server_address[1]
        finally:
            running.shutdown()
            thread.join()


def get(port, path="/", host=None):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={} if host is None else {"Host": host})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.read().decode()


def test_the_state_tells_of_the_run_under_way_and_the_finished_ones(tmp_path, monkeypatch):
    interrupted_run(tmp_path / "run", monkeypatch)
    with served(tmp_path / "run") as port:
        state = json.loads(get(port, "/state"))
        assert state["finished"] == 1
        running = state["running"]
        assert [running["label"], running["lr"], running["steps"]] == ["sgd(topk(k=0.01))", 0.3, 40]
        assert 20 <= running["step"] < 40
        assert "sgd(identity)" in get(port)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(port, "/../config.yaml")


def test_following_writes_nothing_but_the_run_under_way_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("telegrad.lab.runner.simulate", FakeSimulate())
    directory = RunDirectory.open(tmp_path / "run", parse(EXPERIMENT))
    with Following(Lines(Console(quiet=True)), directory.path) as following:
        run_experiment(directory.experiment, directory, following)
        assert json.loads((directory.path / "running.json").read_text())["steps"] == 40
    before = {file.name for file in directory.path.iterdir()}
    assert "running.json" not in before
    with served(directory.path) as port:
        assert json.loads(get(port, "/state")) == {"finished": 2, "running": None}
        get(port)
    assert {file.name for file in directory.path.iterdir()} == before


def test_before_the_first_run_is_finished_the_page_says_so(tmp_path, monkeypatch):
    interrupted_run(tmp_path / "run", monkeypatch, at=1)
    with served(tmp_path / "run") as port:
        assert "No run is finished yet" in get(port)
        assert json.loads(get(port, "/state"))["running"]["label"] == "sgd(identity)"


def test_another_sites_name_for_this_machine_is_refused(tmp_path, monkeypatch):
    interrupted_run(tmp_path / "run", monkeypatch)
    with served(tmp_path / "run") as port:
        for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            assert get(port, "/state", host)
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                get(port, "/state", host)


def test_a_folder_of_no_experiment_and_a_taken_port_are_named(tmp_path, monkeypatch):
    with pytest.raises(tg.DataError, match="no run directory"):
        server(tmp_path)
    interrupted_run(tmp_path / "run", monkeypatch)
    with served(tmp_path / "run") as port, pytest.raises(tg.ConfigError, match=f"--port {port}"):
        server(tmp_path / "run", port=port)


@pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")
def test_a_browser_shows_the_run_under_way(tmp_path, monkeypatch):
    interrupted_run(tmp_path / "run", monkeypatch)
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    flags += ["--disable-sync", "--disable-dev-shm-usage", "--virtual-time-budget=8000", "--dump-dom"]
    with served(tmp_path / "run") as port:
        command = [BROWSER, *flags, f"--user-data-dir={tmp_path / 'profile'}", f"http://127.0.0.1:{port}/"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    panel = re.search(r'id="running"[^>]*>([^<]*)<', shown)[1]
    run = r"Running: sgd\(topk\(k=0\.01\)\), learning rate 0\.3, seed 0: step \d+ of 40"
    assert re.fullmatch(run + r", loss [\d.]+, validation .*", panel)
