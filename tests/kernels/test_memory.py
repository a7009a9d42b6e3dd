"""Numbers that are added a piece at a time are those that are decoded first and added then, to the bit."""

import pytest
import torch

import telegrad as tg
from telegrad.kernels.memory import room, zeros
from telegrad.wire.values.base import Values

DENSE = (
    "eden(bits=1)",
    "eden(bits=2.5)",
    "eden(bits=1, coder=entropy)",
    "eden(bits=0.05, coder=entropy)",
    "eden(bits=1, coder=trellis)",
    "ecdq(bits=2)",
    "ecdq(bits=8)",
    "ecdq(bits=2, coder=trellis)",
    "qsgd(levels=20, bucket=512)",
    "qsgd(levels=20, bucket=100000)",
    "qsgd(levels=30000)",
)


def bits_of(x):
    return x.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.itemsize])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("spec", DENSE)
def test_adding_in_pieces_is_adding_what_was_decoded(spec, dtype, threads):
    """Long blocks of a rotation leave out the places of short ones, where zeros keep their signs."""
    for n in (1, 700, 65_536, 131_072 + 66_000):
        x = torch.randn(n, generator=torch.Generator().manual_seed(n)).to(dtype)
        code = tg.unpack(tg.pack(tg.compressor(spec).encode(x, tg.Key(3))))
        for weight in (0.125, -1 / 3):
            expected = torch.randn(n, generator=torch.Generator().manual_seed(7)).to(dtype)
            expected[::3], expected[1::5] = -0.0, 0.0
            found = {count: expected.clone() for count in (1, 2)}
            for term in code.terms:
                Values.add_to(term.values, expected, weight)
            for count, out in found.items():
                threads(count)
                code.add_to(out, weight)
                assert torch.equal(bits_of(out), bits_of(expected)), (n, weight, count)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.uint8], ids=str)
@pytest.mark.parametrize("n", [0, 3, (1 << 22) + 5])
def test_room_is_writable_whatever_its_length(n, dtype):
    made = room(n, dtype).fill_(1)
    assert made.shape == (n,)
    assert made.dtype == dtype
    assert bool((made == 1).all())
    assert not zeros((n,), dtype).any()
