"""Declares functions that Numba compiles: the types of their parameters follow from annotations and
from the vectors.

A parameter is annotated by a name of :data:`KINDS`, and the last one, ``v``, is a
:class:`~gapless.kernels.cpu.vectors.Vector`: so a function has exactly one type for each ``v``,
whatever literals its callers write, and it is known before anything runs.

A *loop* works on one image and is called from other compiled functions, by a symbol: it is compiled
once, by itself, in any process and in any order, and not again inside of each caller.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias

import numpy as np
from filelock import FileLock
from llvmlite import binding
from numba import njit, typeof
from numba.core import cgutils, types
from numba.extending import intrinsic

from gapless.kernels.cpu import records
from gapless.kernels.cpu.vectors import VectorType

Numbers: TypeAlias = Any
Sums: TypeAlias = Any
Doubles: TypeAlias = Any
Addresses: TypeAlias = Any
Buffers: TypeAlias = Any
Norms: TypeAlias = Any
Steps: TypeAlias = Any
Pools: TypeAlias = Any
Ends: TypeAlias = Any
Scratch: TypeAlias = Any


class Image(NamedTuple):
    """An image in an array: where it begins, and how many numbers its rows are apart."""

    data: Numbers
    start: int
    row: int


def _array(dtype: Any, axes: int = 1) -> Callable[[VectorType], Any]:
    return lambda v: typeof(np.empty((0,) * axes, dtype))


KINDS: dict[str, Callable[[VectorType], Any]] = {
    "Numbers": lambda v: types.Array(v.dtype, 1, "C"),
    "Image": lambda v: types.NamedTuple((types.Array(v.dtype, 1, "C"), types.intp, types.intp), Image),
    "Sums": lambda v: types.Array(v.dtype, 1, "C"),
    "Doubles": _array(np.float64),
    "Addresses": _array(np.int64, axes=2),
    "Buffers": _array(records.BUFFER),
    "Norms": _array(records.NORM),
    "Steps": _array(records.STEP),
    "Pools": _array(records.POOL),
    "Ends": _array(records.END),
    "Scratch": _array(records.SCRATCH),
    "int": lambda v: types.intp,
    "bool": lambda v: types.boolean,
    "Vector": lambda v: v,
}
"""What an annotation means: arrays of one axis in the precision of the images (``Numbers``), in
that or in double precision (``Sums``: the function is compiled for both) or in double precision
(``Doubles``), and records."""

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False, "no_cfunc_wrapper": True}
"""Options of all compiled functions."""


def compiled(function: Any, *, python: bool = True) -> Any:
    """Compile a function when it is first needed, and cache it on disk where that is possible.
    ``python``: whether Python calls it; compiled functions that it never calls need no wrapper, and
    compile faster."""

    def lazily(cache: bool) -> Any:
        return njit(function, **OPTIONS | {"cache": cache, "no_cpython_wrapper": not python})

    try:
        return lazily(cache=True)
    except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
        return lazily(cache=False)


@cache
def cache_folder() -> Path | None:
    """Return the folder of the functions in the cache, None if it cannot be written."""
    path = compiled(cache_folder.__wrapped__).stats.cache_path
    return None if path is None else Path(path)


@cache
def _lock(folder: Path) -> FileLock:
    return FileLock(folder / "gapless.lock")


def cache_lock() -> FileLock | nullcontext[None]:
    """Return a lock that processes hold while they add to the cache: Numba's index of the types of
    a function loses entries when two processes write it at once."""
    folder = cache_folder()
    return nullcontext() if folder is None else _lock(folder)


def unrolled(function: Any) -> Any:
    """Compile a function into its callers, anew for each tile that they name."""
    return njit(function, **OPTIONS | {"forceinline": True, "no_cpython_wrapper": True})


class Declared:
    """A function whose types follow from its annotations.

    Attributes
    ----------
    function
        What Numba compiles.
    callees
        The loops that it calls, found by the names in its code.
    """

    def __init__(self, function: Callable[..., Any], python: bool = False) -> None:
        self.name = function.__name__
        self.function = compiled(function, python=python)
        self.parameters = inspect.signature(function).parameters
        self.kinds = [str(parameter.annotation) for parameter in self.parameters.values()]
        if unknown := sorted(set(self.kinds) - KINDS.keys()):
            raise TypeError(f"{self.name}: a parameter is annotated by one of {', '.join(KINDS)}; got {unknown}")
        self.callees = [LOOPS[name] for name in function.__code__.co_names if name in LOOPS]

    def types(self, v: VectorType, doubles: bool = False) -> tuple[Any, ...]:
        """Return the types of its arguments; ``doubles``: with sums in double precision."""
        return tuple(KINDS["Doubles" if doubles and kind == "Sums" else kind](v) for kind in self.kinds)

    def compile(self, v: VectorType, doubles: bool = False) -> int:
        """Compile the function or load it from the cache, and return its address."""
        for callee in self.callees:
            callee.define(v)
        kinds = self.types(v, doubles)
        self.function.compile(kinds)
        overload = self.function.overloads[kinds]
        return int(overload.library.get_pointer_to_function(overload.fndesc.llvm_func_name))


class Host(Declared):
    """A function that Python calls, and one thread runs."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function, python=True)

    def __call__(self, *arguments: Any) -> None:
        """Run it."""
        self.function(*arguments)


