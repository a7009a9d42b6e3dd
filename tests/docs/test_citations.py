"""Every formula that code, tests and docs cite by number has an anchor in docs/reference."""

import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REFERENCE = sorted((ROOT / "docs" / "reference").glob("*.md"))
ANCHORS = [anchor for page in REFERENCE for anchor in re.findall(r'<a id="([^"]+)"', page.read_text(encoding="utf-8"))]
# A letter and a number, not part of a longer word, a file name, or a colour: (A7.1), B14, C10, T2.
CITATION = re.compile(r"(?<![\w#./&-])(?:[A-F]\d{1,2}(?:\.\d{1,2})?|E\d|T[12])(?![\w/-]|\.\w)")
SOURCES = [
    path
    for folder in ("src", "tests", "benchmarks", "examples")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path != Path(__file__)
]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def prose(path: Path) -> str:
    """A page's text, or the comments and strings of a Python file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return re.sub(r"```.*?```|<a id=\"[^\"]+\"></a>|\]\([^)]*\)", " ", text, flags=re.DOTALL)
    kinds = {tokenize.COMMENT, tokenize.STRING, getattr(tokenize, "FSTRING_MIDDLE", tokenize.STRING)}
    return "\n".join(
        token.string for token in tokenize.generate_tokens(io.StringIO(text).readline) if token.type in kinds
    )


def cited(text: str) -> list[str]:
    return CITATION.findall(text)


def test_the_pattern_finds_citations_and_nothing_else():
    assert cited("(A7.1) and B2.7, C8's; T2, test A21.5.") == ["A7.1", "B2.7", "C8", "T2", "A21.5"]
    assert not cited("ResNet-18, BF16, #A7B1, A7x, x.B2, 2**E10x, U8, E12345")


def test_no_anchor_stands_twice():
    assert len(ANCHORS) == len(set(ANCHORS))


@pytest.mark.parametrize("paths", [SOURCES, PAGES], ids=["code", "docs"])
def test_citations_lead_to_an_anchor(paths):
    lost = {(str(path.relative_to(ROOT)), name) for path in paths for name in cited(prose(path)) if name not in ANCHORS}
    assert not lost


def test_links_into_the_reference_lead_to_an_anchor():
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#]*)#([A-F0T][\d.]*)\)", page.read_text(encoding="utf-8")):
            assert anchor in ANCHORS, f"{page.name}: {target}#{anchor}"
