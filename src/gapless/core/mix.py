"""How one forward pass weighs the options."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

Active = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, eq=False)
class Mix:
    """``out_d = gain_d * (sum over o in active_d of weight_do * op_o(x)) + offset_d``. The engine never renormalises.

    Parameters
    ----------
    weight
        [D, O], or [N, D, O] for a weight per image.
    active
        For each decision the columns that run, as host integers; ``()`` means that the decision is absent and adds
        nothing. ``None`` runs every option that the decision has.
    gain, offset
        [D]; ``None`` means 1 and 0. They carry gradients to methods that need them without changing the value.
    log_prob, entropy
        Scalars: the log-probability of a sampled architecture, and the entropy of the distributions that it was drawn
        from.
    """

    weight: Tensor
    active: Active | None = None
    gain: Tensor | None = None
    offset: Tensor | None = None
    log_prob: Tensor | None = None
    entropy: Tensor | None = None

    def leaves(self) -> Mix:
        """Return the same mix cut from the graph: weight, gain and offset as leaves that collect gradients."""
        return replace(self._map(lambda t: t.detach().clone().requires_grad_()), log_prob=None, entropy=None)

    def detach(self) -> Mix:
        """Return the same mix without any graph."""
        return self._map(Tensor.detach)

    def to(self, *, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Mix:
        """Return the mix on a device and in a floating-point type."""
        return self._map(lambda t: t.to(device=device, dtype=dtype))

    def _map(self, change: Callable[[Tensor], Tensor]) -> Mix:
        changed: dict[str, Any] = {
            f.name: change(v) for f in fields(self) if isinstance(v := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)

    def gradient(self) -> dict[str, Tensor]:
        """Return the gradients that arrived at the leaves: name -> tensor, zeros where nothing arrived."""
        found = {}
        for name in GRADED:
            leaf = getattr(self, name)
            if leaf is not None:
                found[name] = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        return found

    def backward(self, gradient: Mapping[str, Tensor]) -> None:
        """Send gradients that arrived at the cut on to whatever the mix was computed from; once for each pass that one
        mix serves."""
        pairs = [(getattr(self, name), g) for name, g in gradient.items()]
        pairs = [(tensor, g.to(tensor)) for tensor, g in pairs if tensor is not None and tensor.requires_grad]
        if pairs:  # their product: where a gradient is given, PyTorch imports SymPy to compare two shapes
            torch.stack([(tensor * g).sum() for tensor, g in pairs]).sum().backward(retain_graph=True)


GRADED = ("weight", "gain", "offset")


def mask_of(active: Active, columns: int) -> Tensor:
    """Return [D, O] bool on the host: what ``active`` lists; the inverse of :func:`gapless.core.method.host`.

    >>> mask_of(((0, 2), ()), 3).tolist()
    [[True, False, True], [False, False, False]]
    """
    mask = torch.zeros(len(active), columns, dtype=torch.bool)
    for row, listed in enumerate(active):
        mask[row, list(listed)] = True
    return mask


def one_hot(
    choice: Sequence[int | None],
    columns: int,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Mix:
    """Return the mix that runs one option per decision; ``None`` stands for an absent decision.

    >>> one_hot([1, None], 3).weight.tolist()
    [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]
    """
    weight = torch.zeros(len(choice), columns, dtype=dtype)
    for row, column in enumerate(choice):
        if column is not None:
            weight[row, column] = 1
    return Mix(weight.to(device), active=tuple(() if c is None else (c,) for c in choice))
