"""A cache for what is expensive to derive from a space."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar, TypeVarTuple

Ts = TypeVarTuple("Ts")
T = TypeVar("T")


def remembered(function: Callable[[*Ts], T]) -> Callable[[*Ts], T]:
    """Return the function with a cache of its last 256 results, which nobody may change.

    Arguments that cannot be hashed, such as a space of a user's own with a list as a field, are computed each time.

    >>> remembered(len)([1, 2])
    2
    """
    known = lru_cache(maxsize=256)(function)

    @wraps(function)
    def call(*args: *Ts) -> T:
        try:
            hash(args)
        except TypeError:
            return function(*args)
        return known(*args)

    return call
