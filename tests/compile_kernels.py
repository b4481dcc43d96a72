"""Compile the kernels of a CPU for vectors of four numbers in one precision: ``compile_kernels.py float64``.

Compiled functions are kept on disk, where the processes of the tests find them.
"""

import sys
from unittest import mock

import torch

from gapless.core.mix import Mix
from gapless.engine.supernet import Supernet
from gapless.kernels.cpu import memory
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201


def main(precision: str) -> None:
    """Run a forward and a backward pass of small supernets that have every operation."""
    dtype = getattr(torch, precision)
    torch.set_num_threads(1)
    with mock.patch.object(memory, "WIDTHS", {4: memory.WIDTHS[4]}):
        for space in (Darts(size=8, width=4, cells=3), NASBench201(size=8, width=4, cells=1)):
            supernet = Supernet(space, "fused").to(dtype=dtype).train()
            images = torch.randn(4, space.channels, space.size, space.size, dtype=dtype)
            weight = torch.rand(space.shape, dtype=dtype, requires_grad=True)
            supernet(images, Mix(weight)).square().sum().backward()


if __name__ == "__main__":
    main(sys.argv[1])
