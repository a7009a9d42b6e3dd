"""Multilevel Monte Carlo compression: ladders, probabilities, and the one estimator over them."""

from telegrad.mlmc.ecuq import ECUQLadder
from telegrad.mlmc.estimator import MLMC
from telegrad.mlmc.fixed_point import FixedPointLadder
from telegrad.mlmc.floating_point import FloatingPointLadder
from telegrad.mlmc.ladder import Ladder, Levels
from telegrad.mlmc.rtn import RTNLadder
from telegrad.mlmc.stopk import SegmentedTopKLadder

__all__ = [
    "MLMC",
    "ECUQLadder",
    "FixedPointLadder",
    "FloatingPointLadder",
    "Ladder",
    "Levels",
    "RTNLadder",
    "SegmentedTopKLadder",
]
