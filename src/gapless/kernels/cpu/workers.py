"""Threads that share the images of a batch: those of PyTorch, where they can be had.

PyTorch's own operations run on the threads of an OpenMP runtime, which wait for the next one by spinning. A second pool
would fight with them for the cores, so walks run on these very threads wherever the runtime answers to the names that
GCC's compiler gives it (``GOMP_parallel``; LLVM's and Intel's runtimes have them on Linux too), and on a pool of our
own elsewhere. Compiled code enters the runtime itself: threads that had to ask for Python's lock before each walk would
come tens of microseconds late, hundreds of times a step.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
from llvmlite import ir
from numba import typeof
from numba.core import cgutils, types
from numba.extending import intrinsic

from gapless.kernels.cpu.lanes import opaque
from gapless.kernels.cpu.loops import compiled


def threads(images: int) -> int:
    """Return how many threads share so many images: at most as many as PyTorch uses."""
    return max(1, min(torch.get_num_threads(), images))


# ---------------------------------------------------------------------- walks


class Walk:
    """A function of the number of a thread, the range of images that are its, and more, which threads run side by side.

    Call it with the number of threads, the number of images and what more it takes; it returns when all is done.
    ``function`` is compiled when it is first called with its kinds of arguments.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.function = compiled(function, called=False)
        self._numba_type_ = WalkType(function)

    def __call__(self, count: int, images: int, *arguments: Any) -> None:
        """Walk over all images with so many threads."""
        given = (*_runtime(), count, images, *arguments, *_PADDING[len(arguments) :])
        status = _walk(self, 0, *given)
        if status == UNKNOWN:
            status = _walk(self, self._place(arguments), *given)
        if status == FAILED:
            raise MemoryError("there is no memory left for a walk over images")

    def _place(self, arguments: Sequence[Any]) -> int:
        """Return the address of what is compiled for arguments of these kinds."""
        kinds = (types.intp, types.intp, types.intp, *map(typeof, arguments))
        self.function.compile(kinds)
        made = self.function.overloads[kinds]
        return int(made.library.get_pointer_to_function(made.fndesc.llvm_func_name))


DONE, FAILED, UNKNOWN = range(3)
"""What :func:`_walk` says: it is done, a thread failed, or nobody has said yet where the compiled function lies."""
_PADDING = (None,) * 20


@opaque
class WalkType(types.Type):
    """The compiler's type of a :class:`Walk`: every walk has its own, for what is compiled for a type keeps the address
    of its function. Numbered by name, they are the same in every process, which finds on disk what another compiled."""

    made: ClassVar[Counter[str]] = Counter()

    def __init__(self, function: Callable[..., None]) -> None:
        name = f"{function.__module__}.{function.__qualname__}"
        self.made[name] += 1
        super().__init__(name=f"Walk({name}, {self.made[name]})")


@compiled
def _walk(walk: Any, place: int, enter: int, rank: int, team: int, count: int, images: int, a: Any, b: Any, c: Any,
          d: Any, e: Any, f: Any, g: Any, h: Any, i: Any, j: Any, k: Any, z: Any, m: Any, n: Any, o: Any, p: Any,
          q: Any, r: Any, s: Any, t: Any) -> int:  # fmt: skip
    """What a walk takes stands here one by one: Numba looks at what is in a tuple for a hundred times as long."""
    some = (a, b, c, d, e, f, g, h, i, j, k, z, m, n, o, p, q, r, s, t)
    answer: int = _region(walk, place, enter, rank, team, count, images, some)  # type: ignore[call-arg]
    return answer


