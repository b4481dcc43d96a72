"""Threads that share the images of a batch: PyTorch's own threads where possible.

PyTorch's operations run on the threads of an OpenMP runtime, which spin while they wait for the
next operation. A second pool would compete with them for the cores, so walks run on these threads
wherever the runtime has the entry points of GCC's OpenMP (``GOMP_parallel``; LLVM's and Intel's
runtimes have them on Linux too), and on a thread pool elsewhere. Compiled code enters the runtime
itself: threads that acquire Python's lock before each walk would start tens of microseconds late,
hundreds of times a step.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import cache
from typing import Any, ClassVar, NamedTuple

from llvmlite import ir
from numba.core import cgutils, errors, types
from numba.extending import intrinsic

from gapless.kernels.cpu.declare import Declared, cache_lock, compiled
from gapless.kernels.cpu.vectors import VectorType, opaque


def thread_count(images: int) -> int:
    """Return how many threads share the images of a batch: at most as many as PyTorch uses."""
    import torch

    return max(1, min(torch.get_num_threads(), images))


# ---------------------------------------------------------------------- walks


class Walk:
    """A compiled function that threads run side by side, each over its own images.

    The function takes the rank of a thread, the range of its images, more arguments, and vectors;
    it is declared as in :mod:`gapless.kernels.cpu.declare`. The walk is called with the number of
    threads, the number of images, and these more arguments and vectors; it returns when all threads
    are done.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.declared = Declared(function)
        self._numba_type_ = WalkType(self.declared)
        self._addresses: dict[Any, int] = {}

    def __call__(self, threads: int, images: int, *arguments: Any) -> None:
        """Walk over all images."""
        vector = arguments[-1]
        if vector not in self._addresses:
            with nullcontext() if self._loaded(vector._numba_type_) else cache_lock():
                self.load(vector._numba_type_)
                self._addresses[vector] = self.declared.compile(vector._numba_type_)
        address = self._addresses[vector]
        if _walk(self, address, *_runtime(), threads, images, *arguments, *_PADDING[len(arguments) :]):
            raise MemoryError("not enough memory for a walk over the images of a batch")

    def _entry(self, v: VectorType) -> tuple[Any, ...]:
        """Return the types of the arguments of :func:`_walk`."""
        kinds = self.declared.types(v)[3:]
        return self._numba_type_, *[types.intp] * 6, *kinds, *[types.none] * (len(_PADDING) - len(kinds))

    def _loaded(self, v: VectorType) -> bool:
        return self._entry(v) in _walk.overloads and self.declared.types(v) in self.declared.function.overloads

    def load(self, v: VectorType) -> None:
        """Compile what Python calls, or load it from the cache."""
        _walk.compile(self._entry(v))


_PADDING = (None,) * 12


@opaque
class WalkType(types.Type):
    """Numba's type of a :class:`Walk`. Every walk has its own, so that the types of the arguments
    are checked against its declaration. They are numbered by name, so that they are the same in
    every process that shares a cache."""

    declared: ClassVar[dict[str, Declared]] = {}
    counts: ClassVar[Counter[str]] = Counter()

    def __init__(self, declared: Declared) -> None:
        function = declared.function.py_func
        name = f"{function.__module__}.{function.__qualname__}"
        self.counts[name] += 1
        super().__init__(name=f"Walk({name}, {self.counts[name]})")
        self.declared[self.name] = declared


@compiled
def _walk(walk: Any, address: int, enter: int, rank: int, team: int, threads: int, images: int, a: Any, b: Any, c: Any,
          d: Any, e: Any, f: Any, g: Any, h: Any, i: Any, j: Any, k: Any, m: Any) -> int:  # fmt: skip
    """Enter a walk from Python; return whether a thread failed. Its arguments are not grouped in a
    tuple, which takes Numba a hundred times as long to look at."""
    arguments = (a, b, c, d, e, f, g, h, i, j, k, m)
    status: int = _region(walk, address, enter, rank, team, threads, images, arguments)  # type: ignore[call-arg]
    return status


