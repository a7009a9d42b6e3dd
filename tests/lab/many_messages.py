"""Sends messages of the whole catalogue, others than `telegrad warmup` sends, and says what it had to compile."""

import warnings

import torch

import telegrad as tg
from telegrad.kernels.caching import compiled_here
from telegrad.lab.bench import whole_catalogue

SPECS = (
    *("mlmc(stopk(s=0.01, values=sign))", "mlmc(stopk(s=0.01), probabilities=fixed)", "eden(bits=2, coder=trellis)"),
    *("ecdq(bits=1.5, coder=trellis, states=256)", "auto(bits=1)", "auto(bits=2, effort=best)", "auto(omega=1)"),
    *("auto(bits=0.1, budget=mean)", "qsgd(levels=1000)", "importance(k=0.1)", "topk(k=10, values=log)"),
)
SIZES = (1, 2, 40, 999, 20_000, 200_000)
DTYPES = (torch.float32, torch.float64, torch.float16, torch.bfloat16)


def vectors():
    for size in SIZES:
        z = torch.randn(size, generator=torch.Generator().manual_seed(size + 1))
        laws = [z] if size == max(SIZES) else [z, z**3, torch.zeros(size), z.sign(), z * (z > 2)]
        for x in laws:
            yield from (x.to(dtype) for dtype in DTYPES)


def main():
    warnings.simplefilter("ignore")
    sent = 0
    for spec in (*whole_catalogue(), *SPECS):
        compressor = tg.compressor(spec)
        for number, x in enumerate(vectors()):
            before = len(compiled_here)
            try:
                code = compressor.encode(x, tg.Key(seed=number).fold(step=number, rank=0))
            except tg.TelegradError:  # too short for it, or of a dtype that it does not take
                continue
            tg.unpack(tg.pack(code)).decode()
            sent += 1
            if len(compiled_here) > before:
                print(spec, len(x), x.dtype, compiled_here[before:])
    print(f"{sent} messages, {len(compiled_here)} loops compiled")


if __name__ == "__main__":
    main()
