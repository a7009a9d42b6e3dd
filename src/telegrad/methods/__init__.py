"""Distributed optimisation methods, one a file."""

from telegrad.methods.adiana import ADIANA
from telegrad.methods.async_sgd import AsyncSGD
from telegrad.methods.asynchronous_method import AsynchronousMethod
from telegrad.methods.base import Method
from telegrad.methods.clock import Clock
from telegrad.methods.compressed_scaffnew import CompressedScaffnew
from telegrad.methods.dasha import DASHA
from telegrad.methods.dasha_mvr import DASHAMVR
from telegrad.methods.dasha_page import DASHAPage
from telegrad.methods.demo import DeMo
from telegrad.methods.diana import DIANA
from telegrad.methods.diloco import DiLoCo
from telegrad.methods.ef14 import EF14
from telegrad.methods.ef21 import EF21
from telegrad.methods.ef21_page import EF21Page
from telegrad.methods.ef21_sgd2m import EF21SGD2M
from telegrad.methods.ef21_sgdm import EF21SGDM
from telegrad.methods.ef_bv import EFBV
from telegrad.methods.gradient_method import GradientMethod
from telegrad.methods.local_sgd import LocalSGD
from telegrad.methods.marina import MARINA
from telegrad.methods.muloco import MuLoCo
from telegrad.methods.onebit_adam import OneBitAdam
from telegrad.methods.oracle_method import OracleMethod
from telegrad.methods.outer import Outer
from telegrad.methods.outer_method import OuterMethod
from telegrad.methods.rennala import Rennala
from telegrad.methods.scaffnew import Scaffnew
from telegrad.methods.sgd import SGD
from telegrad.methods.shadowheart import Shadowheart
from telegrad.methods.signsgd import SignSGD
from telegrad.methods.sparseloco import SparseLoCo
from telegrad.methods.tamuna import TAMUNA

__all__ = [
    "ADIANA",
    "DASHA",
    "DASHAMVR",
    "DIANA",
    "EF14",
    "EF21",
    "EF21SGD2M",
    "EF21SGDM",
    "EFBV",
    "MARINA",
    "SGD",
    "TAMUNA",
    "AsyncSGD",
    "AsynchronousMethod",
    "Clock",
    "CompressedScaffnew",
    "DASHAPage",
    "DeMo",
    "DiLoCo",
    "EF21Page",
    "GradientMethod",
    "LocalSGD",
    "Method",
    "MuLoCo",
    "OneBitAdam",
    "OracleMethod",
    "Outer",
    "OuterMethod",
    "Rennala",
    "Scaffnew",
    "Shadowheart",
    "SignSGD",
    "SparseLoCo",
]
