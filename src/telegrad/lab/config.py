"""An experiment's configuration: what is compared, on what, and how; read from YAML, checked before anything runs."""

from __future__ import annotations

import difflib
import hashlib
import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

# Importing these rooms registers every name that a spec may use.
from telegrad.errors import ConfigError, SpecError
from telegrad.spec import build
from telegrad.workloads import workload_of

__all__ = ["Experiment", "MethodEntry", "default_yaml", "digest", "load", "parse", "to_yaml"]

_MOST, _MOST_SEEDS = 10**9, 10**5
Count = Annotated[int, Field(ge=1, le=_MOST)]
LearningRates = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["constant", "linear", "cosine"]
Granularity = Literal["model", "bucket", "tensor"]
Momentum = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]

_METHOD = "sgd(mlmc(stopk(s=0.01)))"

# What each field allows, and an example: the second half of every error message.
_HELP = {
    "workload": ("the spec of a workload is wanted", "workload: digits"),
    "methods": ("a list of methods is wanted, at least one", f'methods: ["sgd(identity)", "{_METHOD}"]'),
    "lrs": ("a list of distinct learning rates above 0 is wanted", "lrs: [0.03, 0.1, 0.3]"),
    "title": ("a short text is wanted", "title: Figure 4"),
    "priority": ("an integer is wanted; a queue takes lower ones first", "priority: 1"),
    "tuning_runs": (
        "an integer from the number of listed learning rates on, or null for just these, is wanted",
        "tuning_runs: 5",
    ),
    "seeds": ("a number of seeds from 1, or a list of distinct integers from 0, is wanted", "seeds: 3"),
    "workers": ("an integer from 1 to 10^9 is wanted", "workers: 8"),
    "steps": ("an integer from 1 to 10^9 is wanted", "steps: 300"),
    "batch_size": (
        "an integer from 1 to 10^9 (examples a worker and step), or null for all examples, is wanted",
        "batch_size: 16",
    ),
    "optimizer": ("sgd or adamw is wanted", "optimizer: sgd"),
    "momentum": ("a number in [0, 1) is wanted", "momentum: 0.9"),
    "weight_decay": ("a number from 0 is wanted", "weight_decay: 0.0005"),
    "schedule": ("constant, linear or cosine is wanted", "schedule: cosine"),
    "warmup_steps": ("an integer from 0 up to the number of steps is wanted", "warmup_steps: 20"),
    "dirichlet": (
        "a number from 0 (small: unlike workers; 0: sorted by class), or null for equal shares, is wanted",
        "dirichlet: 0.5",
    ),
    "topology": ("the spec of a topology is wanted", "topology: server"),
    "granularity": ("model, bucket or tensor is wanted", "granularity: model"),
    "downlink": ("the spec of an unbiased compressor, or null for the topology's own, is wanted", "downlink: identity"),
    "gradients": ("vmap or loop is wanted", "gradients: vmap"),
    "chunk": ("an integer from 1 (workers at a time), or null for all at once, is wanted", "chunk: 4"),
    "evaluate_every": ("an integer from 1 up to the number of steps, or null, is wanted", "evaluate_every: 10"),
    "data": ("the path of a folder, or null, is wanted", "data: data/cifar10"),
    "target": ("a value of the metric, or null for the default rule, is wanted", "target: 0.9"),
    "spec": ("the spec of a method is wanted", f'spec: "{_METHOD}"'),
    "label": ("a short text that no other method has is wanted", "label: MLMC s-Top-k"),
}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_booleans(cls, value: Any) -> Any:
        if isinstance(value, bool):  # pydantic would read it as 0 or 1
            raise ValueError(f"{str(value).lower()} is no number")
        return value

    @field_validator("lrs", check_fields=False)
    @classmethod
    def _ascending(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError("a learning rate is listed twice")
        return None if value is None else tuple(sorted(value))

    @field_validator("topology", check_fields=False)
    @classmethod
    def _topology_builds(cls, value: str | None) -> str | None:
        if value is not None:
            build(value, "topology")
        return value

    @field_validator("downlink", check_fields=False)
    @classmethod
    def _downlink_builds(cls, value: str | None) -> str | None:
        if value is not None and not build(value, "compressor").unbiased:
            # The server has no error memory that would make up for it.
            raise ValueError(f"{value} is biased; an unbiased compressor is wanted")
        return value


class MethodEntry(_Model):
    """One method of the comparison: its spec, its name in table and plots, and where its setting is its own."""

    spec: str
    label: str = ""
    lrs: LearningRates | None = None
    optimizer: Optimizer | None = None
    momentum: Momentum | None = None
    weight_decay: NotNegative | None = None
    schedule: Schedule | None = None
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    topology: str | None = None
    granularity: Granularity | None = None
    downlink: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, value: Any) -> Any:
        value = {"spec": value} if isinstance(value, str) else value
        if isinstance(value, dict) and not value.get("label"):
            value = {**value, "label": value.get("spec", "")}
        return value

    @field_validator("spec")
    @classmethod
    def _spec_builds(cls, value: str) -> str:
        build(value, "method")
        return value.strip()

    @field_validator("label")
    @classmethod
    def _one_line(cls, value: str) -> str:
        return " ".join(value.split())


