"""Run as 4 ranks: trains over the wire and in the simulator, and checks that both end alike, bit for bit."""

import sys

import torch
import torch.distributed as dist

import telegrad as tg
from telegrad.runtime.distributed import train_distributed

METHODS = ["sgd(mlmc(stopk(s=0.01, values=sign)))", "ef14(topk(k=0.01))", "ef21_sgdm(topk(k=0.01), momentum=0.1)"]
TOPOLOGIES = ["server", "allgather", "two_phase", "hierarchical(node=2)"]
ORACLE_METHODS = ["marina(randk(k=0.1), probability=0.2)", "adiana(randk(k=0.1), mu=0.1)", "scaffnew(probability=0.3)"]
ORACLE_RUNS = [(topology, method) for topology in ("server(rank=1)", "allgather") for method in ORACLE_METHODS]
RUNS = [
    *((topology, method) for topology in TOPOLOGIES for method in METHODS),
    ("two_phase", "ef14(powersgd(rank=1, start=last))"),
    ("server", "diana(mlmc(stopk(s=0.1)), shift_rate=realised)"),
    ("two_phase", "outer(mlmc(stopk(s=0.05)), every=8, fragments=2, delay=2, alpha=0.5)"),
    ("server", "outer(topk(k=0.01), feedback=ef(decay=0.95), optimizer=sgd, every=10)"),
    *ORACLE_RUNS,
]


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    workers, bad = dist.get_world_size(), []
    for number, (topology, method) in enumerate(RUNS):
        steps, lr = (16, 0.01) if method in ORACLE_METHODS else (50, 0.1)
        setting = {"steps": steps, "lr": lr, "topology": topology, "evaluate_every": steps // 2, "batch_size": 4}
        wire = train_distributed("digits", method, **setting)
        dist.barrier()
        if number % workers == dist.get_rank():  # the ranks share the work of simulating
            simulated = tg.simulate("digits", method, workers=workers, gradients="loop", **setting)
            same = [torch.equal(value, wire.parameters[name]) for name, value in simulated.parameters.items()]
            records = [[{**r, "seconds": 0, "encode_seconds": 0} for r in run.records] for run in (wire, simulated)]
            records = [[{k: str(v) for k, v in r.items()} for r in run] for run in records]  # NaN equals NaN
            if not all(same) or records[0] != records[1] or wire.ledger.to_dict() != simulated.ledger.to_dict():
                bad.append(f"{topology} {method}: parameters {same}")
            print(f"{topology} {method}: compared")
    dist.destroy_process_group()
    sys.exit("\n".join(bad) or 0)


if __name__ == "__main__":
    main()
