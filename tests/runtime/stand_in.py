"""A stand-in for a GPU: tensors that say that they lie on one, and behave so.

They lie in the CPU's memory. As with a real GPU's, numpy does not take them, they do not mix with tensors on the CPU,
and what crosses over is asked for: `crossed` notes how many entries. Triton's kernels run in its interpreter.
"""

import contextlib

import pytest
import torch
from torch.overrides import TorchFunctionMode

CUDA = torch.device("cuda", 0)
PLACES = ("to", "cpu", "copy_", "__get__", "__set__")


class Device(torch.Tensor):
    """A tensor on the stand-in."""

    is_cuda, is_cpu, device = True, False, CUDA


def plain(value):
    if isinstance(value, Device):
        with torch._C.DisableTorchFunctionSubclass():
            return value.as_subclass(torch.Tensor)
    if isinstance(value, tuple | list):
        return type(value)(map(plain, value)) if type(value) in (tuple, list) else value
    return value


def there(value):
    if isinstance(value, torch.Tensor):
        return value if isinstance(value, Device) else value.as_subclass(Device)
    return type(value)(map(there, value)) if type(value) in (tuple, list) else value


def tensors(value):
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from tensors(one)


def is_cuda(value):
    return isinstance(value, torch.device) and value.type == "cuda"


class StandIn(TorchFunctionMode):
    """Within, torch's functions know the stand-in. `up`, `down`: entries of tensors that went to it and came back."""

    def __init__(self):
        super().__init__()
        self.up, self.down = [], []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name, seen = getattr(function, "__name__", ""), list(tensors([*args, *kwargs.values()]))
        on_it = [one for one in seen if isinstance(one, Device)]
        wanted = [kwargs.get("device"), *(a for a in args if isinstance(a, torch.device))]
        if name == "numpy" and on_it:
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        if name == "cpu" or (name == "to" and any(isinstance(w, torch.device) and not is_cuda(w) for w in wanted)):
            if on_it:
                self.down.append(on_it[0].numel())
                rest = tuple(a for a in args[1:] if not isinstance(a, torch.device))
                return plain(args[0]).to(*rest) if rest else plain(args[0]).clone()
            return function(*args, **kwargs)
        if any(map(is_cuda, wanted)):
            if name == "to" and not on_it:
                self.up.append(args[0].numel())
            kwargs.pop("device", None)
            rest = [plain(a) for a in args if not is_cuda(a)]
            made = rest[0] if name == "to" and len(rest) == 1 and not kwargs else function(*rest, **kwargs)
            return there(made)
        if not on_it:
            return function(*args, **kwargs)
        strangers = [one for one in seen if not isinstance(one, Device) and one.dim()]
        if strangers and name not in PLACES:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, cuda:0 and cpu")
        made = function(*plain(list(args)), **{key: plain(value) for key, value in kwargs.items()})
        own = isinstance(args[0], Device) if args else False
        if own and isinstance(made, torch.Tensor) and made is plain(args[0]):
            return args[0]
        return there(made)


@pytest.fixture
def gpu(monkeypatch):
    """A call whose `with` block has the stand-in."""
    pytest.importorskip("triton", reason="Triton is not installed: the forms for GPUs cannot run")
    from telegrad.kernels.gpu import bit_planes, hadamard, keys, launching, magnitudes, rounding, scatter, uniforms

    def launch(kernel, programs, *arguments, **constants):
        with torch._C.DisableTorchFunction():
            launching_launch(kernel, programs, *map(plain, arguments), **constants)

    launching_launch = launching.launch
    for module in (bit_planes, hadamard, keys, magnitudes, rounding, scatter, uniforms):
        if hasattr(module, "launch"):
            monkeypatch.setattr(module, "launch", launch)

    @contextlib.contextmanager
    def within():
        with StandIn() as stand_in:
            yield stand_in

    return within
