"""Official implementations as opponents: built from a checkout, given our weights, asked for logits and gradients.

The loader and the translation of names are those of the golden tests.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gapless.core.mix import Mix
from gapless.core.space import Space
from gapless.spaces.darts import NODES, Darts
from gapless.spaces.nasbench201 import NASBench201

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "golden"))

from compare import our_name
from official import commit_of, load, old_torch

SPACES: dict[str, Space] = {
    "darts": Darts(),
    "nasbench201": NASBench201(width=16, cells=5, affine=False),
    "pc_darts": Darts(partial=4),
    "single_path": NASBench201(width=16, cells=5, affine=False),
    "masked": Darts(options="original"),
}
"""What each case runs, at the size of its paper's search."""
EPOCHS: dict[str, Space] = {"darts": Darts(), "drnas": Darts(options="drnas")}
"""What whole epochs run, by method; all channels pass through the operations."""
REPOSITORIES = {"darts": "quark0/darts", "nasbench201": "xiangning-chen/DrNAS", "pc_darts": "yuhuixu1993/PC-DARTS"}
ARCH = ("alphas_normal", "alphas_reduce", "betas_normal", "betas_reduce", "_arch_parameters")


@dataclass
class Opponent:
    """An official network with its architecture parameters and the commit that it comes from."""

    network: nn.Module
    arch: list[Tensor]
    commit: str

    def __post_init__(self) -> None:
        self.weights = list(self.network.parameters())

    def step(self, images: Tensor, labels: Tensor) -> Tensor:
        """Run forward and backward, and return the logits."""
        for p in [*self.weights, *self.arch]:
            p.grad = None
        logits: Tensor = self.network(images)
        F.cross_entropy(logits, labels).backward()
        return logits.detach()


def build(case: str, path: str | Path, ours: nn.Module, arch: list[Tensor], device: torch.device) -> Opponent:
    """Return the official network of a case with the weights of ``ours`` (``supernet.network``) and the given
    architecture parameters."""
    criterion = nn.CrossEntropyLoss()
    with old_torch():
        if case == "nasbench201":
            module, loaded = load(path, ["201-space", "."], "search_model.py")
            cell_operations = next(m for name, m in loaded.items() if name.endswith("cell_operations"))
            options = cell_operations.NAS_BENCH_201
            network = module.TinyNetwork(16, 5, 4, 10, criterion, options, k=1, species="softmax")
        elif case == "drnas":
            module, _ = load(path, ["DARTS-space", "."], "model_search.py")
            network = module.Network(16, 10, 8, criterion, k=1)
        else:
            folder = "cnn" if case == "darts" else "."
            module, _ = load(path, [folder], "model_search.py")
            network = module.Network(16, 10, 8, criterion)
    given = dict(ours.named_parameters())
    theirs = [(name, p) for name, p in network.named_parameters() if name not in ARCH]
    with torch.no_grad():
        for name, p in theirs:
            p.copy_(given.pop(our_name(name, (SPACES | EPOCHS)[case])))
    if given:
        raise ValueError(f"the official network has no {sorted(given)[:3]}")
    network = network.to(device)
    for own, value in zip(network.arch_parameters(), arch, strict=True):
        own.data = value.detach().to(device).clone()
    return Opponent(network, list(network.arch_parameters()), commit_of(path))


def arch_parameters(case: str) -> list[Tensor]:
    """Return architecture parameters that no option dominates, the same at every call."""
    space, generator = SPACES[case], torch.Generator().manual_seed(0)
    rows, columns = space.shape
    parts = [rows] if isinstance(space, NASBench201) else [rows // 2, rows // 2]
    alphas = [0.3 * torch.randn(n, columns, generator=generator) for n in parts]
    betas = [0.3 * torch.randn(n, generator=generator) for n in parts] if case == "pc_darts" else []
    return alphas + betas


def mix_of(case: str, arch: list[Tensor]) -> Mix:
    """Return the mix that the official network computes from its architecture parameters."""
    alphas = [a for a in arch if a.dim() == 2]
    weight = torch.cat([a.softmax(dim=-1) for a in alphas])
    betas = [b for b in arch if b.dim() == 1]
    if not betas:
        return Mix(weight)
    edges = list(NODES)  # node n has n edges
    return Mix(weight, gain=torch.cat([part.softmax(dim=0) for b in betas for part in b.split(edges)]))
