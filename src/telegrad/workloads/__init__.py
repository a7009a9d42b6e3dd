"""Workloads: what is trained on what. Importing this package registers them all."""

from telegrad.workloads.base import Split, Task, Workload
from telegrad.workloads.digits import Digits

__all__ = ["Digits", "Split", "Task", "Workload"]
