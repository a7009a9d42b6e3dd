"""Step sizes and other parameters that theory gives each method, in a file for each family as `telegrad.theory.bounds`.

Every function takes the constants of `telegrad.theory.constants` by name, and the first line of its docstring is what
it computes. Step sizes are in length² / loss, as 1/L is. Numbers in brackets are those of the algorithm reference.
Where a paper prints a constant that its own algebra does not give, the function says "printed" or "corrected". The
families are those of `telegrad.theory.bounds`.
"""

# What they state is what each family's `__all__` names; nothing else is listed here.
from telegrad.theory.step_sizes.asynchronous import *
from telegrad.theory.step_sizes.differences import *
from telegrad.theory.step_sizes.error_feedback import *
from telegrad.theory.step_sizes.gradient_descent import *
from telegrad.theory.step_sizes.local import *
from telegrad.theory.step_sizes.mlmc_paper import *
from telegrad.theory.step_sizes.sign import *
