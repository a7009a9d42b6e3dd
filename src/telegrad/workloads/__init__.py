"""Workloads: what is trained on what. Importing this package registers them all."""

from telegrad.workloads.base import Split, Task, Workload
from telegrad.workloads.cifar10 import Cifar10
from telegrad.workloads.digits import Digits
from telegrad.workloads.imported import workload_of
from telegrad.workloads.logistic import Logistic
from telegrad.workloads.own import task
from telegrad.workloads.quadratic import Quadratic
from telegrad.workloads.sst2 import Sst2
from telegrad.workloads.text import Text

__all__ = [
    "Cifar10",
    "Digits",
    "Logistic",
    "Quadratic",
    "Split",
    "Sst2",
    "Task",
    "Text",
    "Workload",
    "task",
    "workload_of",
]
