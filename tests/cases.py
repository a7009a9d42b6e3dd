"""What the contract tests run over: every registered compressor in every variant, and the tensors that try it.

Both are derived, from the registry and from dataclass fields, so that what is registered later is tested from then on.
"""

import dataclasses
import math
import typing

import torch

from telegrad.errors import SpecError
from telegrad.spec import Registered, build, registered
from telegrad.wire.values import DTYPES

# T1 of the reference: v, with ‖v‖² = 21.25, ‖v‖₁ = 7.5, ‖v‖_∞ = 4.
T1 = torch.tensor([4, 2, 1, 0.5], dtype=torch.float64)


def ours(kind):
    """The registered classes of a kind, without those that tests register."""
    return [cls for cls in registered(kind).values() if cls.__module__.startswith("telegrad.")]


def variants(kind):
    """Every class of a kind with every choice of each of its words and switches, and MLMC over every ladder."""
    return [variant for cls in ours(kind) for variant in _variants_of(cls)]


def _variants_of(cls):
    """The example, and the example with one field at a time at each of its other choices.

    All combinations would be hundreds for MLMC alone; what fields do together is tested where they live.
    """
    example, hints = build(cls.example, cls.kind), typing.get_type_hints(cls)
    fields = [field.name for field in dataclasses.fields(cls) if field.init]
    choices = {name: _choices(hints[name], getattr(example, name), cls.kind) for name in fields}
    start = {name: _like(getattr(example, name), options) for name, options in choices.items()}
    found = []
    for changes in [{}, *({name: option} for name, options in choices.items() for option in options)]:
        try:
            variant = cls(**{**start, **changes})
        except SpecError:  # parts that do not fit each other
            continue
        if variant not in found:
            found.append(variant)
    return found


def _like(value, options):
    """The option that stands for the example's value: itself, or the first of its class."""
    return value if value in options else next((x for x in options if type(x) is type(value)), options[0])


def _choices(hint, value, kind):
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    if hint is bool:
        return (False, True)
    # A ladder's part may be any compressor, which may be over any ladder: the example's will do.
    if isinstance(hint, type) and issubclass(hint, Registered) and hint.kind != kind and kind != "ladder":
        return variants(hint.kind)
    # A share of three tenths leaves a last block that is shorter in most of the shapes below.
    return (0.3,) if isinstance(value, float) and set(typing.get_args(hint)) == {int, float} else (value,)


COMPRESSORS = variants("compressor")
EVERY_LAW = [  # each ladder in each coding under each law of its levels
    build(f"mlmc({ladder}, probabilities={law})", "compressor")
    for ladder in variants("ladder")
    for law in typing.get_args(typing.get_type_hints(registered("compressor")["mlmc"])["probabilities"])
]
MLMC = [compressor for compressor in COMPRESSORS if compressor.spec_name == "mlmc"]
RANDOM = [compressor for compressor in COMPRESSORS if compressor.random]


def ordinary_tensors(dtype):
    """Tensors of all shapes whose entries are far from the ends of their dtype's range, by name."""
    g = torch.Generator().manual_seed(0)
    normal = torch.randn(37, generator=g, dtype=torch.float64)
    with_zeros = torch.where(torch.rand(41, generator=g) < 0.6, 0.0, torch.randn(41, generator=g, dtype=torch.float64))
    grid = torch.randn(6, 10, generator=g, dtype=torch.float64)
    made = {
        "normal": normal,
        "heavy": normal**3,
        "constant": torch.full((16,), 0.7),
        "tied": torch.tensor([1.0, -1.0, 1.0, 2.0, -2.0, 1.0, 0.0, 2.0, -1.0]),
        "half steps": torch.tensor([1.0, 0.5, -0.25, 0.75, 0.125, -0.5]),
        "zero": torch.zeros(5),
        "with zeros": with_zeros,
        "one entry": torch.tensor([-2.5]),
        "one-hot": torch.tensor([0.0, 0.0, 0.0, -0.3, 0.0]),
        "empty": torch.zeros(0),
        "empty 2-d": torch.zeros(3, 0, 2),
        "0-d": torch.tensor(1.7),
        "2-d": grid,
        "3-d": grid.reshape(3, 4, 5),
    }
    made = {name: tensor.to(dtype) for name, tensor in made.items()}
    made["transposed"] = made["2-d"].t()
    made["strided"] = made["normal"][::3]
    return made


def extreme_tensors(dtype):
    """Tensors at the ends of a dtype's range, by name."""
    info = torch.finfo(dtype)
    pattern = torch.tensor([1.0, -0.5, 0.25, 0.75, -1.0, 0.0, 0.125], dtype=torch.float64)
    smallest = info.smallest_normal * info.eps  # the smallest subnormal
    exponents = torch.linspace(math.log2(smallest), math.log2(info.max) - 4, 25, dtype=torch.float64)
    return {
        "huge": (pattern * info.max).to(dtype),
        "tiny": (pattern * info.smallest_normal * 16).to(dtype),
        "subnormal": torch.tensor([1.0, -3.0, 2.0, 0.0, 100.0], dtype=torch.float64).mul(smallest).to(dtype),
        "spread": (2.0**exponents * torch.tensor([1.0, -1.0] * 13)[:25]).to(dtype),
    }


def by_spec(compressors):
    """Arguments for `pytest.mark.parametrize`: the compressors, with their specs as names."""
    return {"argvalues": compressors, "ids": list(map(str, compressors))}


def by_dtype():
    """Arguments for `pytest.mark.parametrize`: every dtype that a message can carry."""
    return {"argvalues": DTYPES, "ids": [str(dtype).removeprefix("torch.") for dtype in DTYPES]}


class FixedKey:
    """Stands in for a `Key` where a test wants to choose the numbers: all uniforms below a fold have one value.

    `by_role` maps the role of a fold to the value used below it; `default` holds elsewhere.
    """

    path = ()

    def __init__(self, default, by_role=None):
        self.value, self.by_role = default, by_role or {}

    def fold(self, **what):
        return FixedKey(self.by_role.get(what.get("role"), self.value), self.by_role)

    def uniform(self, n, *, start=0, device=None):
        return torch.full((n,), self.value, dtype=torch.float64)

    def number(self, i=0):
        return float(self.value)

    def to_int(self):
        return int(self.value)


def numbers(code):
    """The estimate of a code in float64, before it is rounded to the tensor's dtype."""
    out = torch.zeros(code.shape, dtype=torch.float64)
    code.add_to(out)
    return out.reshape(-1)
