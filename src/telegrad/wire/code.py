"""Code: what one compressor call sends, as typed fields, with its exact price in bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from telegrad.context import Context
from telegrad.errors import InputError, WireError
from telegrad.kernels.coding.scatter import add_at
from telegrad.kernels.device import away_from_default_device
from telegrad.kernels.memory import zeros
from telegrad.kernels.threads import each, kept
from telegrad.wire.bits import FIELDS, varint_nbytes
from telegrad.wire.positions import All, Positions
from telegrad.wire.values import DTYPES, Floats, Values

__all__ = ["CHECKSUM_NBYTES", "FIELDS", "Code", "Term", "add_codes", "decoded_on"]

CHECKSUM_NBYTES = 4


@dataclass(frozen=True)
class Term:
    """Values at positions of a flat vector; entries elsewhere are zero."""

    positions: Positions
    values: Values

    def scaled(self, factor: float) -> Term:
        """The same places, the values times `factor`."""
        return Term(self.positions, self.values.scaled(factor))

    def paper_bits(self, dtype: torch.dtype) -> int:
        """Bits in the MLMC paper's accounting, see `Code.paper_bits`."""
        if isinstance(self.values, Floats):
            return 64 * self.values.n
        return 8 * (self.positions.nbytes + sum(self.values.sizes(dtype).values()))

    def add_to(self, out: Tensor, weight: float) -> None:
        """out += weight · this term, in place; costs the number of entries, not d. `out` is flat."""
        _add_terms((self,), out, weight)


def _add_terms(terms: Iterable[Term], out: Tensor, weight: float) -> None:
    """out += weight · every term, in their order."""
    listed: list[Term] = []
    for term in terms:
        if not isinstance(term.positions, All):
            listed.append(term)
            continue
        if listed:
            _add_listed(listed, out, weight)
            listed = []
        term.values.add_to(out, weight)
    if listed:
        _add_listed(listed, out, weight)


def _add_listed(terms: Sequence[Term], out: Tensor, weight: float) -> None:
    """`_add_terms` of terms at listed places: decoded side by side, and added in one pass."""

    def decoded(term: Term) -> tuple[Tensor, Tensor]:
        index = term.positions.narrow_indices()
        assert index is not None  # only `All` has none
        return index, term.values.numbers_as(out.dtype)

    one = len(terms) == 1
    parts = [decoded(terms[0])] if one else each(decoded, terms, sum([term.positions.n for term in terms]))
    add_at(out, parts, weight)


