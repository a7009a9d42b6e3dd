"""What is no dense tensor of floats is refused with advice that works; torch's global settings change nothing."""

import array
import enum
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._functional_collectives import AsyncCollectiveTensor
from torch.testing._internal.two_tensor import TwoTensor

import telegrad as tg
from cases import COMPRESSORS, by_spec

X = torch.linspace(-1, 1, 100, dtype=torch.float32, device="cpu") ** 3
KEY = tg.Key(seed=5).fold(step=2, rank=1)


class Own(torch.Tensor):
    """A subclass whose numbers are its own, as a user may write it."""


class Spread(torch.Tensor):
    """Stands in for a tensor spread over ranks, which has this method."""

    def to_local(self):
        return self


def _unfit():
    """Inputs that cannot be compressed by name, each with what the error tells to write."""
    return {
        "complex": (torch.complex(X, X), "view_as_real"),
        "integers": (torch.arange(9), "x.float()"),
        "bool": (torch.ones(9, dtype=torch.bool), "x.float()"),
        "float8": (X.to(torch.float8_e4m3fn), "x.float()"),
        "quantised": (torch.quantize_per_tensor(X, 0.1, 0, torch.qint8), "x.dequantize()"),
        "sparse": (X.to_sparse(), "x.to_dense()"),
        "sparse rows": (X.view(10, 10).to_sparse_csr(), "x.to_dense()"),
        "mkldnn": (X.to_mkldnn() if torch.backends.mkldnn.is_available() else X.to_sparse(), "x.to_dense()"),
        "nested": (torch.nested.nested_tensor([X, X[:3]]), "x.unbind()"),
        "jagged": (torch.nested.nested_tensor([X, X[:3]], layout=torch.jagged), "x.unbind()"),
        "meta": (X.to("meta"), "meta"),
        "fake": (FakeTensorMode().from_tensor(X), "the plain tensor of its numbers"),
        "wraps two": (TwoTensor(X, X), "the plain tensor of its numbers"),
        "masked": (torch.masked.masked_tensor(X, X > 0), "the plain tensor of its numbers"),
        "on its way": (AsyncCollectiveTensor(X), "x.wait()"),
        "without a shape yet": (nn.UninitializedParameter(), "run the model once"),
        "spread over ranks": (X.as_subclass(Spread), "x.to_local()"),
        "numpy": (X.numpy(), "torch.from_numpy(x)"),
        "numpy, integers": (np.arange(9), 'torch.from_numpy(x.astype("float32"))'),
        "numpy, big endian": (X.numpy().astype(">f4"), 'torch.from_numpy(x.astype("float32"))'),
        "numpy, complex": (np.ones(4, dtype=complex), "torch.view_as_real(torch.from_numpy(x))"),
        "numpy, one number": (np.float32(3), "torch.tensor(x, dtype=torch.float32)"),
        "list": ([1.0, 2.0], "torch.tensor(x, dtype=torch.float32)"),
        "list of tensors": ([X, X], "encode_each(x, keys)"),
        "number": (3.5, "torch.tensor(x, dtype=torch.float32)"),
        "array": (array.array("f", [1.0]), "torch.tensor("),
        "nothing": (None, "torch.tensor("),
        "text": ("gradient", "torch.tensor("),
    }


with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch warns of sparse rows, nested and quantised tensors
    UNFIT = _unfit()


