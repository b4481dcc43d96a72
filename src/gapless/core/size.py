"""How large an architecture is, as a network."""

from __future__ import annotations

from gapless.core.cost import Undrawn, count_macs, count_params
from gapless.core.decision import Arch
from gapless.core.memo import remembered
from gapless.core.space import Space


def size_of(space: Space, arch: Arch) -> dict[str, int]:
    """Return parameters and MACs of an architecture at the size that ``space`` says."""
    return dict(_size(space, arch))


@remembered
def _size(space: Space, arch: Arch) -> dict[str, int]:
    with Undrawn():
        network = space.network(arch)
    return {"params": count_params(network), "macs": count_macs(network, space.image_shape)}


def halved(sides: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return height and width of an image after a step of a stride, rounded up."""
    return -(-sides[0] // stride), -(-sides[1] // stride)


def area(sides: tuple[int, int]) -> str:
    """Return height and width of an image as text.

    >>> area((32, 32)), area((16, 64))
    ('32²', '16x64')
    """
    height, width = sides
    return f"{height}²" if height == width else f"{height}x{width}"
