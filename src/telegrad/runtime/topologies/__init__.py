"""Topologies, one a file: how messages travel. Importing this room registers them all."""

from telegrad.runtime.topologies.allgather import AllGather
from telegrad.runtime.topologies.base import Topology
from telegrad.runtime.topologies.hierarchical import Hierarchical
from telegrad.runtime.topologies.server import Server
from telegrad.runtime.topologies.two_phase import TwoPhase

__all__ = ["AllGather", "Hierarchical", "Server", "Topology", "TwoPhase"]
