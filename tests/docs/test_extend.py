"""What docs/extend spells out works as it stands there: in the simulator, on every ledger, for bad arguments."""

import re
from pathlib import Path

import pytest
import torch

import telegrad as tg

PAGES = Path(__file__).parents[2] / "docs" / "extend"


@pytest.fixture(scope="module", autouse=True)
def defined():
    """Runs the pages' programs, and takes what they register out of the registry again."""
    from telegrad.spec import registry

    known = {kind: dict(registry.registered(kind)) for kind in ("compressor", "topology")}
    for kind in known:
        for program in re.findall(
            r"```python\n(.*?)```", (PAGES / f"{kind}.md").read_text(encoding="utf-8"), re.DOTALL
        ):
            exec(compile(program, f"{kind}.md", "exec", dont_inherit=True), {"__name__": f"{kind}_page"})
    yield
    for kind, own in known.items():
        registry.known_by_kind[kind] = own


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_compressor_packs_what_it_decodes(dtype):
    x = torch.linspace(-2, 3, 999).to(dtype).reshape(27, 37)
    code = tg.compressor("coin(p=0.2)").encode(x, tg.Key(seed=4))
    assert tg.unpack(tg.pack(code)).decode().equal(code.decode())
    assert code.decode().shape == x.shape


def test_the_compressors_variance_is_what_happens():
    """2,000 messages of 64 entries: the mean squared error against the closed form, |z| < 4.5 (level 7e-6)."""
    x = torch.linspace(-1, 2, 64, dtype=torch.float64) ** 3
    compressor, key = tg.compressor("coin(p=0.25)"), tg.Key(seed=8)
    errors = torch.stack([(compressor.encode(x, key.fold(step=i)).decode() - x).square().sum() for i in range(2000)])
    assert abs(errors.mean() - compressor.variance(x)) < 4.5 * errors.std() / 2000**0.5


def test_the_compressor_combines_with_others():
    x = torch.linspace(-1, 2, 640) ** 3
    combined = tg.compressor("induced(topk(k=0.1), coin(p=0.5))")
    assert combined.unbiased
    assert combined.variance(x) < tg.compressor("coin(p=0.5)").variance(x)


@pytest.mark.parametrize("method", ["sgd(qsgd(levels=4))", "ef21(topk(k=0.25))"])
def test_the_topology_gives_the_numbers_of_all_gather(method):
    setting = {"workers": 3, "steps": 15, "lr": 0.05, "seed": 2}
    ring, gathered = (tg.simulate("quadratic", method, topology=t, **setting) for t in ("ring", "allgather"))
    assert ring.parameters["x"].equal(gathered.parameters["x"])
    assert ring.ledger.bits_up_per_worker == gathered.ledger.bits_up_per_worker


def test_the_topology_refuses_one_worker():
    with pytest.raises(tg.SpecError, match="needs two workers"):
        tg.simulate("quadratic", "sgd(identity)", topology="ring", workers=1, steps=1)
