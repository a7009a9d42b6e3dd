"""What theory guarantees after T steps: the convergence bounds of every method, in a file for each family.

    gradient_descent  gradient descent, SGD, SGD with an unbiased compressor, both ways compressed, DCGD
    mlmc_paper        the same with the MLMC paper's constants, as printed and corrected
    sign              majority votes of signs
    error_feedback    EF14, EF21, EF21-SGDM, EF21-SGD2M, EF-BV
    differences       DIANA, ADIANA, MARINA, VR-MARINA, MARINA with PermK, DASHA
    local             Local SGD with and without MLMC, Scaffnew, CompressedScaffnew, TAMUNA
    asynchronous      Shadowheart SGD

Every function takes the constants of `telegrad.theory.constants` by name; the first line of its docstring is what it
computes. "Mean ‖∇f‖²" is E over the run and over t = 1 … T; x̄ is the mean iterate. A bound that holds for a range of
step sizes raises `ConfigError` for one outside of it. Numbers in brackets are those of the algorithm reference.
"""

# What they state is what each family's `__all__` names; nothing else is listed here.
from telegrad.theory.bounds.asynchronous import *
from telegrad.theory.bounds.differences import *
from telegrad.theory.bounds.error_feedback import *
from telegrad.theory.bounds.gradient_descent import *
from telegrad.theory.bounds.local import *
from telegrad.theory.bounds.mlmc_paper import *
from telegrad.theory.bounds.sign import *
