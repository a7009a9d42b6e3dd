"""docs/kernels.md has a line for each module of kernels/, and what it says of callers and defining forms is so."""

import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "telegrad"
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in (Path(__file__).parents[2] / "docs" / "kernels.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]


def source(module):
    return (SOURCE / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")


def test_every_module_has_one_line():
    files = [p for p in (SOURCE / "kernels").rglob("*.py") if p.name != "__init__.py"]
    modules = sorted(".".join(p.relative_to(SOURCE / "kernels").with_suffix("").parts) for p in files)
    assert sorted(row[0].strip("`") for row in ROWS) == modules


def test_callers_are_those_that_are_named():
    every = {".".join(p.relative_to(SOURCE).with_suffix("").parts): p.read_text("utf-8") for p in SOURCE.rglob("*.py")}
    for name, _, callers, _, _ in ROWS:
        if "many modules" in callers or "by name" in callers:
            continue
        wanted = f"telegrad.kernels.{name.strip('`')} import"
        assert set(re.findall(r"`([\w.]+)`", callers)) == {module for module in every if wanted in every[module]}, name


def test_defining_forms_are_there():
    for name, _, _, _, form in ROWS:
        for function in re.findall(r"beside the loop: `(\w+)`", form):
            assert re.search(rf"\b{function}\b", source(f"kernels.{name.strip('`')}")), (name, function)
