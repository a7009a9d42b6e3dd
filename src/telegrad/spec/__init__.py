"""The grammar of specs and the registry of what they name.

A spec is a name with arguments in parentheses, which may be specs again: `mlmc(stopk(s=0.01, values=sign))`. The
grammar is that of Python calls; words need no quotes. A class takes part by being a frozen dataclass below a base
class with a `kind` and by the decorator `@register`.
"""

from telegrad.spec.arguments import Amount, check_amount, check_that, resolve_amount
from telegrad.spec.grammar import build
from telegrad.spec.outside import from_outside, wrap_own
from telegrad.spec.registered import Registered, fields_in_order
from telegrad.spec.registry import implied, names, register, registered

__all__ = [
    "Amount",
    "Registered",
    "build",
    "check_amount",
    "check_that",
    "fields_in_order",
    "from_outside",
    "implied",
    "names",
    "register",
    "registered",
    "resolve_amount",
    "wrap_own",
]
