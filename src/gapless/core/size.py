"""How large an architecture is, as a network."""

from __future__ import annotations

from collections.abc import Hashable
from functools import lru_cache

from gapless.core.cost import Undrawn, count_macs, count_params
from gapless.core.decision import Arch
from gapless.core.space import Space


def size_of(space: Space, arch: Arch) -> dict[str, int]:
    """Return parameters and MACs of an architecture at the size that ``space`` says."""
    try:
        hash(space)
    except TypeError:  # a space of a user's own with a field such as a list
        return _counted(space, arch)
    return dict(_known(space, arch))


@lru_cache(maxsize=256)
def _known(space: Hashable, arch: Arch) -> dict[str, int]:
    """Return the sizes of an architecture; a page asks for those of one architecture several times."""
    assert isinstance(space, Space)
    return _counted(space, arch)


def _counted(space: Space, arch: Arch) -> dict[str, int]:
    with Undrawn():
        network = space.network(arch)
    return {"params": count_params(network), "macs": count_macs(network, (space.channels, space.size, space.size))}
