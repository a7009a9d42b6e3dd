"""A workload of yours, by the path of its class or function: `package.module:Name`."""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from telegrad.errors import DataError, SpecError
from telegrad.random import Key
from telegrad.spec import build
from telegrad.workloads.base import Task, Workload

__all__ = ["Imported", "module_of", "workload_of"]

_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


@dataclass(frozen=True)
class Imported(Workload):
    """What `path`, such as `my_project.work:task`, leads to: a `Task`, a `Workload`, or a class or function without
    arguments that makes one.

    The module is imported from Python's path or the current folder.
    """

    path: str

    spec_name = "package.module:Name"
    example = "my_project.work:task"
    source = ""

    def __str__(self) -> str:
        return self.path

    def load(self, data: Path | None, key: Key) -> Task:
        """The task. Raises `DataError` where the module or the name is missing, or leads to something else."""
        found = self._found()
        if not isinstance(found, (Task, Workload)) and callable(found):
            try:
                inspect.signature(found).bind()
            except TypeError as error:
                raise DataError(f"{self.path} is called without arguments, and cannot be: {error}") from None
            except ValueError:  # one of C's has no signature
                pass
            found = found()
        if isinstance(found, Workload):
            found = found.load(data, key)
        if not isinstance(found, Task):
            raise DataError(
                f"{self.path} leads to a {type(found).__name__}; a Task is wanted, or what makes one: "
                "for example a function that returns telegrad.task(model, train)"
            )
        return found

    def _found(self) -> Any:
        module, _, name = self.path.partition(":")
        found = module_of(module, self.path)
        try:
            return getattr(found, name)
        except AttributeError:
            raise DataError(f"{self.path}: the module {module} has no {name}") from None


def module_of(name: str, path: str) -> ModuleType:
    """The module of this name, from Python's path or the current folder, which `path` asks for. Raises `DataError`."""
    here = os.getcwd()
    if here not in sys.path:  # a console script's path has its own folder instead
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise DataError(f"{path}: there is no module {error.name} in Python's path or in {here}") from None


def workload_of(spec: str | Workload) -> Workload:
    """The workload that a spec describes, or that a path `package.module:Name` leads to. Raises `SpecError`."""
    if isinstance(spec, str) and _PATH.fullmatch(spec.strip()):
        return Imported(spec.strip())
    if isinstance(spec, str) and ":" in spec and "(" not in spec:
        raise SpecError(
            f"`{spec}`: a path to a workload is written package.module:Name, for example {Imported.example}"
        )
    workload: Workload = build(spec, "workload")
    return workload
