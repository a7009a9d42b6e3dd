import html
import io
import json
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from telegrad.errors import DataError
from telegrad.lab.config import parse
from telegrad.lab.progress import Lines
from telegrad.lab.records import RunDirectory
from telegrad.lab.report import write_report
from telegrad.lab.runner import run_experiment
from telegrad.lab.tables import bits, metric, metric_with_spread, number, seconds, summary_table

NASTY = "</script><script>alert(1)</script> <!-- & \" ' <b>bold</b> ${x} $title"


def experiment_of(**more):
    plain = {
        "methods": ["sgd(identity)", {"spec": "sgd(topk(k=0.01))", "label": NASTY}],
        "lrs": [0.3, 1.0],
        "workers": 2,
        "steps": 20,
        "evaluate_every": 5,
    }
    return parse(plain | more)


@pytest.fixture
def reported(tmp_path, simulate):
    experiment = experiment_of()
    directory = RunDirectory.open(tmp_path / "run", experiment)
    run_experiment(experiment, directory, Lines(Console(quiet=True)))
    summary = write_report(directory)
    return directory, summary, (directory.path / "report.html").read_text()


class Elements(HTMLParser):
    """Collects the elements of a page and the cells of its table."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.rows = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.elements.append((tag, attributes))
        if tag == "th" and attributes.get("scope") == "row":
            self.rows.append({"label": attributes["data-value"]})
        if tag == "td":
            self.rows[-1][attributes["data-key"]] = attributes["data-value"]


def test_the_report_fetches_nothing(reported):
    _, _, text = reported
    loading = {"src", "href", "srcset", "data", "action", "poster", "background"}
    for tag, attributes in Elements(text).elements:
        for name in loading & set(attributes):
            assert attributes[name].startswith("data:"), (tag, attributes)
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_what_a_user_wrote_stays_text(reported):
    _, _, text = reported
    # Four scripts of ours: two data or library, one ours; a label that ended a script would add to them.
    assert [tag for tag, _ in Elements(text).elements].count("script") == 3
    assert "alert(1)</script>" not in text
    assert "<b>bold" not in text
    assert html.escape(" ".join(NASTY.split())) in text
    payload = re.search(r'<script type="application/json" id="payload">(.*?)</script>', text, re.DOTALL)
    assert payload
    assert [curve["label"] for curve in json.loads(payload[1])["curves"]] == ["sgd(identity)", NASTY]


def test_the_tables_hold_the_numbers_of_the_summary(reported):
    _, summary, text = reported
    rows = Elements(text).rows
    assert [row["label"] for row in rows] == [result["label"] for result in summary["results"]]
    for row, result in zip(rows, summary["results"], strict=True):
        for key in set(row) - {"label"}:
            assert (None if row[key] == "" else json.loads(row[key])) == result[key]
        assert len(row) == 10
        assert metric_with_spread(result["metric_mean"], result["metric_std"], "accuracy") in text
        assert bits(result["bits_up_per_worker"]) in text
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(summary_table(summary, 200))
    printed = console.export_text()
    for result in summary["results"]:
        assert metric_with_spread(result["metric_mean"], result["metric_std"], "accuracy") in printed
        assert bits(result["bits_to_target"]) in printed


def test_the_plots_are_png_of_a_fixed_size_and_the_same_again(reported):
    directory, _, _ = reported
    names = ["metric-vs-bits.png", "metric-vs-epochs.png", "metric-vs-steps.png"]
    images = {name: (directory.path / name).read_bytes() for name in names}
    for image in images.values():
        assert image.startswith(b"\x89PNG")
        assert (int.from_bytes(image[16:20], "big"), int.from_bytes(image[20:24], "big")) == (1200, 750)
    write_report(directory)
    assert {name: (directory.path / name).read_bytes() for name in names} == images


def test_the_report_is_the_same_again(reported):
    directory, _, text = reported
    write_report(RunDirectory.load(directory.path))
    assert (directory.path / "report.html").read_text() == text


def test_how_it_was_chosen_and_how_to_repeat_it_is_told(reported):
    directory, summary, text = reported
    assert html.escape(summary["target_rule"]) in text
    assert "learning rate at the edge of its grid" in text
    assert "telegrad run config.yaml" in text
    assert html.escape((directory.path / "config.yaml").read_text()) in text


def test_diverged_methods_are_reported(tmp_path, simulate):
    simulate.diverges = lambda method, lr, seed: True
    experiment = experiment_of()
    directory = RunDirectory.open(tmp_path, experiment)
    run_experiment(experiment, directory, Lines(Console(quiet=True)))
    summary = write_report(directory)
    assert summary["metric"] is None
    assert "diverged at every learning rate" in (tmp_path / "report.html").read_text()
    assert (tmp_path / "metric-vs-bits.png").exists()


def test_an_unfinished_experiment_is_reported_as_such(tmp_path, simulate):
    simulate.interrupt_at = 2
    experiment = experiment_of()
    directory = RunDirectory.open(tmp_path, experiment)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment, directory, Lines(Console(quiet=True)))
    write_report(RunDirectory.load(tmp_path))
    assert "Some runs are still to do" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("kind", ["absent", "file", "empty", "foreign", "unrun", "config"])
def test_what_is_no_run_directory_is_refused(tmp_path, kind):
    path = tmp_path / "x"
    if kind == "file":
        path.write_text("x")
    elif kind != "absent":
        path.mkdir()
    if kind == "foreign":
        (path / "report.html").write_text("x")
    if kind == "unrun":
        RunDirectory.open(path, experiment_of())
    if kind == "config":
        (path / "config.yaml").write_text("models: 3")
    with pytest.raises(DataError) as caught:
        RunDirectory.load(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (0, "0 bit"), (999, "999 bit"), (999.7, "1.00 kbit"), (1234567, "1.23 Mbit"), (4.5e13, "45.0 Tbit")],
)
def test_bits_are_readable(value, text):
    assert bits(value) == text


def test_numbers_are_readable():
    assert seconds(0.01234) == "12.3 ms"
    assert seconds(4.2e-7) == "0.420 µs"
    assert number(1e-9) == "1.00e-09"
    assert number(float("nan")) == "–"
    assert metric(0.98765, "accuracy") == "98.77 %"
    assert metric(0.98765, "loss") == "0.9877"
    assert metric_with_spread(0.5, None, "accuracy") == "50.00 %"
    assert metric_with_spread(1.5, 0.25, "loss") == "1.500 ± 0.25"


def test_what_comes_down_stands_beside_what_goes_up(reported):
    """The saving of the uplink alone would flatter: with an uncompressed downlink the total saves far less."""
    _, summary, text = reported
    tiles = dict(re.findall(r'<div class="tile"><dt>([^<]*)</dt><dd>([\d.,]+) ×', text))
    rows = {row["label"]: row for row in summary["results"] if row["bits_to_target"] is not None}
    least = min(rows.values(), key=lambda row: row["bits_to_target"])
    plain = rows[summary["baseline"]]

    def total(row):
        return row["bits_to_target"] + row["bits_down_per_worker"] * row["steps_to_target"] / row["steps"]

    (uplink,) = [float(value.replace(",", "")) for name, value in tiles.items() if "uplink" in name]
    together = float(tiles["Fewer bits up and down together by"].replace(",", ""))
    assert uplink == pytest.approx(plain["bits_to_target"] / least["bits_to_target"], rel=0.01)
    assert together == pytest.approx(total(plain) / total(least), rel=0.01)
