"""Pages of results: tables and plots from records, sentences left as they are."""

import pytest
from rich.console import Console

from command_line import invoke
from telegrad.errors import DataError
from telegrad.lab.config import parse
from telegrad.lab.links import LINKS, Link, transfer_seconds
from telegrad.lab.merge import merge
from telegrad.lab.progress import Lines
from telegrad.lab.records import RunDirectory
from telegrad.lab.results import write_pages
from telegrad.lab.runner import run_experiment

METHODS = ["sgd(identity)", {"spec": "sgd(mlmc(stopk(s=0.01)))", "label": "MLMC | 1 %"}]
PAGE = """# A figure

Before.

<!-- results: small -->
stale
<!-- end -->

It holds: <!-- row: small; sgd(identity); metric -->?<!-- end --> at <!-- row: small; MLMC | 1 %; bits --><!-- end -->.

<!-- leaderboard -->
<!-- end -->
"""


@pytest.fixture
def records(tmp_path, simulate):
    experiment = parse(
        {"title": "In small", "methods": METHODS, "lrs": [0.1, 0.3], "seeds": 3, "workers": 4, "steps": 40}
    )
    run_experiment(experiment, RunDirectory.open(tmp_path / "runs" / "small", experiment), Lines(Console(quiet=True)))
    merge([tmp_path / "runs"], tmp_path / "records")
    return tmp_path / "records"


def test_marked_parts_are_rebuilt_and_the_rest_stays(records, tmp_path):
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "figure.md").write_text(PAGE)
    out = invoke("report", str(records), "--pages", str(pages))
    assert out.exit_code == 0, out.output
    text = (pages / "figure.md").read_text()
    assert text.startswith("# A figure\n\nBefore.\n\n<!-- results: small -->\n![Test accuracy")
    assert "stale" not in text
    summary = RunDirectory.load(records / "small").rebuild()
    plain, ours = summary["results"]
    shown = f"{100 * plain['metric_mean']:.2f} ± {100 * plain['metric_std']:.2f} %"
    assert f"<!-- end -->\n\nIt holds: <!-- row: small; sgd(identity); metric -->{shown}<!-- end --> at " in text
    assert f"; bits -->{ours['bits_to_target'] / 1000:.1f} kbit<!-- end -->.\n" in text
    assert "MLMC \\| 1 %<br>`sgd(mlmc(stopk(s=0.01)))`" in text
    assert "telegrad run experiments/small.yaml" in text
    assert "### In small" in text
    assert sorted(file.name for file in pages.iterdir()) == [
        *("figure.md", "small-bits.png", "small-steps.png", "small-transfer.png")
    ]
    before = {file.name: file.read_bytes() for file in pages.iterdir()}
    write_pages(records, pages)
    assert {file.name: file.read_bytes() for file in pages.iterdir()} == before


def test_every_row_of_a_table_has_as_many_cells_as_its_head(records, tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    write_pages(records, tmp_path)
    rows = [line for line in (tmp_path / "page.md").read_text().splitlines() if line.startswith("|")]
    counts = [row.replace("\\|", "").count("|") for row in rows]
    assert set(counts[:4]) == {counts[0]}
    assert set(counts[4:]) == {counts[4]}


def test_what_a_page_asks_for_and_is_not_there_is_named(records, tmp_path):
    with pytest.raises(DataError, match=r"no pages .*results: small"):
        write_pages(records, records)
    (tmp_path / "page.md").write_text(PAGE.replace("results: small", "results: great"))
    with pytest.raises(DataError, match=r"'great'.*there are small"):
        write_pages(records, tmp_path)
    (tmp_path / "page.md").write_text("<!-- row: small; EF21; metric --><!-- end -->")
    with pytest.raises(DataError, match=r"no method 'EF21' in small; there are sgd"):
        write_pages(records, tmp_path)
    (tmp_path / "page.md").write_text("<!-- row: small; sgd(identity); beauty --><!-- end -->")
    with pytest.raises(DataError, match=r"no figure 'beauty'; there are metric, bits"):
        write_pages(records, tmp_path)


def test_transfer_is_all_gather_for_messages_and_all_reduce_for_plain_gradients():
    link = Link("one", 1e6, 0.1)
    # 92 per cent of the bandwidth carry payload; three others' messages of 920 bits in two phases.
    taken = transfer_seconds(link, workers=4, parameters=1000, steps=10, bits=9200, uncompressed=False)
    assert taken == pytest.approx(10 * (2 * 0.1 + 3 * 920 / 0.92e6))
    # Recursive doubling: two rounds of the whole tensor take less than the ring's six latencies.
    plain = transfer_seconds(link, workers=4, parameters=1000, steps=10, bits=320_000, uncompressed=True)
    assert plain == pytest.approx(10 * (2 * 0.1 + 2 * 32000 / 0.92e6))
    assert transfer_seconds(link, 4, 1000, 0, 0, False) == 0
    assert [one.bandwidth for one in LINKS] == sorted(one.bandwidth for one in LINKS)


def test_a_folder_of_run_directories_gets_a_report_each(records):
    out = invoke("report", str(records))
    assert out.exit_code == 0, out.output
    assert (records / "small" / "report.html").is_file()