@intrinsic
def _region(
    typing: Any, walk: Any, place: Any, enter: Any, rank: Any, team: Any, count: Any, images: Any, arguments: Any
) -> Any:
    """Walk over all images with ``count`` threads; the addresses are those of :class:`Runtime`. Where the function
    lies, if ``place`` is not 0, is kept for the next time: it is compiled by itself, and not once more in here."""
    inner = types.void(types.intp, types.intp, types.intp, *(kind for kind in arguments if kind != types.none))

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        held = ir.LiteralStructType([WHOLE] * 4 + [context.get_value_type(arguments), NUMBER])
        made = context.call_conv.get_function_type(inner.return_type, inner.args).as_pointer()
        known = ir.GlobalVariable(builder.module, WHOLE, builder.module.get_unique_name("gapless.place"))
        known.linkage, known.initializer = "internal", WHOLE(0)

        def part(b: Any, data: Any, first: Any, step: Any) -> None:
            """What one thread does: its own ranks, of which there are more if the team is smaller than asked for."""
            ranks, pictures, given = (b.load(_field(b, data, place)) for place in (2, 3, 4))
            unpacked = [b.extract_value(given, place) for place in range(len(inner.args) - 3)]
            function = b.inttoptr(b.load(known), made)
            with cgutils.for_range_slice(b, first, ranks, step, WHOLE) as (own, _):
                lo = b.sdiv(b.mul(own, pictures), ranks)
                hi = b.sdiv(b.mul(b.add(own, WHOLE(1)), pictures), ranks)
                status, _ = context.call_conv.call_function(
                    b, function, inner.return_type, inner.args, [own, lo, hi, *unpacked]
                )
                with b.if_then(status.is_error, likely=False):
                    b.store(NUMBER(FAILED), _field(b, data, 5))

        def entry(b: Any, data: Any) -> None:
            """Where a thread of the runtime comes in."""
            data, asked = b.bitcast(data, held.as_pointer()), ir.FunctionType(NUMBER, []).as_pointer()
            who, many = (b.call(b.inttoptr(b.load(_field(b, data, place)), asked), []) for place in (0, 1))
            b.call(one, [data, b.zext(who, WHOLE), b.zext(many, WHOLE)])

        one = _function(builder, "part", [held.as_pointer(), WHOLE, WHOLE], part)
        come = _function(builder, "entry", [PLACE], entry)
        with builder.goto_entry_block():
            data = builder.alloca(held)
        place, enter, rank, team, count, images, given = args[1:]
        for at, value in enumerate((rank, team, count, images, given, NUMBER(UNKNOWN))):
            builder.store(value, _field(builder, data, at))
        with builder.if_then(builder.icmp_signed("!=", place, WHOLE(0))):
            builder.store(place, known)
        with builder.if_then(builder.icmp_signed("!=", builder.load(known), WHOLE(0))):
            builder.store(NUMBER(DONE), _field(builder, data, 5))
            with builder.if_else(builder.icmp_signed(">", count, WHOLE(1))) as (several, alone):
                with several:
                    kind = ir.FunctionType(ir.VoidType(), [come.type, PLACE, NUMBER, NUMBER]).as_pointer()
                    size = builder.trunc(count, NUMBER)
                    builder.call(builder.inttoptr(enter, kind), [come, builder.bitcast(data, PLACE), size, NUMBER(0)])
                with alone:
                    builder.call(one, [data, WHOLE(0), WHOLE(1)])
        return builder.sext(builder.load(_field(builder, data, 5)), WHOLE)

    return types.intp(walk, *[types.intp] * 6, arguments), build


WHOLE, NUMBER, PLACE = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()


def _field(builder: Any, data: Any, place: int) -> Any:
    return builder.gep(data, [NUMBER(0), NUMBER(place)], inbounds=True)


def _function(builder: Any, name: str, kinds: list[Any], body: Callable[..., None]) -> Any:
    """Return a function without a result, beside the one that is being built."""
    name = builder.module.get_unique_name(f"{builder.function.name}.{name}")
    made = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
    made.linkage = "internal"
    b = ir.IRBuilder(made.append_basic_block("entry"))
    body(b, *made.args)
    b.ret_void()
    return made


# ---------------------------------------------------------------------- runtimes


class Runtime(NamedTuple):
    """Addresses of C functions: one that calls ``entry(data)`` on some threads of a team and returns when all have
    returned (GCC's ``GOMP_parallel``: entry, data, how many, flags), and two that a thread asks for its number and how
    many there are."""

    enter: int
    rank: int
    team: int


def _runtime() -> Runtime:
    return _openmp() or _pool()


@cache
def _openmp() -> Runtime | None:
    """Return PyTorch's own runtime, None if it has none of this kind."""
    if not torch.backends.openmp.is_available():
        return None
    try:
        library = ctypes.CDLL(torch._C.__file__)
        found = (library.GOMP_parallel, library.omp_get_thread_num, library.omp_get_num_threads)
    except (OSError, AttributeError):
        return None
    return Runtime(*(_address(function) for function in found))


_SELF = threading.local()
_POOLS: dict[int, ThreadPoolExecutor] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOLS.clear)  # in a forked process the threads are not there any more

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
        except RuntimeError:  # no more threads can be started; nothing may be raised through compiled code
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
