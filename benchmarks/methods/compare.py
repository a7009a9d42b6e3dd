"""Every method at the best of theory's steps times a factor."""

from __future__ import annotations

import math
from typing import Any

import torch
from case import CLOCK, MLMC, RANDK, TOPK, Case

import telegrad as tg
from telegrad.errors import ConfigError
from telegrad.methods.asynchronous_method import AsynchronousMethod
from telegrad.theory.known_problems import theory_rate

FACTORS = (1, 8, 64, 512, 4096)
FAMILIES: dict[str, dict[str, str]] = {
    "unbiased": {
        "gradient descent": "sgd(identity)",
        "DCGD, Rand-k": f"sgd({RANDK})",
        "DCGD, MLMC": f"sgd({MLMC})",
        "DCGD, importance": "sgd(importance(k=0.05, values=fp32))",
        "DCGD, induced": "sgd(induced(topk(k=0.025), randk(k=0.025)))",
        "DIANA, Rand-k": f"diana({RANDK})",
        "DIANA, MLMC": f"diana({MLMC})",
        "DIANA, MLMC, realised shift": f"diana({MLMC}, shift_rate=realised)",
        "ADIANA, Rand-k": f"adiana({RANDK}, mu=0.001)",
    },
    "error feedback": {
        "EF14, Top-k": f"ef14({TOPK})",
        "EF21, Top-k": f"ef21({TOPK})",
        "EF21 both ways, Top-k": f"ef21({TOPK}, down={TOPK})",
        "EF21-PAGE, Top-k": f"ef21_page({TOPK}, probability=0.1)",
        "EF21-SGDM, Top-k": f"ef21_sgdm({TOPK})",
        "EF21-SGD2M, Top-k": f"ef21_sgd2m({TOPK})",
        "EF-BV, Rand-k": f"ef_bv({RANDK})",
        "EF-BV, Top-k": f"ef_bv({TOPK})",
    },
    "variance reduction": {
        "MARINA, Rand-k": f"marina({RANDK}, probability=0.05)",
        "MARINA, MLMC": f"marina({MLMC}, probability=0.05)",
        "MARINA, PermK": "marina(permk(workers=WORKERS), probability=0.05)",
        "DASHA, Rand-k": f"dasha({RANDK})",
        "DASHA, MLMC": f"dasha({MLMC})",
        "DASHA-PAGE, Rand-k": f"dasha_page({RANDK}, probability=0.1)",
        "DASHA-MVR, Rand-k": f"dasha_mvr({RANDK}, momentum=0.1)",
    },
    "local steps": {
        "Scaffnew": "scaffnew(probability=0.1)",
        "CompressedScaffnew": "compressed_scaffnew(probability=0.2, owners=2)",
        "TAMUNA": "tamuna(probability=0.2, cohort=WORKERS, owners=2)",
        "Local SGD, MLMC": f"local_sgd({MLMC}, local_lr=LOCAL)",
        "DiLoCo": "diloco(every=5)",
        "SparseLoCo": "sparseloco(every=5)",
        "MuLoCo": "muloco(every=5)",
        "outer loop, MLMC": f"outer({MLMC}, every=5)",
    },
    "signs and asynchronous": {
        "signSGD, majority": "signsgd(vote=majority)",
        "1-bit Adam": "onebit_adam(warmup=20)",
        "DeMo": "demo(chunk=64, k=8)",
        "asynchronous SGD, Rand-k": f"async_sgd({RANDK})",
        "Rennala, Rand-k": f"rennala({RANDK}, batch=WORKERS)",
        "Shadowheart, Rand-k": f"shadowheart({RANDK})",
    },
}
"""What is compared. WORKERS: their number; LOCAL: the local step 1/(16 L H) of C20."""

COMPARED = {name: spec for family in FAMILIES.values() for name, spec in family.items()}


def compared(case: Case, name: str, steps: int) -> dict[str, Any]:
    """The best of theory's step times `FACTORS`: the one that ends at the smallest ‖∇f‖²."""
    torch.set_num_threads(1)
    p = case.problem
    spec = COMPARED[name].replace("WORKERS", str(case.workers)).replace("LOCAL", str(1 / (16 * p.L * 4)))
    arrivals = isinstance(tg.method(spec), AsynchronousMethod)
    if arrivals:
        steps *= case.workers  # a step is one arrival
    try:
        base, known = theory_rate(tg.method(spec), p, case.d), True
    except ConfigError:
        base, known = 0.01 / p.L, False
    tried, best = [], None
    for factor in FACTORS:
        run = case.train(spec, steps, base * factor, max(1, steps // 60), CLOCK)
        end = math.inf if run is None else run.records[-1]["validation"]
        tried.append([factor, end])
        if not end < (math.inf if best is None else best[0]):
            break
        assert run is not None
        best = end, factor, run
    assert best is not None, (name, tried)
    columns = ("step", "bits_up_per_worker", "bits_down_per_worker", "simulated_seconds", "validation")
    return {
        **case.head, "method": name, "spec": spec, "theory": base if known else None, "factor": best[1],
        "lr": base * best[1], "arrivals": arrivals, "tried": tried, "at_theory": tried[0][1],
        "curve": {name: [record[name] for record in best[2].records] for name in columns},
    }  # fmt: skip
