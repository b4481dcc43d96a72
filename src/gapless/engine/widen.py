"""Widening: a supernet at a larger size that goes on from the weights of a smaller one (Net2Wider as DrNAS uses it,
arXiv 2006.10355).

A layer that grows from n to m channels draws ``g(j) = j`` for j < n and else a uniform old index; its new weight is
``U[o, i] = W[g_out(o), g_in(i)]``, without division by the replication count. The index of a depthwise stage is the
input index of the pointwise stage behind it; normalisations take the index of what they normalise. One map moves
weights, running statistics and momentum. It is a reuse of weights and does not preserve the function.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gapless.core.op import Conv, Depthwise, Halves, Norm, OpModule
from gapless.core.space import Space
from gapless.engine.supernet import Supernet

Index = dict[str, dict[int, Tensor]]


def widen(old: Supernet, space: Space, generator: torch.Generator) -> tuple[Supernet, Index]:
    """Return the supernet of ``space`` with the weights of ``old``, and the map: parameter name -> {dimension: old
    index per new one}.

    Raises
    ------
    ValueError
        Where something other than the width of candidate operations differs.
    """
    new = Supernet(space, old.execution, recompute=old.recompute)
    example = next(old.parameters())
    new.to(example).train(old.training)
    index: Index = {}
    olds = dict(old.named_modules())
    for path, module in new.named_modules():
        before = olds.get(path)
        if isinstance(module, OpModule) and isinstance(before, OpModule) and before.layers == module.layers:
            for name, maps in _op_index(before, module, generator).items():
                index[f"{path}.{name}"] = maps
    weights = {name: take(tensor, index.get(name, {})) for name, tensor in old.state_dict().items()}
    fresh = new.state_dict()
    for name in {**fresh, **weights}:
        if name not in weights or name not in fresh or weights[name].shape != fresh[name].shape:
            raise ValueError(f"a stage can widen candidate operations only, but it changes {name}")
    new.load_state_dict(weights)
    return new, index


def take(tensor: Tensor, maps: dict[int, Tensor]) -> Tensor:
    """Return ``tensor`` with new indices along the mapped dimensions."""
    for dim, index in maps.items():
        tensor = tensor.index_select(dim, index.to(tensor.device))
    return tensor


def _size(module: nn.Module, name: str) -> int:
    size = getattr(module, name)
    assert isinstance(size, int)
    return size


def _draw(before: int, after: int, generator: torch.Generator) -> Tensor:
    if after < before:
        raise ValueError(f"a stage can widen operations only, but it narrows one from {before} to {after} channels")
    extra = torch.randint(before, (after - before,), generator=generator)
    return torch.cat([torch.arange(before), extra])


def _op_index(old: OpModule, new: OpModule, generator: torch.Generator) -> Index:
    found: Index = {}
    flowing: Tensor | None = None  # the index of the channels that the next layer reads, where the last layer fixed one
    for i, layer in enumerate(new.layers):
        before, after = old[i], new[i]

        def draw(name: str, a: nn.Module = before, b: nn.Module = after) -> Tensor:
            return _draw(_size(a, name), _size(b, name), generator)

        match layer:
            case Depthwise():
                flowing = draw("out_channels")
                found[f"{i}.weight"] = {0: flowing}
            case Conv():
                reads = draw("in_channels") if flowing is None else flowing
                flowing = draw("out_channels")
                found[f"{i}.weight"] = {0: flowing, 1: reads}
            case Halves():
                parts: list[Tensor] = []
                for name in ("first", "second"):
                    a, b = getattr(before, name), getattr(after, name)
                    reads, out = draw("in_channels", a, b), draw("out_channels", a, b)
                    found[f"{i}.{name}.weight"] = {0: out, 1: reads}
                    parts.append(out + (a.out_channels if parts else 0))
                flowing = torch.cat(parts)
            case Norm():
                if flowing is None:
                    flowing = draw("num_features")
                entries = [n for n, t in (*after.named_parameters(), *after.named_buffers()) if t.dim()]
                found |= {f"{i}.{n}": {0: flowing} for n in entries}
                flowing = None
            case _:
                pass
    return found


def carry(
    old: nn.Module,
    new: nn.Module,
    optimiser_old: torch.optim.Optimizer,
    optimiser_new: torch.optim.Optimizer,
    index: Index,
) -> None:
    """Move the optimiser's state (tensors of a parameter's shape) from the old parameters to the new ones, by name,
    along the same map."""
    after = dict(new.named_parameters())
    for name, parameter in old.named_parameters():
        state = optimiser_old.state.get(parameter, {})
        optimiser_new.state[after[name]] = {
            key: take(value, index.get(name, {})).clone()
            if isinstance(value, Tensor) and value.shape == parameter.shape
            else value
            for key, value in state.items()
        }
