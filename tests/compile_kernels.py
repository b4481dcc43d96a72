"""Compile the CPU kernels for vectors of four numbers, in both precisions, before the processes of the tests start."""

import numpy as np

from gapless.kernels.cpu.compile import prepare
from gapless.kernels.cpu.memory import vector_of

if __name__ == "__main__":
    prepare([vector_of(np.dtype(precision), 4) for precision in ("float32", "float64")])