@dataclass(frozen=True)
class Code:
    """What one compressor call sends: a sum of terms that stands for a tensor, and its exact price in bits.

    Attributes:
        shape: of the tensor.
        dtype: of the tensor: float32, float64, bfloat16 or float16.
        terms: values at positions, which add up; none stand for zero.
        level: what an MLMC compressor drew, 0 where there is none: for the account, the decoder does not need it.
        received: bits by field of the message that the code was read from; None for one that was encoded here.
        received_paper_bits: the same in the MLMC paper's accounting, see `paper_bits`.

    Example:
        >>> code = tg.compressor("topk(k=2)").encode(torch.tensor([3.0, 0.0, -4.0, 1.0]))
        >>> code.decode(), code.nbits
        (tensor([ 3.,  0., -4.,  0.]), 176)
    """

    shape: tuple[int, ...]
    dtype: torch.dtype
    terms: tuple[Term, ...] = ()
    level: int = 0
    received: Mapping[str, int] | None = field(default=None, compare=False, repr=False)
    received_paper_bits: int = field(default=0, compare=False, repr=False)

    @property
    def numel(self) -> int:
        """The number d of entries of the tensor."""
        return math.prod(self.shape)

    @property
    def fields(self) -> Mapping[str, int]:
        """Bits by field; they add up to `nbits`."""
        return self._counted if self.received is None else self.received

    @kept
    @away_from_default_device
    def _counted(self) -> dict[str, int]:
        account = dict.fromkeys(FIELDS, 0)
        account["header"], account["level"] = _frame_nbytes(self.shape, len(self.terms)), varint_nbytes(self.level)
        for term in self.terms:
            account["index"] += term.positions.nbytes
            for name, nbytes in term.values.sizes(self.dtype).items():
                account[name] += nbytes
        return {name: 8 * nbytes for name, nbytes in account.items()}

    @property
    def nbits(self) -> int:
        """The exact length of the packed message in bits: 8 · len(pack(code)), or of the one that it was read from."""
        return sum(self.fields.values())

    @property
    def paper_bits(self) -> int:
        """Bits in the MLMC paper's accounting (64 a float and its index free; symbols as sent): to compare with its
        plots only.
        """
        if self.received is not None:
            return self.received_paper_bits
        return sum([term.paper_bits(self.dtype) for term in self.terms])

    def within(self, context: Context) -> Code:
        """This code with the last estimate of the context, where its decoding counts on one.

        Args:
            context: what its receiver knows; its `last` is the estimate of the step before, alike on all ranks.

        Returns:
            The code that can be decoded; the same one where nothing is missing.

        Raises:
            WireError: the estimate has another length.

        Example:
            >>> code = tg.compressor("topk(k=1)").encode(torch.ones(3))
            >>> code.within(tg.Context()) == code  # top-k does not count on it
            True
        """
        return replace(self, terms=tuple(replace(t, positions=t.positions.within(context)) for t in self.terms))

    @away_from_default_device
    def add_to(self, out: Tensor, weight: float = 1.0) -> None:
        """Accumulate weight · estimate into a tensor, in place; costs the number of entries sent, not d.

        Args:
            out: of the tensor's number of entries, of float32, float64, bfloat16 or float16, contiguous.
            weight: a factor of every entry.

        Raises:
            InputError: `out` is no such tensor.
            ValueError: `out` has another number of entries.

        Example:
            >>> out = torch.zeros(4)
            >>> tg.compressor("topk(k=1)").encode(torch.tensor([3.0, 0.0, -4.0, 1.0])).add_to(out, weight=0.5)
            >>> out
            tensor([ 0.,  0., -2.,  0.])
        """
        if not isinstance(out, Tensor):
            raise InputError(
                f"add_to takes a tensor, not a {type(out).__name__}: write torch.from_numpy(out) for numpy's"
            )
        if out.dtype not in DTYPES or out.is_meta or not out.is_contiguous():
            raise InputError(
                f"add_to was given a tensor of {out.dtype} on {out.device} with strides {out.stride()}; one of "
                f"floating point that holds numbers and is contiguous is wanted: write torch.zeros({self.shape}, "
                f"dtype={self.dtype})"
            )
        add_codes((self,), out, weight)

    @away_from_default_device
    def decode(self) -> Tensor:
        """The estimate as a dense tensor.

        Returns:
            A tensor of `shape` and `dtype` on the CPU. A sum of several terms is formed in float64 and rounded once.

        Raises:
            WireError: a message announced more entries than the memory holds.

        Example:
            >>> tg.compressor("identity").encode(torch.tensor([1.0, 2.0])).decode()
            tensor([1., 2.])
        """
        return decoded_on(torch.device("cpu"), self)


def decoded_on(device: torch.device, code: Code) -> Tensor:
    """`code.decode()` on a device."""
    terms = code.terms
    try:
        if len(terms) == 1 and isinstance(terms[0].positions, All) and device.type == "cpu":
            return terms[0].values.numbers_as(code.dtype).to(device).view(code.shape)
        out = zeros(code.shape, code.dtype if len(terms) <= 1 else torch.float64, device)
        add_codes((code,), out)
        return out.to(code.dtype)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "memory" not in str(error):  # torch's own for want of it
            raise
        raise WireError(f"a tensor of shape {code.shape} does not fit into memory") from None


def _frame_nbytes(shape: tuple[int, ...], terms: int) -> int:
    """What a message has besides its level and its terms' places and values: version, shape, kinds, checksum."""
    sizes = (len(shape), *shape, terms)
    return 1 + sum(map(varint_nbytes, sizes)) + terms + CHECKSUM_NBYTES


def add_codes(codes: Sequence[Code], out: Tensor, weight: float = 1.0) -> None:
    """Accumulate weight · every estimate into `out`, as one `add_to` after the other would to the bit, but in one pass
    over what the codes touch.
    """
    for code in codes:
        if out.numel() != code.numel:
            raise ValueError(f"a code of shape {code.shape} cannot be added to a tensor of shape {tuple(out.shape)}")
    _add_terms([term for code in codes for term in code.terms], out.view(-1), weight)
