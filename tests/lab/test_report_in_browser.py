"""The report in a real browser: it draws, answers to its buttons, fetches nothing and complains of nothing."""

import json
import re
import shutil
import subprocess

import pytest
from rich.console import Console

from patience import PATIENCE
from telegrad.lab.config import parse
from telegrad.lab.progress import Lines
from telegrad.lab.records import RunDirectory
from telegrad.lab.report import write_report
from telegrad.lab.runner import run_experiment

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium is installed")

FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-logging=stderr",
    "--v=0",
    "--virtual-time-budget=10000",
    "--dump-dom",
]
METHODS = [
    "sgd(identity)",
    "sgd(topk(k=0.01))",
    "sgd(mlmc(stopk(s=0.01)))",
    {"spec": "sgd(randk(k=0.01))", "label": "<b>&"},
]

# Clicks through the page and leaves what it saw in an attribute.
PROBE = """
<script>
const seen = {}, one = (query) => document.querySelector(query), all = (query) => [...document.querySelectorAll(query)];
const lines = () => all("#curves .scatterlayer .trace .js-line").length;
const click = (query, text) => all(query).find((button) => button.textContent === text).click();
const titles = () => [one("#curves .xtitle").textContent, one("#curves .ytitle").textContent];
const order = () => all("#results tbody th").map((cell) => cell.dataset.value);
const scale = (axis) => one("#curves")._fullLayout[axis].type;
const shown = () => all("#curves .scatterlayer .trace").length;
seen.lines = lines();
seen.search = all("#search .scatterlayer .trace").length;
seen.bars = all(".fields .bar i").length;
seen.names = one("#curves").data.filter((trace) => trace.name).map((trace) => trace.name);
seen.start = [titles(), scale("xaxis"), scale("yaxis")];
const chosen = (box, axis, i) => (text) => { click(box + " button", text); return [titles()[i], scale(axis)]; };
seen.axes = ["total bits", "steps", "epochs", "uplink bits"].map(chosen("#choose-x", "xaxis", 0));
seen.quantities = ["test error", "training loss", "test accuracy"].map(chosen("#choose-y", "yaxis", 1));
one("#log-x").click(); one("#log-y").click();
seen.toggled = [scale("xaxis"), scale("yaxis"), one("#log-x").getAttribute("aria-pressed")];
one("#bands").click(); seen.without_bands = shown(); one("#bands").click(); seen.with_bands = shown();
one("#legend button").click(); seen.hidden = [shown(), one("#legend button").getAttribute("aria-pressed")];
one("#legend button").click(); seen.again = shown();
const heading = all("#results .sort")[1];
heading.click(); seen.ascending = order();
heading.click(); seen.descending = order();
seen.sorted = heading.parentElement.getAttribute("aria-sort");
seen.fetched = performance.getEntriesByType("resource").map((entry) => entry.name);
seen.buttons = all(".modebar-btn").map((button) => button.dataset.title);
seen.overflow = document.documentElement.scrollWidth - innerWidth;
document.documentElement.dataset.seen = JSON.stringify(seen);
</script>
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    from fake_simulate import FakeSimulate

    path = tmp_path_factory.mktemp("report")
    experiment = parse({"methods": METHODS, "lrs": [0.3, 1.0, 3.0], "workers": 2, "steps": 40, "evaluate_every": 2})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("telegrad.lab.runner.simulate", FakeSimulate())
        directory = RunDirectory.open(path / "run", experiment)
        run_experiment(experiment, directory, Lines(Console(quiet=True)))
    summary = write_report(directory)
    text = (directory.path / "report.html").read_text()
    probed = path / "probed.html"
    probed.write_text(text.replace("</body>", PROBE + "</body>"))
    return probed, summary


def visit(page, tmp_path, *options):
    done = subprocess.run(
        [
            BROWSER,
            *FLAGS,
            f"--user-data-dir={tmp_path / 'profile'}",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    complaints = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert not complaints
    found = re.search(r'data-seen="(.*?)"', done.stdout)
    assert found, done.stderr
    return json.loads(found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))


@pytest.mark.parametrize(
    "options", [["--window-size=1200,1000"], ["--window-size=500,900", "--blink-settings=preferredColorScheme=0"]]
)
def test_the_report_draws_and_answers(page, tmp_path, options):
    probed, summary = page
    seen = visit(probed, tmp_path, *options)
    assert seen["lines"] == 2 * len(METHODS)  # a band and a mean line each
    assert seen["search"] == 3 * len(METHODS)  # the rates tried, the one chosen, those that diverged
    assert seen["bars"] >= 2 * len(METHODS)
    assert seen["names"][-1] == "&lt;b&gt;&amp;"
    assert seen["start"] == [["uplink bits per worker", "test accuracy"], "log", "linear"]
    assert seen["axes"] == [
        ["uplink + downlink bits per worker", "log"],
        ["steps", "linear"],
        ["epochs", "linear"],
        ["uplink bits per worker", "log"],
    ]
    assert seen["quantities"] == [["test error", "log"], ["training loss", "log"], ["test accuracy", "linear"]]
    assert seen["toggled"] == ["linear", "log", "false"]
    assert seen["without_bands"] == len(METHODS)
    assert seen["with_bands"] == seen["again"] == 2 * len(METHODS)
    assert seen["hidden"] == [2 * len(METHODS) - 2, "false"]
    by_metric = sorted(summary["results"], key=lambda result: result["metric_mean"])
    assert seen["ascending"] == [result["label"] for result in by_metric]
    assert seen["descending"] == seen["ascending"][::-1]
    assert seen["sorted"] == "descending"
    assert seen["fetched"] == []
    assert not any("hare" in str(title) or "loud" in str(title) for title in seen["buttons"])
    assert seen["overflow"] <= 0
