"""The kernels' forms for GPUs, in Triton: loaded only where one is asked for, by `telegrad.kernels.device`."""