@pytest.mark.parametrize(("x", "remedy"), UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize("spec", ["topk(k=0.1)", "mlmc(stopk(s=0.1))"])
def test_what_cannot_be_compressed_is_refused_with_a_remedy(spec, x, remedy):
    compressor = tg.compressor(spec)
    asked = (
        lambda: compressor.encode(x, KEY),
        lambda: compressor.encode_each([X, x], [KEY, KEY]),
        lambda: compressor.variance(x),
    )
    for ask in asked:
        with pytest.raises(tg.InputError) as refused:
            ask()
        assert remedy in str(refused.value)
        assert "allowed are dense tensors of float32" in str(refused.value)


@pytest.mark.parametrize("name", [name for name, (x, _) in UNFIT.items() if x is not None and "write" not in name])
def test_the_remedy_can_be_followed(name):
    x = UNFIT[name][0]
    with pytest.raises(tg.InputError) as refused:
        tg.compressor("identity").encode(x)
    _, _, advice = str(refused.value).partition(": write ")
    if not advice or any(words in advice for words in ("for this rank", "for example", "the plain tensor")):
        pytest.skip("the advice is no single expression")
    y = eval(advice, {"x": x, "torch": torch})
    assert tg.compressor("identity").encode(y).numel == y.numel()


def test_views_that_are_negated_or_conjugated_on_reading_are_read():
    z = torch.complex(X, X * 2).conj()
    for x in (z.imag, z.imag.unsqueeze(0), torch._neg_view(X)):
        assert torch.equal(tg.compressor("identity").encode(x).decode(), x.resolve_neg())


def test_parameters_and_subclasses_with_numbers_of_their_own_are_read():
    grown = X.clone().requires_grad_() * 2  # part of a graph
    with torch.inference_mode():
        inferred = X.clone()
    for x in (nn.Parameter(X.clone()), nn.Buffer(X.clone()), X.as_subclass(Own), grown, inferred):
        for spec in ("topk(k=0.1)", "mlmc(stopk(s=0.1))"):
            compressor, plain = tg.compressor(spec), torch.tensor(x.tolist())
            estimate = compressor.encode(x, KEY).decode()
            assert type(estimate) is torch.Tensor
            assert torch.equal(estimate, compressor.encode(plain, KEY).decode())
            assert compressor.variance(x) == compressor.variance(plain)


@pytest.mark.parametrize("transform", [torch.func.vmap, torch.func.grad])
def test_inside_a_transform_of_functions_there_are_no_numbers(transform):
    with pytest.raises(tg.InputError, match="call it on what the transformed function returns"):
        transform(lambda v: tg.compressor("topk(k=0.1)").encode(v).decode().sum())(X[:20].view(2, 10))


@pytest.mark.parametrize(
    ("ask", "advice"),
    [
        (lambda c: c.encode(X), r"pass a key, for example encode\(x, tg.Key\(seed=0\)\)"),
        (lambda c: c.encode(X, 3), r"tg.Key\(seed=0\)"),
        (lambda c: c.encode_each([X, X], [KEY]), "2 tensors and 1 keys"),
        (lambda c: c.decode(tg.pack(c.encode(X, KEY))), r"tg.unpack\(data\)"),
        (lambda c: tg.pack(X), r"pack\(compressor.encode\(x, key\)\)"),
        (lambda c: tg.unpack("text"), r"open\(file, \"rb\"\)"),
        (lambda c: tg.unpack(c.encode(X, KEY)), r"code.decode\(\)"),
        (lambda c: tg.unpack([1, 2]), r"unpack\(bytes\(data\)\)"),
        (lambda c: c.encode(X.to("meta"), KEY), "which holds no numbers, cannot be"),
        (lambda c: c.encode(X, KEY).add_to(torch.zeros(100, dtype=torch.int64)), "floating point"),
        (lambda c: c.encode(X, KEY).add_to(torch.zeros(10, 20).t()[::2].t()), "contiguous"),
        (lambda c: c.encode(X, KEY).add_to(np.zeros(100, dtype=np.float32)), "from_numpy"),
        (lambda c: c.encode(X, KEY).add_to(torch.zeros(100, device="meta")), r"write torch.zeros\(\(100,\)"),
        (lambda c: c.encode(X, KEY).add_to(X.to(torch.float8_e5m2)), r"write torch.zeros\(\(100,\)"),
        (lambda c: tg.save("x", [c.encode(X, KEY)]), "by name"),
        (lambda c: tg.save("x", {"w": X}), "'w'"),
    ],
)
def test_what_one_hands_to_the_wrong_function_is_explained(ask, advice, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(tg.InputError, match=advice):
        ask(tg.compressor("randk(k=0.1)"))
    assert list(tmp_path.iterdir()) == []


class Rank(enum.IntEnum):
    FIRST = 1


class Name(str, enum.Enum):
    WEIGHT = "w"


def test_equal_seeds_and_names_are_equal_streams_whatever_their_type():
    wanted = tg.Key(3).fold(rank=1, name="w").uniform(4)
    for seed in (np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)):
        for rank in (np.int32(1), torch.tensor(1), Rank.FIRST):
            for name in (np.str_("w"), Name.WEIGHT):
                assert torch.equal(tg.Key(seed).fold(rank=rank, name=name).uniform(4), wanted)
                assert torch.equal(tg.Key(seed, (("name", name), ("rank", rank))).uniform(4), wanted)
    for bad in (True, np.float64(3), np.bool_(True), "3", torch.tensor(3.0)):
        with pytest.raises(tg.InputError, match="a seed is an integer"):
            tg.Key(bad)


@pytest.fixture
def settings():
    """Sets torch's default device and dtype, undone after the test."""

    def change(device, dtype):
        torch.set_default_device(device)
        torch.set_default_dtype(dtype)

    yield change
    change(None, torch.float32)


def outcome(compressor, x):
    """All that a user gets from a compressor."""
    data = tg.pack(compressor.encode(x, KEY))
    out = torch.zeros(x.shape, dtype=x.dtype, device="cpu")
    tg.unpack(data).add_to(out, 0.5)
    return data, compressor.decode(tg.unpack(data)), out, compressor.variance(x)


@pytest.mark.parametrize("compressor", **by_spec(COMPRESSORS))
def test_torchs_default_device_and_dtype_change_nothing(compressor, settings):
    for x in (X, X[:6].view(2, 3).bfloat16(), torch.zeros(4, dtype=torch.float64), X.double()[::2] * 1e200):
        settings(None, torch.float32)
        try:
            data, decoded, out, variance = outcome(compressor, x)
        except (tg.SpecError, tg.NonFiniteError):
            continue
        # "meta" stands in for "cuda", which not every machine has.
        settings("meta", torch.float64)
        other = outcome(compressor, x)
        assert other[0] == data
        assert other[3] == variance
        for got, want in zip(other[1:3], (decoded, out), strict=True):
            assert (got.device.type, got.dtype) == ("cpu", want.dtype)
            assert torch.equal(got, want)


def test_draws_do_not_follow_torchs_default_device(settings):
    def draws():
        key = tg.Key(3)
        return [
            *(key.uniform(n) for n in (0, 1, 5)),
            *(key.normal(n) for n in (1, 5)),
            key.integers(5, 9),
            key.permutation(4),
            *(key.subset(9, k) for k in (0, 2, 8)),
        ]

    wanted = draws()
    settings("meta", torch.float64)
    for got, want in zip(draws(), wanted, strict=True):
        assert got.dtype == want.dtype
        assert torch.equal(got, want)


def test_a_simulation_does_not_follow_torchs_default_device(settings):
    def run():
        specs = {"topology": "two_phase", "downlink": "qsgd", "steps": 3, "lr": 0.1, "workers": 2}
        result = tg.simulate("quadratic(d=16)", "ef21(topk(k=0.5))", seed=1, **specs)
        return result.parameters["x"], [record["bits_up_per_worker"] for record in result.records]

    wanted = run()
    settings("meta", torch.float32)
    parameters, bits = run()
    assert torch.equal(parameters, wanted[0])
    assert bits == wanted[1]
