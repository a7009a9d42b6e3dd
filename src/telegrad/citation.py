"""The references of what a spec uses: the papers that the registry's sources name, from `references.bib`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from telegrad.spec import Registered, build, registered

__all__ = ["Reference", "citation", "references"]

_ENTRY = re.compile(r"^@\w+\{(?P<key>\w+),\n(?P<fields>.*?)^\}$", re.MULTILINE | re.DOTALL)
_FIELD = re.compile(r"^  (\w+) = \{(.*)\},$", re.MULTILINE)
_KINDS = ("compressor", "method", "ladder", "topology", "workload")


@dataclass(frozen=True)
class Reference:
    """A paper of `references.bib`: its key, its fields by name, and the whole entry as BibTeX."""

    key: str
    fields: dict[str, str]
    bibtex: str

    @property
    def title(self) -> str:
        """The title as plain text."""
        return re.sub(r"[{}\\]", "", self.fields["title"]).replace("--", "–")

    def is_named_in(self, source: str) -> bool:
        """Whether one of the parts of a registry's source, which semicolons divide, names the authors and the year, and
        where it names a number on arXiv, this paper's.
        """
        surnames = [author.partition(",")[0] for author in self.fields["author"].split(" and ")]
        several = " and ".join(filter(None, (", ".join(surnames[:-1]), surnames[-1])))
        forms = "|".join(re.escape(form) for form in (f"{surnames[0]} et al.", ", ".join(surnames), several))
        # Not preceded by a comma: Tyurin, Richtárik are not the authors that Fatkhullin, Tyurin, Richtárik are.
        names = re.compile(rf"(?<!, )(?<!\w)(?:{forms})(?!\w)")
        year = re.compile(rf"\b{self.fields['year']}\b")

        def is_named(part: str) -> bool:
            number = re.search(r"arXiv (\d+\.\d+)", part)
            ours = number is None or number[1] in f"{self.fields.get('url')} {self.fields.get('howpublished')}"
            return ours and bool(names.search(part) and year.search(part))

        return any(map(is_named, _without_initials(source).split(";")))


def _without_initials(source: str) -> str:
    return re.sub(r"\b[A-Z]\.(?:-[A-Z]\.)* ", "", source)


@cache
def _all() -> tuple[Reference, ...]:
    text = resources.files("telegrad").joinpath("references.bib").read_text(encoding="utf-8")
    return tuple(
        Reference(found["key"], dict(_FIELD.findall(found["fields"])), found[0]) for found in _ENTRY.finditer(text)
    )


def references(cls: type[Registered]) -> list[Reference]:
    """The papers that a registered class's source names, in the order of their keys; none for what is telegrad's own.

    Args:
        cls: A class that `register` has given a source.

    Returns:
        What `references.bib` holds of them. A paper that the source mentions for a part which another class stands for
        ("with mlmc(…) …") comes with that class.
    """
    own = ";".join(part for part in cls.source.split(";") if not part.strip().startswith("with "))
    return [reference for reference in _all() if reference.is_named_in(own)]


def citation(spec: str | Registered) -> str:
    """The references of a spec, as BibTeX: of the thing itself and of all its parts, each paper once.

    Args:
        spec: A compressor's, method's, ladder's, topology's or workload's spec, or such an object. What a spec leaves
            out has its default, which is cited too.

    Returns:
        BibTeX entries in UTF-8, ready for a `.bib` file. Comments above them name the spec, and each part of it that no
        paper on file describes, with the source that the catalogue gives.

    Raises:
        SpecError: The spec names nothing that is registered, or is wrong.

    Example:
        >>> import telegrad as tg
        >>> print(tg.citation("ef21(topk(k=0.01))").splitlines()[0])
        % References of ef21(topk(k=0.01))
    """
    owner = _any_kind(spec)
    found: dict[str, Reference] = {}
    lines = [f"% References of {owner}"]
    for cls in dict.fromkeys(_classes(owner)):
        papers = references(cls)
        found.update((paper.key, paper) for paper in papers)
        if not papers:
            lines.append(f"% {cls.spec_name}: no paper on file; {cls.source}")
    return "\n\n".join(["\n".join(lines), *(found[key].bibtex for key in found)]) + "\n"


def _any_kind(spec: str | Registered) -> Registered:
    """The object that `spec` describes, whatever its kind; of a name that is a compressor and a ladder, the former."""
    if isinstance(spec, Registered):
        return spec
    head = re.match(r"\s*(\w+)", spec) if isinstance(spec, str) else None
    kinds = [kind for kind in _KINDS if head and head[1] in registered(kind)]
    built: Registered = build(spec, kinds[0] if kinds else "method")
    return built


def _classes(owner: Registered) -> Iterator[type[Registered]]:
    """The class of an object and those of its parts, outermost first."""
    yield type(owner)
    for field in dataclasses.fields(owner):  # type: ignore[arg-type]
        part = getattr(owner, field.name)
        if isinstance(part, Registered):
            yield from _classes(part)
