"""Widening: a larger supernet that starts from the weights of a smaller one (Net2Wider as DrNAS uses it, arXiv
2006.10355).

For a layer that grows from n to m channels, the index map is ``g(j) = j`` for j < n and a uniform old index otherwise;
the new weight is ``U[o, i] = W[g_out(o), g_in(i)]``, without division by the replication count. The output map of a
depthwise convolution is the input map of the pointwise convolution after it; batch norm takes the map of its input. The
same map is applied to weights, running statistics and momentum. The widened network does not compute the same function.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gapless.core.op import Conv, Depthwise, Halves, Norm, OpModule
from gapless.core.space import Space
from gapless.engine.supernet import Supernet

Index = dict[str, dict[int, Tensor]]
"""Parameter name -> {dimension: old index for each new one}."""


def widen(old: Supernet, space: Space, generator: torch.Generator) -> tuple[Supernet, Index]:
    """Return the supernet of ``space`` with the weights of ``old``, and the index map.

    Raises
    ------
    ValueError
        If the supernets differ in more than the width of candidate operations.
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
    """Return ``tensor`` indexed along the dimensions of ``maps``."""
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
    maps: Index = {}
    flowing: Tensor | None = None  # map of the next layer's input channels, if a layer before has set it
    for i, layer in enumerate(new.layers):
        before, after = old[i], new[i]

        def draw(name: str, a: nn.Module = before, b: nn.Module = after) -> Tensor:
            return _draw(_size(a, name), _size(b, name), generator)

        match layer:
            case Depthwise():
                flowing = draw("out_channels")
                maps[f"{i}.weight"] = {0: flowing}
            case Conv():
                reads = draw("in_channels") if flowing is None else flowing
                flowing = draw("out_channels")
                maps[f"{i}.weight"] = {0: flowing, 1: reads}
            case Halves():
                parts: list[Tensor] = []
                for name in ("first", "second"):
                    a, b = getattr(before, name), getattr(after, name)
                    reads, out = draw("in_channels", a, b), draw("out_channels", a, b)
                    maps[f"{i}.{name}.weight"] = {0: out, 1: reads}
                    parts.append(out + (a.out_channels if parts else 0))
                flowing = torch.cat(parts)
            case Norm():
                if flowing is None:
                    flowing = draw("num_features")
                entries = [n for n, t in (*after.named_parameters(), *after.named_buffers()) if t.dim()]
                maps |= {f"{i}.{n}": {0: flowing} for n in entries}
                flowing = None
            case _:
                pass
    return maps


def carry(
    old: nn.Module,
    new: nn.Module,
    optimiser_old: torch.optim.Optimizer,
    optimiser_new: torch.optim.Optimizer,
    index: Index,
) -> None:
    """Copy the optimiser's state from the old parameters to the new ones, by name; tensors of a parameter's shape are
    mapped as the parameter."""
    after = dict(new.named_parameters())
    for name, parameter in old.named_parameters():
        state = optimiser_old.state.get(parameter, {})
        optimiser_new.state[after[name]] = {
            key: take(value, index.get(name, {})).clone()
            if isinstance(value, Tensor) and value.shape == parameter.shape
            else value
            for key, value in state.items()
        }
