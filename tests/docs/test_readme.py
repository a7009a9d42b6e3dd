"""Every Python example in README and docs runs as it stands."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
GENERATED = {"catalogue.md", "methods.md"}  # by docs/_site/hooks.py
EXAMPLES = [
    pytest.param(block, id=f"{page.stem}-{number}")
    for page in PAGES
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL))
]


@pytest.mark.parametrize("example", EXAMPLES)
def test_example_runs(example, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(example, "example", "exec"), {"__name__": "__main__"})


def anchors(page):
    """What a link into the page can name: headings, as GitHub and the site write them, and anchors of its own."""
    text = page.read_text(encoding="utf-8")
    headings = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)"', text))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_files_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http") and Path(target).name not in GENERATED:
            file = page.parent / target if target else page
            assert file.exists(), target
            assert not anchor or file.suffix != ".md" or anchor in anchors(file), f"{target}#{anchor}"


def test_the_readme_names_the_whole_catalogue():
    import telegrad as tg
    from telegrad.spec import registered

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    # An example of the docs may have registered a class of its own.
    ours = [e.name for e in tg.catalogue() if registered(e.kind)[e.name].__module__.startswith("telegrad.")]
    assert not [name for name in ours if f"`{name}" not in text and f"`{name}(" not in text]
