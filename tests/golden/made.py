"""What must not change: messages byte for byte and trajectories bit for bit, as short hashes in files beside this.

`python tests/golden/made.py` writes all anew; `python tests/golden/made.py QSGD auto` only the entries whose spec
contains one of these words (in any case). Do so only for a fault mended on purpose, and name it in the commit.
New entries are added either way.

All inputs come from `Key` by additions and multiplications, so that they are the same on every machine. What torch's
own sums, products of matrices and factorisations make of them is not: `rounding.json` says how torch rounded them.
"""

import functools
import hashlib
import json
import sys
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

import telegrad as tg

sys.path.insert(0, str(Path(__file__).parents[1]))

from cases import COMPRESSORS, ours
from telegrad.workloads import Split, Task

FOLDER = Path(__file__).parent
MESSAGES, TRAJECTORIES, ROUNDING = (FOLDER / f"{name}.json" for name in ("messages", "trajectories", "rounding"))
COMMAND = "python tests/golden/made.py"
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
TOPOLOGIES = ["server", "allgather", "two_phase", "hierarchical(node=2)"]
EXAMPLES = [tg.compressor(cls.example) for cls in ours("compressor")]
METHODS = [
    *("sgd(identity)", "sgd(mlmc(stopk(s=0.1, values=sign)))", "ef14(topk(k=0.1))", "ef21(topk(k=0.1))"),
    *("ef21_sgdm(topk(k=0.1), momentum=0.3)", "sgd(permk(workers=4))", "sgd(warmup(identity, randk(k=0.1), steps=9))"),
    *("sgd(mlmc(shared_order(s=0.1), workers=4))", "ef21(powersgd(rank=1, start=last))"),
    "sgd(policy(identity, randk(k=0.1), below=16, named='b*'))",
    *("diana(randk(k=0.1))", "dasha(randk(k=0.1))", "ef_bv(mix(k=0.1, k2=0.1))", "ef21(topk(k=0.1), participation=2)"),
    *("signsgd(vote=majority, momentum=0.5)", "demo(chunk=16, k=4)", "ef21_sgd2m(topk(k=0.1), momentum=0.3)"),
]
ORACLE_METHODS = [
    *("marina(randk(k=0.1), probability=0.2)", "adiana(randk(k=0.1), mu=1.0)", "scaffnew(probability=0.3)"),
    *(
        "dasha_page(randk(k=0.1), probability=0.2)",
        "dasha_mvr(randk(k=0.1))",
        "ef21_page(topk(k=0.1), probability=0.2)",
    ),
    *("onebit_adam(warmup=5)", "local_sgd(mlmc(stopk(s=0.1)), local_lr=0.05)", "tamuna(probability=0.5, cohort=3)"),
    "compressed_scaffnew(probability=0.3, owners=2)",
]
OUTER_METHODS = [
    "outer(mlmc(stopk(s=0.1)), every=4, fragments=2, delay=1, alpha=0.5)",
    "sparseloco(chunk_topk(chunk=8, k=2), every=5)",
]


def key(name):
    """The stream of test inputs of that name."""
    return tg.Key(20).fold(name=name)


def vectors():
    """A dozen float64 tensors, by name, which every dtype can hold."""
    uniform = key("uniform").uniform(37) * 2 - 1
    bell = key("bell").uniform(4 * 3000).view(4, 3000).sum(0) - 2
    heavy = (key("heavy").uniform(700) * 2 - 1) ** 3
    return {
        "uniform": uniform,
        "bell": bell,
        "heavy": heavy * heavy.abs() * 8,
        "spiky": torch.where(key("spikes").uniform(500) < 0.02, 4.0, 0.01) * bell[:500],
        "matrix": bell[:1200].view(30, 40),
        "3-d": uniform[:24].view(2, 3, 4),
        "constant": torch.full((16,), 0.75, dtype=torch.float64),
        "ties": torch.tensor([1.0, -1, 1, 2, -2, 1, 0, 2, -1], dtype=torch.float64),
        "one-hot": torch.tensor([0, 0, 0, -0.375, 0], dtype=torch.float64),
        "one entry": torch.tensor([-2.5], dtype=torch.float64),
        "tiny": uniform * 2.0**-13,
        "zero": torch.zeros(5, dtype=torch.float64),
    }


def short_hash(data):
    """Eight characters that stand for these bytes."""
    return hashlib.blake2b(data, digest_size=4).hexdigest()


