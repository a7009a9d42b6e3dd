"""Multilevel Monte Carlo compression: ladders, probabilities, and the one estimator over them."""

from telegrad.mlmc.composed import ComposedLadder
from telegrad.mlmc.ecuq import ECUQLadder
from telegrad.mlmc.estimator import MLMC
from telegrad.mlmc.fixed_point import FixedPointLadder
from telegrad.mlmc.floating_point import FloatingPointLadder
from telegrad.mlmc.ladder import Ladder, Levels
from telegrad.mlmc.low_rank import LowRankLadder
from telegrad.mlmc.refinement import RefinementLadder
from telegrad.mlmc.rtn import RTNLadder
from telegrad.mlmc.shared_order import SharedOrderLadder
from telegrad.mlmc.stopk import SegmentedTopKLadder
from telegrad.mlmc.two_level import TwoLevelLadder

__all__ = [
    "MLMC",
    "ComposedLadder",
    "ECUQLadder",
    "FixedPointLadder",
    "FloatingPointLadder",
    "Ladder",
    "Levels",
    "LowRankLadder",
    "RTNLadder",
    "RefinementLadder",
    "SegmentedTopKLadder",
    "SharedOrderLadder",
    "TwoLevelLadder",
]
