"""What is wrong with a configuration, in words: the field, what was given, what is allowed, an example."""

from __future__ import annotations

import difflib
from typing import Any

from pydantic import ValidationError

from telegrad.errors import SpecError
from telegrad.lab.experiment import Experiment, MethodEntry

__all__ = ["explained"]

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


def explained(error: ValidationError) -> str:
    """A line for each fault that pydantic found."""
    faults = error.errors(include_url=False)
    # A list with a fault in it is reported as too short as well.
    inner = [f for f in faults if not any(f["loc"] == g["loc"][: len(f["loc"])] for g in faults if g is not f)]
    return "\n".join(_explain(fault) for fault in inner or faults)


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
