"""Laws that need a GPU: both executions agree there, a replayed pass equals the pass, and a step does not wait.

python benchmarks/gpu_laws.py [SPACE ...]
"""

from __future__ import annotations

import argparse
import math

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
    """Check the laws, and print how far apart the numbers are."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("spaces", nargs="*", metavar="SPACE", help=f"some of {', '.join(SPACES)}; all by default")
    args = parser.parse_args()
    if unknown := set(args.spaces) - set(SPACES):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; spaces are {', '.join(SPACES)}")
    device = torch.device("cuda")
    with arithmetic(device, "float32"):
        for name, space in SPACES.items():
            if args.spaces and name not in args.spaces:
                continue
            found = {kind: observed(kind, space, device) for kind in ("reference", "fused", "graphs")}
            for kind in ("fused", "graphs"):
                off = {
                    what: float((found[kind][what] - value).abs().max() / value.abs().max().clamp_min(1e-12))
                    for what, value in found["reference"].items()
                }
                worst = sorted(off, key=lambda what: math.inf if math.isnan(off[what]) else off[what])[:-4:-1]
                print(f"{name}: {kind} is off by {off[worst[0]]:.1e} of the largest entry from the reference")
                assert found[kind].keys() == found["reference"].keys()
                assert off[worst[0]] < 1e-9, (name, kind, {what: off[what] for what in worst})
    print("all laws hold")


def observed(kind: str, space: Darts | NASBench201, device: torch.device) -> dict[str, Tensor]:
    """Return logits, gradients and running statistics of three steps by name, in float64."""
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
    assert leaves.weight.grad is not None
    gradients = {name: p.grad.clone() for name, p in supernet.named_parameters() if p.grad is not None}
    buffers = {name: b for name, b in supernet.named_buffers() if b.dim()}
    return {"logits": logits.detach(), "the mix": leaves.weight.grad} | gradients | buffers


if __name__ == "__main__":
    main()
