"""Run as 3 ranks: rank 2 is gone in the middle of a step (argument `exit`), or hangs (argument `hang`)."""

import os
import sys
import time
from datetime import timedelta

import ddp_scenarios as scenarios
import torch
import torch.distributed as dist

import telegrad as tg


def main(how):
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    # With the default timeout of half an hour first: on a busy machine ranks compile at different times.
    scenarios.train(scenarios.wrapped("ef21(topk(k=0.1))")[0], 2)
    group = dist.new_group([0, 1, 2], timeout=timedelta(seconds=60))
    model, _ = scenarios.wrapped("ef21(topk(k=0.1))", ddp={"process_group": group})
    scenarios.train(model, 2)
    if dist.get_rank() == 2:
        while how == "hang":
            time.sleep(60)
        os._exit(0)
    try:
        scenarios.train(model, 1, start=2)
    except tg.CommunicationError as error:
        print(error, flush=True)
        os._exit(7)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
