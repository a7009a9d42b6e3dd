"""The five vectors of B14: quantiles of laws, not draws from them."""

import torch


def quantile_vectors(d=100_000):
    """Name to vector: |v|_j = F⁻¹((j − ½)/d) with alternating signs; exponential decay is e^(−j/2000) itself."""
    from scipy import special

    u = (torch.arange(1, d + 1, dtype=torch.float64) - 0.5) / d
    magnitudes = {
        "gauss": torch.special.ndtri((1 + u) / 2),
        "laplace": -torch.log1p(-u),
        "t3": torch.from_numpy(special.stdtrit(3.0, ((1 + u) / 2).numpy())),
        "lognormal": torch.exp(2 * torch.special.ndtri(u)),
        "expdec": torch.exp(-torch.arange(d, dtype=torch.float64) / 2000),
    }
    signs = 1 - 2 * (torch.arange(d) % 2).double()
    return {name: (signs * magnitude).float() for name, magnitude in magnitudes.items()}