def messages(compressor):
    """By dtype, the hash of what the compressor sends for every vector, by the vector's name."""
    found = {}
    for dtype in DTYPES:
        hashes = {}
        for name, vector in vectors().items():
            try:
                code = compressor.encode(vector.to(dtype), key("draws").fold(step=3, rank=1, piece="model"))
                hashes[name] = short_hash(tg.pack(code))
            except tg.TelegradError as error:
                hashes[name] = type(error).__name__
        found[str(dtype).removeprefix("torch.")] = " ".join(f"{name}:{one}" for name, one in hashes.items())
    return found


def rounding():
    """The hash of some sums, products and factorisations of torch, which round otherwise on other processors."""
    found = []
    for dtype in DTYPES[:2]:
        x = key("rounding").uniform(4096).view(64, 64).to(dtype) - 0.5
        found += [
            x @ x,
            x.sum(),
            x.norm(),
            torch.lerp(x, x.T, 0.3),
            torch.linalg.qr(x).Q,
            torch.linalg.eigvalsh(x @ x.T),
        ]
    return short_hash(b"".join(one.numpy().tobytes() for one in found))


class _Rows(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(key("a").uniform(96).float().view(8, 12))
        self.b = nn.Parameter(torch.zeros(20))

    def forward(self, centres):
        return torch.cat([self.a.flatten(), self.b]) - centres


class _Bowl(Task):
    """Example j: ½ Σ a (x − b_j)²: sums and products of entries, alike on every machine."""

    metric: ClassVar[str] = "loss"
    higher_is_better: ClassVar[bool] = False
    classes = None
    curvatures = 1 + key("curvatures").uniform(116).float()
    train = validation = test = Split((key("b").uniform(16 * 116).float() * 2 - 1).view(16, 116), torch.zeros(16))

    def model(self, key):
        return _Rows()

    def loss(self, model, inputs, targets):
        offset = model(inputs)
        return (self.curvatures * offset * offset).sum(-1).mean() / 2

    def augment(self, inputs, key):
        return inputs

    def score(self, model, split):
        return 0.0


def trajectory(method, topology):
    """The hash of the parameters after 20 steps of four workers, their sum, and the bits sent up and down."""
    granularity = "tensor" if "policy" in method or "powersgd" in method else "model"
    setting = {"workers": 4, "steps": 20, "batch_size": 2, "lr": 0.03125, "gradients": "loop", "evaluate_every": 20}
    result = tg.simulate(_Bowl(), method, topology=topology, granularity=granularity, **setting)
    flat = torch.cat([value.flatten() for value in result.parameters.values()])
    bits = (result.ledger.bits_up_per_worker, result.ledger.bits_down_per_worker)
    return f"{short_hash(flat.numpy().tobytes())} sum:{float(flat.double().sum()):.9g} up:{bits[0]:g} down:{bits[1]:g}"


@functools.cache
def entries():
    """What is recorded, by file: a function without arguments for every entry, by its name."""
    runs = [(method, topology) for method in METHODS for topology in TOPOLOGIES]
    runs += [(method, topology) for method in ORACLE_METHODS for topology in TOPOLOGIES[:2]]
    runs += [(method, topology) for method in OUTER_METHODS for topology in TOPOLOGIES[:2]]
    return {
        MESSAGES: {str(one): functools.partial(messages, one) for one in [*EXAMPLES, *COMPRESSORS]},
        TRAJECTORIES: {f"{m} over {t}": functools.partial(trajectory, m, t) for m, t in runs},
        ROUNDING: {"torch": rounding},
    }


def recorded(file):
    """The entries of a file."""
    return json.loads(file.read_text()) if file.exists() else {}


def main(words):
    """Write the entries that contain one of `words` (all, where there are none), and those that are new."""
    for file, making in entries().items():
        before = recorded(file)
        wanted = {n for n in making if not words or any(word.lower() in n.lower() for word in words)}
        after = {
            name: make() if name in wanted or name not in before else before[name] for name, make in making.items()
        }
        changed = [name for name in after if after[name] != before.get(name)]
        file.write_text(json.dumps(after, indent=0, ensure_ascii=False) + "\n")
        print(f"{file.name}: {len(after)} entries, changed: {', '.join(changed) or 'none'}")


def without_entry():
    """The examples in the catalogue that have no entry."""
    known = recorded(MESSAGES)
    return [str(one) for one in EXAMPLES if str(one) not in known]


if __name__ == "__main__":
    main(sys.argv[1:])
