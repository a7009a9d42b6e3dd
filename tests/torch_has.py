"""What the torch at hand cannot do, older ones among those that are supported."""

import pytest
from torch.distributed.fsdp import FSDPModule

needs_fsdp = pytest.mark.skipif(
    not hasattr(FSDPModule, "set_custom_reduce_scatter"), reason="this torch cannot replace FSDP2's reduce-scatter"
)
