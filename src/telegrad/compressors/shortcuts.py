"""What makes a compressor or a ladder faster, and changes no byte that it sends."""

from __future__ import annotations

from torch import Tensor

__all__ = ["Shortcuts"]


class Shortcuts:
    """Work that can be saved for a vector; none unless a subclass says so. Results are the same with and without."""

    def checks(self, v: Tensor) -> bool:
        """Whether it takes this v unchecked, because its own first pass finds out what is not finite. It depends on v's
        length and dtype alone.
        """
        return False

    def on_gpu(self, v: Tensor) -> bool:
        """Whether it takes this v where it lies on a GPU, because every pass over it has a form there; else v comes to
        the CPU first.
        """
        return False
