"""Bits that a worker sends up in a round, method by method: the last column of F2 (C0). Raw float32 counts 32 bits.

These are the papers' formulas, for orientation. What telegrad reports as sent is always the length of packed messages.
"""

from __future__ import annotations

import math
from functools import partial

from telegrad.theory.statements import statement

__all__ = ["adiana", "compressed_scaffnew", "dense", "local", "marina", "marina_permk", "one_message", "scaffnew"]

_bits = partial(statement, kind="bits", unit="bits", source="F2")
_ONE_MESSAGE = (
    *("sgd", "ef14", "ef21", "ef21_sgdm", "ef21_sgd2m", "ef_bv", "diana", "dasha", "dasha_mvr", "dasha_page"),
    "shadowheart",
)


@_bits("gd", case="every round")
def dense(*, d: int) -> float:
    """32d"""
    return 32.0 * d


def one_message(*, message_bits: float) -> float:
    """b, one message"""
    return message_bits


for _method in _ONE_MESSAGE:
    statement(_method, "bits", "every round", "bits", "F2")(one_message)


@_bits("sign_majority", case="every round, and as much down")
def signs(*, d: int) -> float:
    """d"""
    return float(d)


@_bits("adiana", case="every round")
def adiana(*, message_bits: float) -> float:
    """2b"""
    return 2 * message_bits


@_bits("marina", case="in expectation")
def marina(*, message_bits: float, p: float, d: int) -> float:
    """p·32d + (1 − p)b"""
    return p * 32 * d + (1 - p) * message_bits


statement("vr_marina", "bits", "in expectation", "bits", "F2")(marina)


@_bits("marina_permk", case="in expectation, at p = 1/M")
def marina_permk(*, d: int, workers: int) -> float:
    """(32d/M)(2 − 1/M)"""
    return 32 * d / workers * (2 - 1 / workers)


@_bits("local_sgd", case="a local step, one dense message in H")
def local(*, d: int, local_steps: int) -> float:
    """32d/H"""
    return 32 * d / local_steps


@_bits("mlmc_local", case="a local step, one message in H")
def mlmc_local(*, message_bits: float, local_steps: int) -> float:
    """b/H"""
    return message_bits / local_steps


@_bits("scaffnew", case="a local step, in expectation")
def scaffnew(*, d: int, L_max: float, mu_min: float) -> float:
    """p·32d, p = 1/√κ"""
    return 32 * d * math.sqrt(mu_min / L_max)


@_bits("compressed_scaffnew", case="a local step, in expectation")
def compressed_scaffnew(*, d: int, L_max: float, mu_min: float, workers: int, owners: int) -> float:
    """p·32⌈sd/M⌉"""
    p = min(1.0, math.sqrt(workers * mu_min / (owners * L_max)))
    return p * 32 * math.ceil(owners * d / workers)


@_bits("tamuna", case="a local step of an active worker, in expectation")
def tamuna(*, d: int, L_max: float, mu_min: float, workers: int, owners: int, cohort: int) -> float:
    """p·32⌈sd/c⌉"""
    p = min(1.0, math.sqrt(workers * mu_min / (owners * L_max)))
    return p * 32 * math.ceil(owners * d / cohort)
