"""Parameters and multiply-adds: one convention, stated once.

Parameters are all entries of trainable tensors outside the auxiliary head. MACs count convolutions and linear layers
only, one per multiply-add, no bias, batch 1, without the auxiliary head: half of what ``torch.utils.flop_counter``
counts. Memory accesses count what convolutions, linear layers and pools read and write, one per
element of input, output and weight, for one image (ShuffleNetV2, arXiv 1807.11164, section 2, for pointwise layers).
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from gapless.core.cell import CellModule, CellSpec, Edge, rejoin
from gapless.core.op import NormRule, Op, zeros

Unit = Literal["params", "macs", "access"]


def count_params(module: nn.Module) -> int:
    """Return the number of trainable entries, without those whose name contains ``auxiliary``.

    >>> count_params(nn.Linear(3, 2))
    8
    """
    return sum(p.numel() for name, p in module.named_parameters() if "auxiliary" not in name)


def count_macs(module: nn.Module, *shape: tuple[int, ...]) -> int:
    """Return the multiply-adds of one image; each ``shape`` is [C, H, W] of an input.

    >>> count_macs(nn.Conv2d(3, 4, 1), (3, 2, 2))
    48
    """
    with _on_meta(module) as ghost:
        _, counter = _pass(ghost, shape)
        if not counter.unknown:
            return counter.total
        from torch.utils.flop_counter import FlopCounterMode  # with Triton, and later torch._dynamo, it takes seconds

        with torch.no_grad(), FlopCounterMode(display=False) as official:
            ghost(*[torch.empty(1, *s, device="meta") for s in shape])
        return int(official.get_total_flops()) // 2


def count_access(module: nn.Module, *shape: tuple[int, ...]) -> int:
    """Return the memory accesses of one image; each ``shape`` is [C, H, W] of an input.

    >>> count_access(nn.Conv2d(3, 4, 1, bias=False), (3, 2, 2))
    40
    """
    total = 0

    def count(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += inputs[0].numel() + output.numel() + sum(p.numel() for p in layer.parameters())

    with _on_meta(module) as ghost, contextlib.ExitStack() as hooks:
        for name, layer in ghost.named_modules():
            if isinstance(layer, LAYERS) and "auxiliary" not in name:
                hooks.callback(layer.register_forward_hook(count).remove)
        _pass(ghost, shape)
    return total


def shape_of(module: nn.Module, *shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape that a module makes of images of these shapes [C, H, W]; what bills on the way does so."""
    with _on_meta(module) as ghost:
        return tuple(_pass(ghost, shape)[0].shape)


def _pass(ghost: nn.Module, shape: Sequence[tuple[int, ...]]) -> tuple[Tensor, _Counter]:
    """Pass images of zeros through a module on the meta device, and return what comes out and what was counted.

    Nothing is multiplied, and weights are one zero that is repeated. On the meta device itself PyTorch adds and
    normalises step by step in Python, which is slow and imports torch._dynamo.
    """
    state = dict(itertools.chain(ghost.named_parameters(), ghost.named_buffers()))
    zeros = {name: torch.zeros((), dtype=t.dtype, device="cpu").expand(t.shape) for name, t in state.items()}
    counter = _Counter()
    with torch.random.fork_rng(devices=()), torch.no_grad(), counter:  # noise in the module draws from here
        out = functional_call(ghost, zeros, tuple(torch.zeros(1, *s, device="cpu") for s in shape))
    return out, counter


