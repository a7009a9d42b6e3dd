"""Arrays of a stream of random numbers: uniform, normal, integers, permutations, subsets."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["Arrays", "check_subset", "normal_from"]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def normal_from(uniform: Tensor) -> Tensor:
    """Standard normal numbers from those of `Key.uniform`, which may be 0."""
    return torch.special.ndtri(uniform + 2.0**-54)


class Arrays:
    """What is drawn many at a time from the stream that a `Key` names: a function of the stream alone."""

    @property
    def words(self) -> tuple[int, int]:
        """The two words that make the stream."""
        raise NotImplementedError

    def number(self, i: int = 0) -> float:
        """One element of `uniform`."""
        raise NotImplementedError

    def _element(self, i: int) -> int:
        """One element of the stream: what defines `_raw`."""
        raise NotImplementedError

    def _raw(self, n: int, start: int) -> np.ndarray:
        if n == 1:
            return np.array([self._element(start)], dtype=np.uint64)
        offset, inner = (np.uint64(word) for word in self.words)
        with np.errstate(over="ignore"):
            z = np.arange(start + 1, start + n + 1, dtype=np.uint64)
            z *= _GOLDEN
            z += offset
            z ^= z >> np.uint64(30)
            z *= _MIX_1
            z ^= inner
            z ^= z >> np.uint64(27)
            z *= _MIX_2
            z ^= z >> np.uint64(31)
        return z

    def uniform(self, n: int, *, start: int = 0, device: torch.device | str | None = None) -> Tensor:
        """Uniform numbers: elements start … start+n−1 of the stream.

        Args:
            n: how many.
            start: the first one's place in the stream.
            device: where the tensor is to lie; None: on the CPU.

        Returns:
            float64 of shape (n,) in [0, 1), multiples of 2^−53.

        Example:
            >>> key = tg.Key(seed=1)
            >>> bool((key.uniform(5)[2:] == key.uniform(3, start=2)).all())
            True
        """
        if n == 1:
            return torch.tensor([self.number(start)], dtype=torch.float64, device=device or "cpu")
        drawn = torch.from_numpy((self._raw(n, start) >> np.uint64(11)) * 2.0**-53)
        return drawn if device is None else drawn.to(device)

    def normal(self, n: int, *, device: torch.device | str | None = None) -> Tensor:
        """Standard normal numbers, the inverse distribution function of `uniform`.

        Args:
            n: how many.
            device: where the tensor is to lie; None: on the CPU.

        Returns:
            float64 of shape (n,).

        Example:
            >>> tg.Key(seed=1).normal(3).shape
            torch.Size([3])
        """
        return normal_from(self.uniform(n)).to(device or "cpu")

    def integers(self, n: int, high: int, *, start: int = 0) -> Tensor:
        """Uniform integers from 0 to high − 1; each has probability 1/high up to 2^−33.

        Args:
            n: how many.
            high: from 1 to 2^31 − 1.
            start: the first one's place in the stream.

        Returns:
            int64 of shape (n,).

        Raises:
            ValueError: `high` is out of its range.

        Example:
            >>> bool((tg.Key(seed=1).integers(100, high=6) < 6).all())
            True
        """
        if not 0 < high < 2**31:
            raise ValueError(f"Key.integers(high={high}): 0 < high < 2^31 is allowed")
        raw, wide = self._raw(n, start), np.uint64(high)
        low = (raw & np.uint64(0xFFFFFFFF)) * wide >> np.uint64(32)
        return torch.from_numpy((((raw >> np.uint64(32)) * wide + low) >> np.uint64(32)).astype(np.int64))

    def permutation(self, n: int) -> Tensor:
        """A uniformly random permutation.

        Args:
            n: its length.

        Returns:
            The numbers 0 … n−1 in some order, int64.

        Example:
            >>> sorted(tg.Key(seed=1).permutation(4).tolist())
            [0, 1, 2, 3]
        """
        return torch.from_numpy(np.argsort(self._raw(n, 0), kind="stable"))

    def subset(self, n: int, k: int) -> Tensor:
        """A uniformly random k-subset of 0 … n−1.

        The first k distinct elements of an i.i.d. stream form a uniform k-subset; past n/2 the complement is drawn.

        Args:
            n: how many numbers there are, below 2^31.
            k: how many are drawn, 0 to n.

        Returns:
            int64 of shape (k,), increasing.

        Raises:
            ValueError: n or k is out of its range.

        Example:
            >>> len(set(tg.Key(seed=1).subset(10, 3).tolist()))
            3
        """
        check_subset(n, k)
        if 2 * k > n:
            kept = np.ones(n, dtype=bool)
            kept[self.subset(n, n - k).numpy()] = False
            return torch.from_numpy(np.flatnonzero(kept))
        if k == 0:
            return torch.zeros(0, dtype=torch.int64, device="cpu")
        drawn, want = np.zeros(0, dtype=np.int64), k + k // 2 + 16
        while True:
            drawn = np.concatenate([drawn, self.integers(want, n, start=len(drawn)).numpy()])
            distinct, first_seen = np.unique(drawn, return_index=True)
            if len(distinct) >= k:
                return torch.from_numpy(np.sort(drawn[np.sort(first_seen)[:k]]))

    def generator(self) -> np.random.Generator:
        """A numpy generator seeded by this key, for laws that have no counter-based form (Dirichlet, gamma).

        Returns:
            A new `numpy.random.Generator` (Philox); it has a state that moves on.

        Example:
            >>> tg.Key(seed=1).generator().dirichlet([0.1, 0.1]).shape
            (2,)
        """
        return np.random.Generator(np.random.Philox(key=self.words[0] | self.words[1] << 64))


def check_subset(n: int, k: int) -> None:
    """Refuse a number of places that n do not have, and more places than the stream of integers reaches."""
    if not 0 <= k <= n:
        raise ValueError(f"Key.subset(n={n}, k={k}): 0 <= k <= n is allowed")
    if n >= 2**31:
        raise ValueError(f"Key.subset(n={n}, k={k}): n < 2^31 is allowed")
