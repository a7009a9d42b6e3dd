"""Examples in docstrings are shown as code: what stands below `Example:` is fenced before it is parsed."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:\n((?:[ ]{4,}.*\n?|[ ]*\n)+)", re.MULTILINE)


class Examples(griffe.Extension):
    """Fences the examples of every object's docstring."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(_fenced, obj.docstring.value)


def _fenced(match: re.Match[str]) -> str:
    lines = match[1].rstrip().split("\n")
    language = "pycon" if lines[0].lstrip().startswith(">>>") else "python"
    return "\n".join(["Example:", f"    ```{language}", *lines, "    ```", ""]) + "\n"