@contextlib.contextmanager
def _on_meta(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the module on the meta device in evaluation mode: itself where it is there already, otherwise a copy.

    Copying a network takes longer than counting it, and :class:`Undrawn` builds networks on the meta device.
    """
    if any(not t.is_meta for t in itertools.chain(module.parameters(), module.buffers())):
        yield copy.deepcopy(module).to("meta").eval()
        return
    modes = {child: child.training for child in module.modules()}
    module.eval()
    try:
        yield module
    finally:
        for child, mode in modes.items():
            child.training = mode


LAYERS = (nn.Conv2d, nn.Linear, nn.MaxPool2d, nn.AvgPool2d)


def cost(module: nn.Module, unit: Unit, *shape: tuple[int, ...]) -> int:
    """Return :func:`count_params`, :func:`count_macs` or :func:`count_access`."""
    match unit:
        case "params":
            return count_params(module)
        case "macs":
            return count_macs(module, *shape)
        case "access":
            return count_access(module, *shape)


class _Lean(TorchDispatchMode):
    """A dispatch mode that does not import torch._dynamo on its first operation, which would take seconds."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Undrawn(_Lean):
    """A context that builds modules on the meta device: they get shapes, but no weights are drawn.

    PyTorch's own distributions on the meta device are slow, and the normal one imports torch._dynamo.
    """

    def __enter__(self) -> Self:
        self.device = torch.device("meta")
        self.device.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self.device.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func.overloadpacket in (torch.ops.aten.normal_, torch.ops.aten.uniform_) and args[0].is_meta:
            return args[0]
        return func(*args, **(kwargs or {}))


class _Counter(_Lean):
    """Counts the multiply-adds of convolutions and matrix products as ``torch.utils.flop_counter`` does, but computes
    none: their results are zeros.

    Attributes
    ----------
    total
        Multiply-adds so far.
    unknown
        Whether something ran that may multiply matrices and is not counted here, such as attention.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.unknown = False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        aten, packet, kwargs = torch.ops.aten, func.overloadpacket, kwargs or {}
        if packet is aten.convolution:
            image, weight, _, stride, padding, dilation, transposed, extra, groups = args
            shape = _convolved(image.shape, weight.shape, stride, padding, dilation, transposed, extra, groups)
            places = image.shape[2:] if transposed else shape[2:]
            self.total += image.shape[0] * math.prod(places) * weight.numel()
            return image.new_zeros(shape)
        if packet in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm):
            left, right = args[-2:]
            shape = (*left.shape[:-1], right.shape[-1])
            self.total += math.prod(shape) * left.shape[-1]
            return left.new_zeros(shape)
        with self:
            parts = func.decompose(*args, **kwargs)
        if parts is not NotImplemented:
            return parts
        self.unknown |= any(word in str(packet) for word in ("conv", "mm", "attention"))
        return func(*args, **kwargs)


def _convolved(
    image: Sequence[int],
    weight: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    extra: Sequence[int],
    groups: int,
) -> tuple[int, ...]:
    """Return the shape that a convolution makes of an image."""
    sides = []
    for i, (side, kernel) in enumerate(zip(image[2:], weight[2:], strict=True)):
        reach = dilation[i] * (kernel - 1)
        if transposed:
            sides.append((side - 1) * stride[i] - 2 * padding[i] + reach + extra[i] + 1)
        else:
            sides.append((side + 2 * padding[i] - reach - 1) // stride[i] + 1)
    return (image[0], weight[1] * groups if transposed else weight[0], *sides)


class Bill:
    """Answers ``build`` (see :class:`gapless.core.choose.Choose`) with modules that add what each option costs, over
    all places, to a table.

    Attributes
    ----------
    table
        (decision, option label) -> cost, complete after one forward pass of one image.
    open
        Whether passes still bill; a closed bill lets what is outside the decisions be counted alone.
    """

    def __init__(self, unit: Unit, options: Mapping[str, tuple[str, ...]]) -> None:
        self.unit, self.options = unit, options
        self.table: dict[tuple[str, str], int] = {}
        self.open = True
        self._known: dict[tuple[Op, int, int, tuple[int, ...], bool | None], int] = {}

    def cell(self, spec: CellSpec) -> nn.Module:
        """Return a cell that bills each option of each edge and passes on states of the right shape."""
        return CellModule(spec.cell, {e.key: _Billed(self, spec, e) for e in spec.cell.edges})

    def op(self, ask: str, make: Callable[[str], nn.Module]) -> nn.Module:
        """Return a site that bills each of its options and passes on the output of the first."""
        return _BilledSite(self, ask, {o: make(o) for o in self.options[ask]})

    def add(self, ask: str, label: str, amount: int) -> None:
        """Put ``amount`` on the account of an option."""
        self.table[ask, label] = self.table.get((ask, label), 0) + amount

    def price(self, op: Op, width: int, stride: int, norm: NormRule, size: tuple[int, ...]) -> int:
        """Return the cost of an operation on ``width`` channels of a size; the same question is answered once."""
        key = (op, width, stride, size, norm.affine)
        if key not in self._known:
            with Undrawn():
                module = op.build(width, stride=stride, norm=norm)
            self._known[key] = cost(module, self.unit, (width, *size))
        return self._known[key]


class _Billed(nn.Module):
    def __init__(self, bill: Bill, spec: CellSpec, edge: Edge) -> None:
        super().__init__()
        self.bill, self.spec, self.edge = bill, spec, edge

    def forward(self, x: Tensor) -> Tensor:
        spec, ask, stride = self.spec, self.edge.ask, self.edge.stride
        for label in self.bill.options[ask] if self.bill.open else ():
            price = self.bill.price(spec.ops[label], spec.width, stride, spec.norm, tuple(x.shape[-2:]))
            self.bill.add(ask, label, price)
        return rejoin(zeros(x[:, : spec.width], stride), x, spec.partial, stride)


class _BilledSite(nn.Module):
    def __init__(self, bill: Bill, ask: str, options: dict[str, nn.Module]) -> None:
        super().__init__()
        self.bill, self.ask = bill, ask
        self.__dict__["options"] = options  # not children: they must not count as fixed parameters

    def forward(self, *inputs: Tensor) -> Tensor:
        for place, (label, module) in enumerate(self.__dict__["options"].items() if self.bill.open else ()):
            with _on_meta(module) as ghost:
                self.bill.add(self.ask, label, cost(ghost, self.bill.unit, *(tuple(x.shape[1:]) for x in inputs)))
                if place == 0:
                    self.shape = shape_of(ghost, *(tuple(x.shape[1:]) for x in inputs))
        return inputs[0].new_zeros(self.shape)
