"""Step sizes and other parameters that theory gives each method, in a file for each family as `telegrad.theory.bounds`.

Every function takes the constants of `telegrad.theory.constants` by name, and the first line of its docstring is what
it computes. Step sizes are in length² / loss, as 1/L is. Numbers in brackets are those of the algorithm reference.
Where a paper prints a constant that its own algebra does not give, the function says "printed" or "corrected". The
families are those of `telegrad.theory.bounds`.
"""

from telegrad.theory.step_sizes.asynchronous import shadowheart
from telegrad.theory.step_sizes.differences import (
    adiana,
    dasha,
    dasha_as_printed,
    dasha_mvr,
    dasha_official,
    dasha_page,
    diana,
    diana_frontier,
    diana_nonconvex,
    l_svrg,
    marina,
    marina_frontier,
    marina_permk,
    marina_pl,
    vr_marina,
)
from telegrad.theory.step_sizes.error_feedback import (
    ef14,
    ef21,
    ef21_pl,
    ef21_sgdm,
    ef21_sgdm_momentum,
    ef_bv,
    ef_bv_weights,
)
from telegrad.theory.step_sizes.gradient_descent import (
    gd,
    sgd,
    sgd_any_data,
    sgd_convex,
    sgd_down,
    sgd_nonconvex,
)
from telegrad.theory.step_sizes.local import compressed_scaffnew, local_sgd, mlmc_local, scaffnew, tamuna
from telegrad.theory.step_sizes.mlmc_paper import (
    sgd_paper_convex,
    sgd_paper_convex_unlike,
    sgd_paper_convex_unlike_as_printed,
    sgd_paper_nonconvex,
    sgd_paper_nonconvex_as_printed,
    sgd_paper_nonconvex_unlike,
)
from telegrad.theory.step_sizes.sign import sign_majority

__all__ = [
    "adiana",
    "compressed_scaffnew",
    "dasha",
    "dasha_as_printed",
    "dasha_mvr",
    "dasha_official",
    "dasha_page",
    "diana",
    "diana_frontier",
    "diana_nonconvex",
    "ef14",
    "ef21",
    "ef21_pl",
    "ef21_sgdm",
    "ef21_sgdm_momentum",
    "ef_bv",
    "ef_bv_weights",
    "gd",
    "l_svrg",
    "local_sgd",
    "marina",
    "marina_frontier",
    "marina_permk",
    "marina_pl",
    "mlmc_local",
    "scaffnew",
    "sgd",
    "sgd_any_data",
    "sgd_convex",
    "sgd_down",
    "sgd_nonconvex",
    "sgd_paper_convex",
    "sgd_paper_convex_unlike",
    "sgd_paper_convex_unlike_as_printed",
    "sgd_paper_nonconvex",
    "sgd_paper_nonconvex_as_printed",
    "sgd_paper_nonconvex_unlike",
    "shadowheart",
    "sign_majority",
    "tamuna",
    "vr_marina",
]
