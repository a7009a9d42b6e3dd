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

from telegrad.theory.bounds.asynchronous import shadowheart
from telegrad.theory.bounds.differences import (
    adiana,
    dasha,
    diana,
    diana_nonconvex,
    marina,
    marina_permk,
    marina_pl,
    vr_marina,
)
from telegrad.theory.bounds.error_feedback import (
    ef14,
    ef21,
    ef21_pl,
    ef21_sgd2m_rate,
    ef21_sgdm,
    ef21_sgdm_rate,
    ef_bv,
    ef_bv_nonconvex,
)
from telegrad.theory.bounds.gradient_descent import (
    dcgd,
    gd,
    gd_nonconvex,
    sgd_convex,
    sgd_down,
    sgd_nonconvex,
    sgd_strongly_convex,
    sgd_tuned_convex,
    sgd_tuned_nonconvex,
)
from telegrad.theory.bounds.local import compressed_scaffnew, local_sgd, mlmc_local, scaffnew, tamuna
from telegrad.theory.bounds.mlmc_paper import (
    sgd_paper_convex,
    sgd_paper_convex_as_printed,
    sgd_paper_convex_at,
    sgd_paper_convex_unlike,
    sgd_paper_convex_unlike_as_printed,
    sgd_paper_nonconvex,
    sgd_paper_nonconvex_as_printed,
    sgd_paper_nonconvex_at,
    sgd_paper_nonconvex_unlike,
    sgd_paper_nonconvex_unlike_as_printed,
)
from telegrad.theory.bounds.sign import sign_majority

__all__ = [
    "adiana",
    "compressed_scaffnew",
    "dasha",
    "dcgd",
    "diana",
    "diana_nonconvex",
    "ef14",
    "ef21",
    "ef21_pl",
    "ef21_sgd2m_rate",
    "ef21_sgdm",
    "ef21_sgdm_rate",
    "ef_bv",
    "ef_bv_nonconvex",
    "gd",
    "gd_nonconvex",
    "local_sgd",
    "marina",
    "marina_permk",
    "marina_pl",
    "mlmc_local",
    "scaffnew",
    "sgd_convex",
    "sgd_down",
    "sgd_nonconvex",
    "sgd_paper_convex",
    "sgd_paper_convex_as_printed",
    "sgd_paper_convex_at",
    "sgd_paper_convex_unlike",
    "sgd_paper_convex_unlike_as_printed",
    "sgd_paper_nonconvex",
    "sgd_paper_nonconvex_as_printed",
    "sgd_paper_nonconvex_at",
    "sgd_paper_nonconvex_unlike",
    "sgd_paper_nonconvex_unlike_as_printed",
    "sgd_strongly_convex",
    "sgd_tuned_convex",
    "sgd_tuned_nonconvex",
    "shadowheart",
    "sign_majority",
    "tamuna",
    "vr_marina",
]
