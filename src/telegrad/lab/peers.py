"""What our encoders and decoders are timed beside: plain torch operations, and the encoders of PyTorch's DDP hooks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

__all__ = ["decoding_peers", "encoding_peers"]

_SHARE = 0.01
_RANK = 4

Peer = tuple[str, Callable[[], Any], int | None]
"""(name, one call, bits of its message)."""


def encoding_peers(x: Tensor) -> Iterator[Peer]:
    """Each does with the flat float32 x what it would do before sending."""
    d, k = len(x), max(1, round(_SHARE * len(x)))
    # Index and value in full, as implementations without an index code send them.
    yield f"torch.topk(|x|, {_SHARE:.0%})", lambda: torch.topk(x.abs(), k, sorted=False), 64 * k
    yield "torch.sort(|x|)", lambda: torch.sort(x.abs()), None
    yield "fp16_compress_hook", lambda: x.to(torch.float16), 16 * d
    yield "quantization_pertensor_hook", lambda: _quantised(x), 8 * d
    yield f"powerSGD_hook, rank {_RANK}", _power_iteration(x), 32 * _RANK * 2 * max(1, round(d**0.5))


def decoding_peers(x: Tensor, out: Tensor) -> Iterator[Peer]:
    """Each adds what it received to the dense `out`."""
    d, k = len(x), max(1, round(_SHARE * len(x)))
    index = torch.topk(x.abs(), k).indices.sort().values
    values, half, quantised = x[index], x.to(torch.float16), _quantised(x)
    yield "dense add", lambda: out.add_(x), 32 * d
    yield f"index_add of {_SHARE:.0%}", lambda: out.index_add_(0, index, values), 64 * k
    yield "fp16_compress_hook", lambda: out.add_(half.to(torch.float32)), 16 * d
    yield "quantization_pertensor_hook", lambda: out.add_(quantised.dequantize()), 8 * d


def _quantised(x: Tensor) -> Tensor:
    """What the hook does on a GPU: scale and zero point of the range, then 8 bits an entry, rounded to nearest."""
    lowest, highest = (float(end) for end in x.aminmax())
    scale = max((max(highest, 0.0) - min(lowest, 0.0)) / 255, torch.finfo(torch.float32).eps)
    zero = min(255, max(0, round(-min(lowest, 0.0) / scale)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torch means to move this function; the hook still calls it
        return torch.quantize_per_tensor(x, scale, zero, torch.quint8)


def _power_iteration(x: Tensor) -> Callable[[], Tensor]:
    """The hook's step on the most square matrix: P = M Q, orthogonalised, then Q = Mᵀ P; Q is kept for the next."""
    rows = max(1, int(len(x) ** 0.5))
    matrix = x[: rows * (len(x) // rows)].view(rows, -1)
    q = torch.randn(matrix.shape[1], min(_RANK, rows), generator=torch.Generator().manual_seed(0)).to(x.device)

    def call() -> Tensor:
        p = torch.linalg.qr(matrix @ q).Q
        return torch.matmul(matrix.t(), p, out=q)

    return call
