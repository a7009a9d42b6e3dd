"""Run as 2 ranks: rank 1 is gone in the middle of training with an outer loop whose fragments travel beside steps."""

import os
import sys
from datetime import timedelta

import outer_scenarios as scenarios
import torch
import torch.distributed as dist

import telegrad as tg


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    # With the default timeout first: on a busy machine ranks compile at different times.
    net, optimizer, handle = scenarios.registered(f"outer(identity, {scenarios.STREAMING})")
    scenarios.train(net, optimizer, 6)
    handle.remove()
    group = dist.new_group([0, 1], timeout=timedelta(seconds=60))
    net, optimizer, handle = scenarios.registered(f"outer(identity, {scenarios.STREAMING})", process_group=group)
    scenarios.train(net, optimizer, 5)
    if dist.get_rank() == 1:
        os._exit(0)
    for _ in range(2):  # and in every later step
        try:
            scenarios.train(net, optimizer, 4, start=5)
        except tg.CommunicationError as error:
            print(error, flush=True)
        else:
            sys.exit("no error")
    handle.remove()
    os._exit(7)


if __name__ == "__main__":
    main()
