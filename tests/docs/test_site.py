"""The documentation builds without a warning, and every citation in it leads to its formula."""

import dataclasses
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mkdocs", reason="the documentation needs mkdocs: pip install 'telegrad[docs]'")
ROOT = Path(__file__).parents[2]
NOWHERE = "A" + "99.9"  # a formula that the reference lacks


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def test_the_catalogue_holds_every_registered_name(site):
    from telegrad.spec import registered

    pages = {"method": "methods.html"}
    for kind in ("compressor", "ladder", "topology", "workload", "method"):
        text = (site / pages.get(kind, "catalogue.html")).read_text(encoding="utf-8")
        ours = [name for name, cls in registered(kind).items() if cls.__module__.startswith("telegrad.")]
        assert ours
        assert not [name for name in ours if f'id="{kind}-{name}"' not in text]


def test_every_argument_is_an_item_of_its_own(site):
    from telegrad.spec import registered

    text = (site / "methods.html").read_text(encoding="utf-8")
    for name, cls in registered("method").items():
        arguments = re.findall(r"^    (\w+): ", inspect.getdoc(cls).partition("\nArgs:")[2], flags=re.MULTILINE)
        section = text.partition(f'id="method-{name}"')[2].partition("<h3")[0]
        items = re.findall(r"<li>\s*<code>(\w+)</code>: ", section)
        assert items == [word for word in arguments if word in {field.name for field in dataclasses.fields(cls)}], name


def test_pages_show_no_marks_of_markdown(site):
    for page in site.rglob("*.html"):
        text = re.sub(r"<(pre|code|script|style)\b.*?</\1>", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
        article = re.sub(r"<[^>]+>", "", text.partition("<article")[2].partition("</article>")[0])
        found = re.search(r".{20}(\\[~*_|]|\*\*|\*\w+ \w+\*).{20}", article)
        assert found is None, f"{page.relative_to(site)}: {found[0]}"


def test_names_in_tables_break_between_their_words_and_code_stays_as_it_is(site):
    text = (site / "how-to/ddp.html").read_text(encoding="utf-8")
    assert "parameters_<wbr>that_<wbr>are_<wbr>not_<wbr>used" in text
    assert not [block for block in re.findall(r"<pre>.*?</pre>", text, flags=re.DOTALL) if "<wbr>" in block]


def test_citations_become_links_to_anchors(site):
    text = (site / "catalogue.html").read_text(encoding="utf-8")
    found = re.findall(r'href="(reference/[a-z-]+\.html)#([A-F][\d.]+)"', text)
    assert len(found) > 50
    for page, anchor in set(found):
        assert f'id="{anchor}"' in (site / page).read_text(encoding="utf-8"), f"{page}#{anchor}"


def test_links_to_the_repositorys_files_lead_to_copies(site):
    text = (site / "how-to/ddp.html").read_text(encoding="utf-8")
    assert 'href="../files/examples/ddp_train.py"' in text
    assert (site / "files/examples/ddp_train.py").read_bytes() == (ROOT / "examples/ddp_train.py").read_bytes()


def _link(root):
    (root / "docs" / "start.md").write_text("# Start\n\n[lost](nowhere.md)\n", encoding="utf-8")


def _anchor(root):
    (root / "docs" / "start.md").write_text("# Start\n\n[lost](which-one.md#nowhere)\n", encoding="utf-8")


def _citation(root):
    (root / "docs" / "start.md").write_text(f"# Start\n\nAs ({NOWHERE}) says.\n", encoding="utf-8")


def _name(root):
    page = root / "docs" / "api" / "core.md"
    page.write_text(page.read_text(encoding="utf-8").replace("::: telegrad.pack\n", ""), encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_link, "'nowhere.md'"),
        (_anchor, "#nowhere"),
        (_citation, f"start.md cites {NOWHERE}, which no page of docs/reference defines"),
        (_name, "public names that no page under docs/api documents: pack"),
    ],
)
def test_the_build_fails(spoil, words, tmp_path):
    for entry in ROOT.iterdir():
        if entry.name != "docs" and not entry.name.startswith("."):
            (tmp_path / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    spoil(tmp_path)
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "built")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
