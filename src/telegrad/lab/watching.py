"""A page that follows an experiment while it runs: `telegrad watch DIR`, on this machine only unless told otherwise."""

from __future__ import annotations

import html
import ipaddress
import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from telegrad.errors import ConfigError, DataError
from telegrad.lab import config
from telegrad.lab.curves import curves
from telegrad.lab.finished_run import FinishedRun
from telegrad.lab.plan import Left
from telegrad.lab.progress import Watch
from telegrad.lab.records import RunDirectory, to_json, write_atomic
from telegrad.lab.report import html_report
from telegrad.lab.summary import summarise

__all__ = ["Following", "server"]

_RUNNING = "running.json"
_EVERY = 0.5  # seconds between two writes of the run under way


class Following:
    """A watch that also leaves the run under way in the run directory, for the page to show."""

    def __init__(self, watch: Watch, directory: Path) -> None:
        self._watch, self._path = watch, directory / _RUNNING
        self._now: dict[str, Any] = {}
        self._written = 0.0

    def __enter__(self) -> Following:
        return self

    def __exit__(self, *_: object) -> None:
        self._path.unlink(missing_ok=True)

    def begin(self, done: int, left: Left) -> None:
        self._watch.begin(done, left)

    def start(self, label: str, lr: float, seed: int, steps: int) -> None:
        self._watch.start(label, lr, seed, steps)
        self._now = {"label": label, "lr": lr, "seed": seed, "steps": steps, "step": 0}
        self._write()

    def record(self, record: dict[str, Any]) -> None:
        self._watch.record(record)
        self._now |= {name: record.get(name) for name in ("step", "validation", "train_loss", "bits_up_per_worker")}
        if time.monotonic() - self._written > _EVERY:
            self._write()

    def finish(self, run: FinishedRun, left: Left) -> None:
        self._watch.finish(run, left)
        self._now |= {"left": left.runs}

    def _write(self) -> None:
        write_atomic(self._path, to_json(self._now))
        self._written = time.monotonic()


def server(directory: Path, host: str = "127.0.0.1", port: int = 0) -> ThreadingHTTPServer:
    """A server of the page for a run directory; port 0 takes a free one.

    Raises `DataError` where the folder is none of an experiment, `ConfigError` where the address cannot be had.
    """
    if not (directory / "config.yaml").exists():
        raise DataError(
            f"{directory} is no run directory: it has no config.yaml; name the folder of a running "
            "`telegrad run` or `telegrad compare`"
        )

    class Page(_Page):
        where = directory
        local = _is_loopback(host)

    try:
        made = ThreadingHTTPServer((host, port), Page)
    except (OSError, OverflowError) as error:
        raise ConfigError(f"--host {host} --port {port}: {error}; name another with --port") from None
    made.daemon_threads = True
    return made


class _Page(BaseHTTPRequestHandler):
    """`/` is the report of what is finished, with the run under way above it; `/state` is what the page asks for."""

    where: Path
    local: bool

    def do_GET(self) -> None:
        named = self.headers.get("Host", "")
        if self.local and not _is_loopback(named.rpartition(":")[0].strip("[]") or named):
            self._send(403, "text/plain", "this page is for this machine only")  # another site's name for loopback
        elif self.path == "/":
            self._send(200, "text/html", page(self.where))
        elif self.path == "/state":
            self._send(200, "application/json", to_json(state(self.where)))
        else:
            self._send(404, "text/plain", "there is / and /state")

    def _send(self, status: int, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # nothing on the terminal for every request
        pass


def state(directory: Path) -> dict[str, Any]:
    """The number of finished runs, and the run under way or None."""
    try:
        running = json.loads((directory / _RUNNING).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        running = None
    return {"finished": _directory(directory).count, "running": running}


def page(directory: Path) -> str:
    """The report of what is finished so far, which renews itself."""
    there = _directory(directory)
    if there.count == 0:
        body = (
            f"<!DOCTYPE html><html lang='en'><head><meta charset='utf-8'><title>{html.escape(directory.name)}</title>"
        )
        text = body + "</head><body><main><h1>No run is finished yet</h1></main></body></html>"
    else:
        text = html_report(
            there.experiment, summarise(there.experiment, there.runs), curves(there.experiment, there.runs)
        )
    return text.replace("<main>", "<main>" + _PANEL, 1).replace("</body>", f"{_script(there.count)}</body>", 1)


class _Finished(RunDirectory):
    """What is finished, read and never written."""

    @property
    def count(self) -> int:
        return len(self.runs)


def _directory(directory: Path) -> _Finished:
    try:
        found = RunDirectory.load(directory)
    except DataError:  # nothing is finished, or a file is just being written
        return _Finished(directory, config.load(directory / "config.yaml"), {})
    return _Finished(found.path, found.experiment, found._runs)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


_PANEL = """<p class="warning" role="status" id="running" hidden></p>"""


def _script(finished: int) -> str:
    return (
        """<script>
(() => {
  const panel = document.getElementById("running");
  const show = (state) => {
    if (state.finished !== FINISHED) { location.reload(); return; }
    const run = state.running;
    panel.hidden = !run;
    if (!run) return;
    const quality = run.validation == null ? "" : `, validation ${Number(run.validation).toPrecision(4)}`;
    const loss = run.train_loss == null ? "" : `, loss ${Number(run.train_loss).toPrecision(3)}`;
    const name = `${run.label}, learning rate ${run.lr}, seed ${run.seed}`;
    panel.textContent = `Running: ${name}: step ${run.step} of ${run.steps}${loss}${quality}`;
  };
  const ask = () => fetch("/state").then((answer) => answer.json()).then(show)
    .catch(() => { panel.hidden = false; panel.textContent = "The server has stopped."; });
  ask();
  setInterval(ask, 1000);
})();
</script>"""
    ).replace("FINISHED", str(finished))
