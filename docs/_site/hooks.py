"""What the documentation is built with besides its pages: the catalogue from the registry, links to the repository's
files, and links from every citation to its formula. The build fails on an unknown citation, or on a public name that
no page documents.
"""

from __future__ import annotations

import html
import inspect
import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import torch
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import telegrad as tg
from telegrad.citation import references
from telegrad.methods import AsynchronousMethod
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.oracle_method import OracleMethod
from telegrad.spec import registered

ROOT = Path(__file__).parents[2]
CITATION = re.compile(r"(?<![\w#./&;-])((?:[A-F]\d{1,2}(?:\.\d{1,2})?|E\d|T[12]))(?![\w/-]|\.\w)")
LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]+)(#[^)\s]*)?\)")
KINDS = {
    "catalogue.md": (
        "The catalogue",
        "What a spec can name. Every entry comes from the registry: the same words work in Python, on the command "
        "line and in YAML. Methods have [a page of their own](methods.md).",
        ("compressor", "ladder", "topology", "workload"),
    ),
    "methods.md": (
        "Methods",
        "Distributed optimisation methods: what a worker sends, and what the server makes of it. Steps, rates and "
        "checked traces: [the reference](reference/methods.md).",
        ("method",),
    ),
}
COVERED = {"compressors", "methods", "mlmc", "workloads"}  # modules that the catalogue documents
CELL = re.compile(r"(<t[dh]\b[^>]*>)(.*?)(</t[dh]>)", re.DOTALL)
HEADING = re.compile(r'(<span class="doc doc-object-name[^"]*">)([^<]*)(</span>)')
CODE = re.compile(r"(<code>)([^<]*)(</code>)")

_anchors: dict[str, str] = {}
_documented: set[str] = set()


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and the repository's files that pages link to; collect all anchors of the reference."""
    for name, (title, text, kinds) in KINDS.items():
        files.append(File.generated(config, name, content=_catalogue(title, text, kinds)))
    for page in [file for file in files if file.src_uri.endswith(".md")]:
        content = page.content_string
        if page.src_uri.startswith("reference/"):
            _anchors.update(dict.fromkeys(re.findall(r'<a id="([^"]+)"', content), page.src_uri))
        _documented.update(re.findall(r"^::: telegrad\.([\w.]+)", content, re.MULTILINE))
        for target, _ in LINK.findall(content):
            path = _target(page.src_uri, target)
            if path.is_file() and not path.is_relative_to(ROOT / "docs"):
                uri = f"files/{path.relative_to(ROOT).as_posix()}"
                if files.get_file_from_path(uri) is None:
                    files.append(File.generated(config, uri, content=path.read_bytes()))
    _require_documented()
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Links to files of the repository lead to their copies in the site."""

    def moved(match: re.Match[str]) -> str:
        path = _target(page.file.src_uri, match[1])
        if not path.is_file() or path.is_relative_to(ROOT / "docs"):
            return match[0]
        up = "../" * page.file.src_uri.count("/")
        return f"]({up}files/{path.relative_to(ROOT).as_posix()}{match[2] or ''})"

    if page.file.src_uri.startswith("reference/"):
        markdown = markdown.replace("][", "]\\[")  # two tags, such as [D][V], are no link
        markdown = markdown.replace("\\~", "~")  # a backslash that only GitHub needs
    return LINK.sub(moved, markdown)


def _target(uri: str, link: str) -> Path:
    """The file that a page links to."""
    return Path(os.path.normpath((ROOT / "docs" / uri).parent / link))


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Every citation outside of links, headings and code leads to its formula; long names in tables break at joints."""
    up, closed, out = "../" * page.file.src_uri.count("/"), 0, []
    for part in re.split(r"(<[^>]+>)", content):
        tag = re.match(r"<(/?)(a|code|pre|h[1-6])\b", part)
        if tag:
            closed += -1 if tag[1] else 1
        elif not closed and not part.startswith("<"):
            part = CITATION.sub(lambda m: _linked(m[1], up, page), part)
        out.append(part)
    return HEADING.sub(_breakable, CELL.sub(_cell, "".join(out)))


def _cell(cell: re.Match[str]) -> str:
    """A cell of a table; the style sheet keeps those of many words wide enough to be read on a phone."""
    many = len(re.sub(r"<[^>]+>", "", cell[2])) > 60
    return (f'{cell[1][:-1]} class="words">' if many else cell[1]) + CODE.sub(_breakable, cell[2]) + cell[3]


def _breakable(code: re.Match[str]) -> str:
    """Code that may go on in the next line after a dot, an underscore or a slash, not within a word."""
    return code[1] + re.sub(r"(?<=[^\W_][._/])(?=[^\W\d_])", "<wbr>", code[2]) + code[3]


def _linked(name: str, up: str, page: Any) -> str:
    if name not in _anchors:
        raise PluginError(f"{page.file.src_uri} cites {name}, which no page of docs/reference defines")
    return f'<a href="{up}{_anchors[name].removesuffix(".md")}.html#{name}">{name}</a>'


def _require_documented() -> None:
    covered = {name.rpartition(".")[2] for name in _documented} | COVERED
    missing = [name for name in tg.__all__ if name not in covered]
    if missing:
        raise PluginError(f"public names that no page under docs/api documents: {', '.join(missing)}")


def _catalogue(title: str, text: str, kinds: tuple[str, ...]) -> str:
    lines = [f"# {title}", "", text, ""]
    for kind in kinds:
        known = registered(kind)
        if len(kinds) > 1:
            plural = kind[:-1] + "ies" if kind.endswith("y") else kind + "s"
            lines += [f"## {plural.capitalize()}", ""]
        lines += ["| name | example | what it is |", "|---|---|---|"]
        for name, cls in known.items():
            example, summary = cls.example.replace("|", r"\|"), _escaped(_doc(cls).splitlines()[0])
            lines.append(f"| [`{name}`](#{kind}-{name}) | `{example}` | {summary} |")
        for name, cls in known.items():
            lines += ["", f"### `{name}` {{ #{kind}-{name} }}", "", _prose(cls), "", *_facts(cls), *_papers(cls)]
            lines += ["", *_example(cls)]
        lines.append("")
    return "\n".join(lines)


def _doc(cls: Any) -> str:
    return (inspect.getdoc(cls) or "").strip()


def _prose(cls: Any) -> str:
    """The class's docstring: its paragraphs, arguments as a list, examples as code; papers come after it."""
    parts = []
    for block in re.split(r"\n\s*\n", _doc(cls)):
        if block.startswith("Args:"):
            items = re.sub(r"^    (\w+): ", r"- `\1`: ", block.partition("\n")[2], flags=re.MULTILINE)
            parts.append(_escaped(items))
        elif ">>>" in block:
            parts.append(f"```pycon\n{inspect.cleandoc(block)}\n```")
        elif not block.startswith("References:"):
            parts.append(_escaped(block))
    return "\n\n".join(parts)


def _facts(cls: Any) -> list[str]:
    """A table of what an example declares and costs, and where it comes from."""
    rows = _OF[cls.kind](cls) if cls.kind in _OF else {}
    rows["source"] = _escaped(cls.source)
    return ["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows.items())]


def _of_compressor(cls: Any, d: int = 10_000) -> dict[str, str]:
    """Class, constants and bits at d entries, and the measured time of an entry."""
    one = tg.compressor(cls.example)
    omega, alpha = one.omega(d), one.alpha(d)
    rows = {
        "class": "unbiased" if one.unbiased else "biased, contractive" if alpha > 0 else "biased",
        "at 10,000 entries": f"ω = {omega:.4g}, α = {alpha:.4g}",
        "bits": f"{_bits(one, d):.3g} an entry, for 10,000 Gaussian ones",
    }
    return rows | _time(str(one))


def _of_ladder(cls: Any, d: int = 10_000) -> dict[str, str]:
    """Of MLMC over the ladder."""
    spec = f"mlmc({cls.example})"
    one = tg.compressor(spec)
    return {
        "class": f"`{spec}` is unbiased",
        "at 10,000 entries": f"ω = {one.omega(d):.4g}",
        "bits": f"{_bits(one, d):.3g} an entry in one message, for 10,000 Gaussian ones",
    } | _time(str(one))


def _of_method(cls: Any, d: int = 100) -> dict[str, str]:
    """Where it runs, and how many numbers it remembers for each of the model's."""
    one = tg.method(cls.example)
    if isinstance(one, GradientMethod):
        states = one.worker_init(d, torch.float32), one.server_init(d, torch.float32)
        where = "the simulator, torchrun, DDP and every topology"
    elif isinstance(one, OracleMethod | AsynchronousMethod):
        x = torch.zeros(d)
        states = one.worker_init(x), one.server_init(x)
        where = "the simulator" + (
            "'s clock" if getattr(one, "needs_clock", True) else " and torchrun; `server` and `allgather`"
        )
    else:
        return {"runs in": "`telegrad.outer.register`, and the simulator"}
    worker, server = (sum(value.numel() for value in state.values()) / d for state in states)
    return {
        "runs in": where,
        "memory": f"vectors of the model's size: {worker:.0f} on a worker, {server:.0f} on the server",
    }


_OF = {"compressor": _of_compressor, "ladder": _of_ladder, "method": _of_method}


def _bits(compressor: Any, d: int) -> float:
    """Of one message, an entry."""
    x = tg.Key(1).normal(d).float()
    if hasattr(compressor, "for_shape"):
        x = x.reshape(100, d // 100)
    return compressor.encode(x, tg.Key(2).fold(step=0, rank=0)).nbits / d


def _time(spec: str) -> dict[str, str]:
    """What `telegrad bench` measured, where it did."""
    times = [read.get(spec) for read in _speeds()]
    if None in times:
        return {}
    (encode, decode), copy = times, _speeds()[0]["copy"]
    return {
        "time": f"encode {encode / copy:.3g}, decode {decode / copy:.3g} times a copy, a million Gaussian entries, one "
        "core ([speed](measurements/speed.md))"
    }


@cache
def _speeds() -> tuple[dict[str, float], dict[str, float]]:
    files = (ROOT / "benchmarks" / "results" / f"speed_catalogue{what}.json" for what in ("", "_decode"))
    rows = (json.loads(file.read_text(encoding="utf-8"))["results"] for file in files)
    encode, decode = ({row["name"]: row["seconds"] for row in found} for found in rows)
    return encode, decode


_CALLS = {
    "compressor": 'tg.compressor("{}").encode(gradient, tg.Key(seed=0).fold(step=0, rank=0))',
    "ladder": 'tg.compressor("mlmc({})").encode(gradient, tg.Key(seed=0).fold(step=0, rank=0))',
    "method": 'tg.simulate("digits", "{}", workers=4, steps=100, lr=0.1)',
    "topology": 'tg.simulate("digits", "sgd(auto(bits=1))", topology="{}", workers=4, steps=100, lr=0.1)',
    "workload": 'tg.simulate("{}", "sgd(auto(bits=1))", workers=4, steps=100, lr=0.1)',
}


def _example(cls: Any) -> list[str]:
    return ["```py", _CALLS[cls.kind].format(cls.example), "```"]


def _papers(cls: Any) -> list[str]:
    """The titles of the papers that a class's source names, with their links."""
    lines = []
    for paper in references(cls):
        link = paper.fields.get("url")
        lines.append(f"* [{_escaped(paper.title)}]({link})" if link else f"* {_escaped(paper.title)}")
    return ["", *lines] if lines else []


def _escaped(text: str) -> str:
    """Markdown that shows `text` as it is; words in backticks stay code."""

    def plain(part: str) -> str:
        return re.sub(r"([_*~|\[\]])", r"\\\1", html.escape(part, quote=False))

    return "".join(part if part.startswith("`") else plain(part) for part in re.split(r"(`[^`]*`)", text))