class Loop(Declared):
    """A function of one image, which compiled functions call by a symbol."""

    defined: ClassVar[set[str]] = set()
    """Symbols that have an address: a function can be loaded only after the loops that it calls."""
    stand_in: ClassVar[int] = 0
    """An address to give to all symbols in a process that compiles functions, but never calls
    them."""

    def symbol(self, v: VectorType, doubles: bool = False) -> str:
        """Return its symbol for some vectors."""
        return f"gapless.{self.name}.{v}" + ".doubles" * doubles

    def variants(self, v: VectorType) -> tuple[bool, ...]:
        """Return for which values of ``doubles`` it is compiled."""
        return (False, True) if "Sums" in self.kinds and v.dtype != types.float64 else (False,)

    def define(self, v: VectorType) -> None:
        """Let compiled functions find it."""
        for doubles in self.variants(v):
            symbol = self.symbol(v, doubles)
            if symbol not in self.defined:
                binding.add_symbol(symbol, self.stand_in or self.compile(v, doubles))
                self.defined.add(symbol)


LOOPS: dict[str, Loop] = {}


def loop(function: Callable[..., None]) -> Any:
    """Declare a loop. What is returned can be called by compiled functions only; see
    :func:`from_python`."""
    entry = LOOPS[function.__name__] = Loop(function)

    def typed(typing: Any, *arguments: Any) -> Any:
        v: VectorType = arguments[-1]
        sums = [array.dtype for kind, array in zip(entry.kinds, arguments, strict=True) if kind == "Sums"]
        doubles = v.dtype != types.float64 and types.float64 in sums
        entry.define(v)

        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            convention = context.call_conv
            kind = convention.get_function_type(types.void, signature.args)
            callee = cgutils.get_or_insert_function(builder.module, kind, entry.symbol(v, doubles))
            status, _ = convention.call_function(builder, callee, types.void, signature.args, args)
            with builder.if_then(status.is_error, likely=False):
                convention.return_status_propagate(builder, status)
            return context.get_dummy_value()

        return types.void(*entry.types(v, doubles)), build

    typed.__name__, typed.__doc__ = function.__name__, function.__doc__
    first = inspect.Parameter("typing", inspect.Parameter.POSITIONAL_ONLY)
    own = [each.replace(kind=inspect.Parameter.POSITIONAL_ONLY) for each in entry.parameters.values()]
    typed.__signature__ = inspect.Signature([first, *own])
    return intrinsic(typed)


def from_python(declared: Any) -> Callable[..., None]:
    """Return a function of Python that calls a loop, for tests and measurements."""

    def call(*arguments: Any) -> None:
        declared(*arguments)

    wrapped: Callable[..., None] = njit(call)
    return wrapped
