"""The key by which benchmarks/b14.py chooses levels, instead of drawing them."""

import sys
from pathlib import Path

import pytest
import torch

import telegrad as tg

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def b14(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    yield pytest.importorskip("b14")
    for name in ("b14", "equal_bits"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("ladder", ["stopk(s=0.1)", "rtn", "fixed_point"])
def test_every_level_is_drawn_by_a_number_from_its_share(b14, ladder):
    x, compressor = torch.randn(300, generator=torch.Generator().manual_seed(0)), tg.compressor(f"mlmc({ladder})")
    below, bits, sent = 0.0, 0.0, set()
    for p, _ in compressor.enumerate_levels(x):
        if p > 1e-9:
            code = compressor.encode(x, b14.AtLevel(tg.Key(0), below + p / 2))
            assert code.level == compressor.encode(x, b14.AtLevel(tg.Key(0), below + p / 3)).level
            bits += p * 8 * len(tg.pack(code))
            assert code.level not in sent
            sent.add(code.level)
        below += p
    assert b14.bits_over_levels(f"mlmc({ladder})", x) == pytest.approx(bits)


def test_several_draws_stand_at_even_steps(b14):
    x, compressor = (
        torch.randn(300, generator=torch.Generator().manual_seed(0)),
        tg.compressor("mlmc(stopk(s=0.1), draws=3)"),
    )
    lists = [tuple(compressor.encode(x, b14.AtLevel(tg.Key(0), u)).terms) for u in (0.1, 0.1 + 1 / 3)]
    assert len(lists[0]) == len(lists[1]) >= 1
    assert torch.equal(lists[0][0].positions.indices(), lists[1][0].positions.indices())
