"""An experiment: the fields of its configuration, what each may be, and what must fit together."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

# Importing these rooms registers every name that a spec may use.
from telegrad.spec import build
from telegrad.workloads import workload_of

__all__ = ["Experiment", "MethodEntry"]

_MOST, _MOST_SEEDS = 10**9, 10**5
Count = Annotated[int, Field(ge=1, le=_MOST)]
LearningRates = Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1)]
Optimizer = Literal["sgd", "adamw"]
Schedule = Literal["constant", "linear", "cosine"]
Granularity = Literal["model", "bucket", "tensor"]
Momentum = Annotated[float, Field(ge=0, lt=1)]
NotNegative = Annotated[float, Field(ge=0)]


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