class Experiment(_Model):
    """A grid of methods x learning rates x seeds on one workload, and the setting they share.

    With `tuning_runs`, every method gets as many runs to find its learning rate: those listed, then wider or finer ones
    (see `telegrad.lab.plan.next_rate`).
    """

    workload: str = "digits"
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=1)]
    lrs: LearningRates = (0.03, 0.1, 0.3, 1.0)
    tuning_runs: Count | None = None
    seeds: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0, 1, 2)
    workers: Count = 8
    steps: Count = 300
    batch_size: Count | None = 16
    optimizer: Optimizer = "sgd"
    momentum: Momentum = 0.0
    weight_decay: NotNegative = 0.0
    schedule: Schedule = "constant"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    dirichlet: Annotated[float, Field(ge=0)] | None = None
    topology: str = "server"
    granularity: Granularity = "model"
    downlink: str | None = None
    gradients: Literal["vmap", "loop"] = "vmap"
    chunk: Count | None = None
    evaluate_every: Count | None = None
    data: str | None = None
    target: float | None = None
    title: str = ""
    priority: int = 0

    @field_validator("workload")
    @classmethod
    def _workload_builds(cls, value: str) -> str:
        workload_of(value)
        return value.strip()

    @field_validator("seeds", mode="before")
    @classmethod
    def _count_of_seeds(cls, value: Any) -> Any:
        if type(value) is not int or value <= 0:
            return value
        if value > _MOST_SEEDS:
            raise ValueError(f"{value} seeds were asked for; up to {_MOST_SEEDS} are allowed")
        return tuple(range(value))

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a seed is listed twice")
        return value

    @field_validator("methods")
    @classmethod
    def _labels_differ(cls, value: tuple[MethodEntry, ...]) -> tuple[MethodEntry, ...]:
        labels = [entry.label for entry in value]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"two methods have the label {label!r}; give one of them a `label` of its own")
        return value

    @model_validator(mode="after")
    def _parts_fit(self) -> Experiment:
        if self.evaluate_every is not None and self.evaluate_every > self.steps:
            raise ValueError(f"evaluate_every: {self.evaluate_every} exceeds the {self.steps} steps")
        for place, entry in enumerate(self.methods):
            settings = self.settings_of(entry)
            build(settings["topology"], "topology").downlink(settings["downlink"], None)
            if self.tuning_runs is not None and self.tuning_runs < len(self.lrs_of(entry)):
                raise ValueError(
                    f"methods[{place}]: tuning_runs: {self.tuning_runs} is below its {len(self.lrs_of(entry))} listed "
                    "learning rates; raise it, or list fewer"
                )
            if settings["warmup_steps"] > self.steps:
                raise ValueError(
                    f"methods[{place}]: warmup_steps: {settings['warmup_steps']} exceeds the {self.steps} steps"
                )
            if settings["optimizer"] == "adamw" and settings["momentum"]:
                raise ValueError(
                    f"methods[{place}]: momentum: {settings['momentum']} goes with `optimizer: sgd`; adamw has its own "
                    "averages, so write `momentum: 0`"
                )
        return self

    def lrs_of(self, entry: MethodEntry) -> tuple[float, ...]:
        """The learning rates listed for a method, ascending."""
        return entry.lrs or self.lrs

    def searches_of(self, entry: MethodEntry) -> int:
        """How many runs the search for a method's learning rate takes."""
        return self.tuning_runs or len(self.lrs_of(entry))

    def settings_of(self, entry: MethodEntry) -> dict[str, Any]:
        """The keyword arguments of `simulate` for a method, but for learning rate and seed."""
        shared = ("workers", "steps", "batch_size", "dirichlet", "gradients", "chunk", "evaluate_every")
        own = (
            "optimizer",
            "momentum",
            "weight_decay",
            "schedule",
            "warmup_steps",
            "topology",
            "granularity",
            "downlink",
        )
        settings = {name: getattr(self, name) for name in shared + own}
        return settings | {name: getattr(entry, name) for name in own if getattr(entry, name) is not None}

    def resolved(self) -> dict[str, Any]:
        """The whole configuration as plain values, defaults written out; parsing it gives an equal experiment."""
        plain = self.model_dump(mode="json")
        plain["methods"] = [entry.model_dump(mode="json", exclude_none=True) for entry in self.methods]
        return plain


def parse(values: Any, origin: str = "the configuration") -> Experiment:
    """The experiment that a mapping describes. `origin` says in errors where it came from. Raises `ConfigError`."""
    if not isinstance(values, dict):
        raise ConfigError(f"{origin}: a mapping of fields is wanted, for example `workload: digits`")
    try:
        return Experiment.model_validate(values)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        # A list with a fault in it is reported as too short as well.
        inner = [f for f in faults if not any(f["loc"] == g["loc"][: len(f["loc"])] for g in faults if g is not f)]
        lines = [_explain(fault) for fault in inner or faults]
        raise ConfigError(f"{origin}: " + "\n".join(lines)) from None


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


def _explain(fault: Any) -> str:
    """One line on one of pydantic's findings: the field, what was given, what is allowed, an example."""
    location = fault["loc"]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")
    if fault["type"] in ("extra_forbidden", "invalid_key"):
        model = MethodEntry if location[0] == "methods" else Experiment
        known = list(model.model_fields)
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        example = _HELP[(close or known)[0]][1]
        return f"unknown field {path!r}; {hint}allowed are {', '.join(known)}; for example `{example}`"
    names = [part for part in location if part in _HELP]
    if not names:  # a check across fields, whose text names them
        return str(fault["ctx"]["error"])
    name = names[-1] if fault["type"] != "model_type" else "spec"
    allowed, example = _HELP[str(name)]
    if fault["type"] == "missing":
        return f"{path} is missing; {allowed}; for example `{example}`"
    if fault["type"] == "value_error":
        reason = fault["ctx"]["error"]
        # These say themselves what is allowed.
        whole = isinstance(reason, SpecError) or name == "methods"
        return f"{path}: {reason}" if whole else f"{path}: {reason}; {allowed}; for example `{example}`"
    return f"{path}: {fault['input']!r} was given; {allowed}; for example `{example}`"
