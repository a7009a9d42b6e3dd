"""What ranks lose that share one rotation: the error of the mean of eight messages of `eden`, beside own rotations.

    python benchmarks/shared_rotation.py

Ranks' vectors are Gaussian with correlation rho between any two. With a common rotation a server could add before it
rotates back, once instead of eight times; but a quantiser that draws nothing then errs alike on what is alike.
"""

from __future__ import annotations

import math

import torch

import telegrad as tg

D, RANKS, REPEATS = 65536, 8, 3
SPECS = ("eden(bits=1)", "eden(bits=0.49, coder=trellis)", "eden(bits=2, coder=trellis)")
CORRELATIONS = (0.0, 0.1, 0.3, 0.5, 0.9, 1.0)


def error_of_mean(spec: str, vectors: list[torch.Tensor], keys: list[tg.Key]) -> float:
    """‖mean of the estimates − mean of the vectors‖² / d."""
    compressor = tg.compressor(spec)
    estimates = [compressor.encode(x, key).decode().double() for x, key in zip(vectors, keys, strict=True)]
    off = torch.stack(estimates).mean(0) - torch.stack(vectors).double().mean(0)
    return float(off.square().mean())


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    print("| spec | correlation | own rotations | one rotation | ratio |\n|---|---|---|---|---|")
    for spec in SPECS:
        for rho in CORRELATIONS:
            own, shared = 0.0, 0.0
            for repeat in range(REPEATS):
                common = torch.randn(D, generator=generator)
                parts = [math.sqrt(1 - rho) * torch.randn(D, generator=generator) for _ in range(RANKS)]
                vectors = [math.sqrt(rho) * common + part for part in parts]
                key = tg.Key(repeat)
                own += error_of_mean(spec, vectors, [key.fold(rank=rank) for rank in range(RANKS)]) / REPEATS
                shared += error_of_mean(spec, vectors, [key] * RANKS) / REPEATS
            print(f"| `{spec}` | {rho} | {own:.4f} | {shared:.4f} | {shared / own:.2f} |", flush=True)


if __name__ == "__main__":
    main()