@intrinsic
def _region(
    typing: Any, walk: Any, address: Any, enter: Any, rank: Any, team: Any, count: Any, images: Any, arguments: Any
) -> Any:
    """Walk over all images with ``count`` threads. ``address`` is that of the compiled function,
    which is compiled by itself: inlined here, it would be compiled twice. ``enter``, ``rank`` and
    ``team`` are those of a :class:`Runtime`."""
    kinds = tuple(kind for kind in arguments if kind != types.none)
    declared = WalkType.declared[walk.name].types(kinds[-1])[3:]
    if kinds != declared:
        raise errors.TypingError(f"{walk.name} takes {declared}; got {kinds}")
    inner = types.void(types.intp, types.intp, types.intp, *kinds)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        data_type = ir.LiteralStructType([WHOLE] * 5 + [context.get_value_type(arguments), NUMBER])
        function_type = context.call_conv.get_function_type(inner.return_type, inner.args).as_pointer()

        def part(b: Any, data: Any, first: Any, step: Any) -> None:
            """Do the work of one thread: that of several ranks if the team is smaller than
            requested."""
            place, ranks, images, arguments = (b.load(_field(b, data, field)) for field in (2, 3, 4, 5))
            unpacked = [b.extract_value(arguments, at) for at in range(len(inner.args) - 3)]
            function = b.inttoptr(place, function_type)
            with cgutils.for_range_slice(b, first, ranks, step, WHOLE) as (own, _):
                lo = b.sdiv(b.mul(own, images), ranks)
                hi = b.sdiv(b.mul(b.add(own, WHOLE(1)), images), ranks)
                status, _ = context.call_conv.call_function(
                    b, function, inner.return_type, inner.args, [own, lo, hi, *unpacked]
                )
                with b.if_then(status.is_error, likely=False):
                    b.store(NUMBER(1), _field(b, data, 6))

        def entry(b: Any, data: Any) -> None:
            """Enter from a thread of the runtime."""
            data, number = b.bitcast(data, data_type.as_pointer()), ir.FunctionType(NUMBER, []).as_pointer()
            rank, team = (b.call(b.inttoptr(b.load(_field(b, data, at)), number), []) for at in (0, 1))
            b.call(work, [data, b.zext(rank, WHOLE), b.zext(team, WHOLE)])

        work = _function(builder, "part", [data_type.as_pointer(), WHOLE, WHOLE], part)
        thread_entry = _function(builder, "entry", [PLACE], entry)
        with builder.goto_entry_block():
            data = builder.alloca(data_type)
        place, enter, rank, team, count, images, values = args[1:]
        for field, value in enumerate((rank, team, place, count, images, values, NUMBER(0))):
            builder.store(value, _field(builder, data, field))
        with builder.if_else(builder.icmp_signed(">", count, WHOLE(1))) as (several, alone):
            with several:
                kind = ir.FunctionType(ir.VoidType(), [thread_entry.type, PLACE, NUMBER, NUMBER]).as_pointer()
                size = builder.trunc(count, NUMBER)
                builder.call(
                    builder.inttoptr(enter, kind), [thread_entry, builder.bitcast(data, PLACE), size, NUMBER(0)]
                )
            with alone:
                builder.call(work, [data, WHOLE(0), WHOLE(1)])
        return builder.sext(builder.load(_field(builder, data, 6)), WHOLE)

    return types.intp(walk, *[types.intp] * 6, arguments), build


WHOLE, NUMBER, PLACE = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()


def _field(builder: Any, data: Any, place: int) -> Any:
    return builder.gep(data, [NUMBER(0), NUMBER(place)], inbounds=True)


def _function(builder: Any, name: str, kinds: list[Any], body: Callable[..., None]) -> Any:
    """Return a function without a result, beside the one that is being built."""
    name = builder.module.get_unique_name(f"{builder.function.name}.{name}")
    function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
    function.linkage = "internal"
    b = ir.IRBuilder(function.append_basic_block("entry"))
    body(b, *function.args)
    b.ret_void()
    return function


# ---------------------------------------------------------------------- runtimes


class Runtime(NamedTuple):
    """Addresses of C functions: one that calls ``entry(data)`` on the threads of a team and returns
    when all have returned (GCC's ``GOMP_parallel``: entry, data, number of threads, flags), and two
    that return a thread's rank and the number of threads in its team."""

    enter: int
    rank: int
    team: int


def _runtime() -> Runtime:
    return _openmp() or _pool()


@cache
def _openmp() -> Runtime | None:
    """Return PyTorch's own runtime, None if it does not have these entry points."""
    import torch

    if not torch.backends.openmp.is_available():
        return None
    try:
        library = ctypes.CDLL(torch._C.__file__)
        functions = (library.GOMP_parallel, library.omp_get_thread_num, library.omp_get_num_threads)
    except (OSError, AttributeError):
        return None
    return Runtime(*(_address(function) for function in functions))


_SELF = threading.local()
_POOLS: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOLS.clear)  # a forked process has no threads

_ENTRY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


def _enter(entry: int, data: int, count: int, flags: int) -> None:
    def one(rank: int) -> None:
        _SELF.rank, _SELF.team = rank, count
        _ENTRY(entry)(data)

    pool = _POOLS.setdefault(count, ThreadPoolExecutor(count - 1, thread_name_prefix="gapless"))
    others = []
    for rank in range(1, count):
        try:
            others.append(pool.submit(one, rank))
        except RuntimeError:  # no more threads can be started, and no exception may pass through compiled code
            one(rank)
    one(0)
    for other in others:
        other.result()


_CALLED = (
    ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)(_enter),
    ctypes.CFUNCTYPE(ctypes.c_int)(lambda: _SELF.rank),
    ctypes.CFUNCTYPE(ctypes.c_int)(lambda: _SELF.team),
)


@cache
def _pool() -> Runtime:
    """Return a runtime of Python's threads."""
    return Runtime(*(_address(function) for function in _CALLED))


def _address(function: Any) -> int:
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)
