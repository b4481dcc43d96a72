"""Laws that need a GPU: both executions agree there, a replayed pass is the pass, and a step waits for nothing.

python benchmarks/gpu_laws.py [SPACE ...]
"""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from gapless.core.mix import Mix
from gapless.core.progress import seeded, stream
from gapless.engine.graphs import Graphs
from gapless.engine.precision import arithmetic
from gapless.engine.supernet import Supernet
from gapless.spaces.darts import Darts
from gapless.spaces.nasbench201 import NASBench201

SPACES = {"darts": Darts(cells=4), "darts-partial-4": Darts(cells=4, partial=4), "nasbench201": NASBench201(cells=2)}


def main() -> None:
    """Hold the laws, and say how far apart the numbers are."""
    device = torch.device("cuda")
    with arithmetic(device, "float32"):
        for name, space in SPACES.items():
            if sys.argv[1:] and name not in sys.argv[1:]:
                continue
            found = {kind: observed(kind, space, device) for kind in ("reference", "fused", "graphs")}
            for kind in ("fused", "graphs"):
                off = max(
                    float((a - b).abs().max() / b.abs().max().clamp_min(1e-12))
                    for a, b in zip(found[kind], found["reference"], strict=True)
                )
                print(f"{name}: {kind} is off by {off:.1e} of the largest entry from the reference")
                assert off < 1e-9, (name, kind, off)
    print("all laws hold")


def observed(kind: str, space: Darts | NASBench201, device: torch.device) -> list[Tensor]:
    """Return logits, gradients and running statistics of three steps, in float64."""
    with seeded(0, "laws"):
        supernet = Supernet(space, "reference" if kind == "reference" else "fused").to(device, torch.float64).train()
    run = Graphs(supernet, supernet) if kind == "graphs" else supernet
    generator = stream("laws", "gpu")
    x = torch.randn(8, 3, space.size, space.size, generator=generator, dtype=torch.float64).to(device)
    labels = torch.randint(10, (8,), generator=generator).to(device)
    mix = Mix((torch.rand(space.shape, generator=generator, dtype=torch.float64) * space.legal).to(device))
    for turn in range(3):
        supernet.zero_grad(set_to_none=True)
        leaves = mix.leaves()
        if turn and kind != "reference":  # everything that is made once is there
            torch.cuda.set_sync_debug_mode("error")
        logits = run(x, leaves)
        F.cross_entropy(logits, labels).backward()
        torch.cuda.set_sync_debug_mode("default")
    gradients = [p.grad.clone() for p in supernet.parameters() if p.grad is not None]
    assert leaves.weight.grad is not None
    return [logits.detach(), leaves.weight.grad, *gradients, *(b for b in supernet.buffers() if b.dim())]


if __name__ == "__main__":
    main()
