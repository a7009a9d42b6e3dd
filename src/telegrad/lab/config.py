"""An experiment's configuration: read from YAML or plain values, checked before anything runs, and written."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from telegrad.errors import ConfigError
from telegrad.lab.config_faults import explained
from telegrad.lab.experiment import Experiment

__all__ = ["default_yaml", "digest", "from_yaml", "load", "parse", "to_yaml"]


def parse(values: Any, origin: str = "the configuration") -> Experiment:
    """The experiment that a mapping describes. `origin` says in errors where it came from. Raises `ConfigError`."""
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: a mapping of fields is wanted, for example `workload: digits`")
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        raise ConfigError(f"{origin}: {explained(error)}") from None


def load(path: Path) -> Experiment:
    """Read an experiment from a YAML file. Raises `ConfigError`, also for a file that is missing or is no YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(f"cannot read the configuration {path}: {reason}") from None
    return parse(from_yaml(text, str(path)), str(path))


def from_yaml(text: str, origin: str) -> Any:
    """The plain values of a YAML text; a field given twice is refused, not overwritten. Raises `ConfigError`."""
    try:
        return yaml.load(text, _UniqueKeys)
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin} is not valid YAML: {' '.join(str(error).split())}") from None


def to_yaml(experiment: Experiment) -> str:
    """The resolved configuration as YAML."""
    return yaml.safe_dump(experiment.resolved(), sort_keys=False, allow_unicode=True, width=120)


def default_yaml() -> dict[str, Any]:
    """The packaged comparison that `telegrad compare` starts from (`lab/default.yaml`)."""
    text = resources.files("telegrad.lab").joinpath("default.yaml").read_text(encoding="utf-8")
    return dict(from_yaml(text, "default.yaml"))


def digest(experiment: Experiment) -> str:
    """Eight hexadecimal digits that change with any field but the folder of the data."""
    text = json.dumps(experiment.resolved() | {"data": None}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names = [key.value for key, _ in node.value]
        for key, _ in node.value:
            if names.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is given twice", key.start_mark)
        return super().construct_mapping(node, deep)
