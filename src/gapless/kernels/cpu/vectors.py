"""Short vectors of numbers and register tiles as values in compiled functions.

A compiler finds vector instructions in plain loops only where it can prove much; here they are
written explicitly. Inside a function that Numba compiles, ``load(array, index, v)`` is a value of
``v.count`` numbers, and the other functions below compute with such values. Called from Python they
raise.

A *tile* is rows by columns of vectors: sums that stay in registers. Its sides, and the sides of a
kernel, are literals in the code, so that each pixel is loaded once for all the sums that use it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from llvmlite import ir
from numba import from_dtype
from numba.core import cgutils, types
from numba.extending import NativeValue, intrinsic, models, register_model, unbox
from numba.np.arrayobj import populate_array


class Vector:
    """The vectors of a compiled function: precision and how many numbers a vector holds. Functions
    take one as their last argument, ``v``, and are compiled once for each.

    ``wide``: whether the processor has 32 vector registers, which hold 16 sums and what is added to
    them; 16 hold 12.
    """

    def __init__(self, dtype: Any, count: int, wide: bool) -> None:
        self.dtype, self.count, self.wide = np.dtype(dtype), count, wide
        self._numba_type_ = VectorType(from_dtype(self.dtype), count, wide)

    def __repr__(self) -> str:
        return f"Vector({self.dtype}, {self.count}, {self.wide})"


def _stamp() -> int:
    """Return a checksum of the sources that compiled functions are made of. Numba's cache on disk
    is keyed by the file that a function stands in and the types of its arguments; a function that
    it calls from another file may have changed since."""
    here = Path(__file__)
    names = ("vectors.py", "declare.py", "loops.py")
    return crc32(b"".join(here.with_name(name).read_bytes() for name in names if here.with_name(name).exists()))


def opaque(kind: type[types.Type]) -> type[types.Type]:
    """Let Python pass values of a type that carries all information in the type itself."""
    register_model(kind)(models.OpaqueModel)
    unbox(kind)(lambda typ, obj, c: NativeValue(c.context.get_dummy_value()))
    return kind


@opaque
class VectorType(types.Type):
    """Numba's type of a :class:`Vector`."""

    STAMP = _stamp()

    def __init__(self, dtype: types.Float, count: int, wide: bool) -> None:
        self.dtype, self.count, self.wide = dtype, count, wide
        super().__init__(name=f"Vector({dtype}, {count}, {wide}, {self.STAMP})")


class TileType(types.Type):
    """Numba's type of a tile."""

    def __init__(self, dtype: types.Float, count: int, rows: int, cols: int) -> None:
        self.dtype, self.count, self.rows, self.cols = dtype, count, rows, cols
        super().__init__(name=f"Tile({dtype}, {count}, {rows}, {cols})")


class ValueType(types.Type):
    """Numba's type of a vector's value."""

    def __init__(self, dtype: types.Float, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Value({dtype}, {count})")


@register_model(ValueType)
class _ValueModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: ValueType) -> None:
        super().__init__(manager, kind, _vector(kind))


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: TileType) -> None:
        super().__init__(manager, kind, ir.ArrayType(_vector(kind), kind.rows * kind.cols))


def _vector(kind: ValueType | TileType) -> Any:
    return ir.VectorType(ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType(), kind.count)


def _pointer(context: Any, builder: Any, sig: Any, args: Any, kind: types.Type) -> Any:
    array = context.make_array(sig.args[0])(context, builder, args[0])
    address = builder.gep(array.data, [args[1]])
    return builder.bitcast(address, context.get_value_type(kind).as_pointer())


def _bytes(array: types.Array) -> int:
    return int(array.dtype.bitwidth) // 8


def _broadcast(builder: Any, x: Any, count: int) -> Any:
    vector, index = ir.VectorType(x.type, count), ir.VectorType(ir.IntType(32), count)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(index, [0] * count))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    name = f"llvm.fma.v{a.type.count}{'f32' if a.type.element == ir.FloatType() else 'f64'}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


@intrinsic
def size(typing: Any, v: Any) -> Any:
    """``size(v)``: how many numbers a vector holds, a constant to the compiler."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, v.count)

    return types.intp(v), build


@intrinsic
def wide(typing: Any, v: Any) -> Any:
    """``wide(v)``: whether registers hold 16 sums, a constant to the compiler."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.boolean, v.wide)

    return types.boolean(v), build


def _array_at(context: Any, builder: Any, kind: types.Array, address: Any, length: Any) -> Any:
    """Build an array of one axis over memory that somebody else owns."""
    array = context.make_array(kind)(context, builder)
    size, pointer = context.get_constant(types.intp, _bytes(kind)), context.get_value_type(kind.dtype).as_pointer()
    data = builder.inttoptr(address, pointer)
    populate_array(array, data=data, shape=[length], strides=[size], itemsize=size, meminfo=None)
    return array._getvalue()


@intrinsic
def numbers_at(typing: Any, address: Any, length: Any, v: Any) -> Any:
    """``numbers_at(address, length, v)``: an array of the precision of v at an address."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _array_at(context, builder, sig.return_type, args[0], args[1])

    return types.Array(v.dtype, 1, "C")(types.intp, types.intp, v), build


def _buffer(kind: types.Array, buffers: Any, index: Any) -> Any:
    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        records = context.make_array(buffers)(context, builder, args[0]).data
        pair = builder.bitcast(records, ir.IntType(64).as_pointer())
        first = builder.mul(args[1], ir.Constant(ir.IntType(64), 2))
        second = builder.add(first, ir.Constant(ir.IntType(64), 1))
        address, length = (builder.load(builder.gep(pair, [place])) for place in (first, second))
        return _array_at(context, builder, kind, address, length)

    return kind, build


@intrinsic
def numbers(typing: Any, buffers: Any, index: Any, v: Any) -> Any:
    """``numbers(buffers, index, v)``: the array of the precision of v that a record of an address
    and a length names."""
    kind, build = _buffer(types.Array(v.dtype, 1, "C"), buffers, index)
    return kind(buffers, types.intp, v), build


@intrinsic
def doubles(typing: Any, buffers: Any, index: Any) -> Any:
    """``doubles(buffers, index)``: the same in double precision."""
    kind, build = _buffer(types.Array(types.float64, 1, "C"), buffers, index)
    return kind(buffers, types.intp), build


@intrinsic
def load(typing: Any, array: Any, index: Any, v: Any) -> Any:
    """``load(array, index, v)``: the vector that begins at ``index`` of an array of one axis."""
    kind = ValueType(array.dtype, v.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, sig, args, kind), align=_bytes(array))

    return kind(array, types.intp, v), build


@intrinsic
def store(typing: Any, array: Any, index: Any, x: Any) -> Any:
    """``store(array, index, x)``: write a vector, beginning at ``index``."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, sig, args, x), align=_bytes(array))
        return context.get_dummy_value()

    return types.void(array, types.intp, x), build


@intrinsic
def broadcast(typing: Any, array: Any, index: Any, v: Any) -> Any:
    """``broadcast(array, index, v)``: one number of an array in all elements."""
    kind = ValueType(array.dtype, v.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _broadcast(builder, builder.load(_pointer(context, builder, sig, args, array.dtype)), kind.count)

    return kind(array, types.intp, v), build


@intrinsic
def zero(typing: Any, array: Any, v: Any) -> Any:
    """``zero(array, v)``: zeros of the array's type."""
    kind = ValueType(array.dtype, v.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(kind), [0.0] * kind.count)

    return kind(array, v), build


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """``fma(a, b, c)``: a * b + c, rounded once."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _fma(builder, *args)

    return a(a, b, c), build


@intrinsic
def add(typing: Any, a: Any, b: Any) -> Any:
    """``add(a, b)``."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fadd(*args)

    return a(a, b), build


@intrinsic
def sub(typing: Any, a: Any, b: Any) -> Any:
    """``sub(a, b)``: a - b."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fsub(*args)

    return a(a, b), build


@intrinsic
def maximum(typing: Any, a: Any, b: Any) -> Any:
    """``maximum(a, b)``: the larger one; NaN if one of them is NaN."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        larger, none = builder.fcmp_ordered(">", args[1], args[0]), builder.fcmp_unordered("uno", args[1], args[1])
        return builder.select(builder.or_(larger, none), args[1], args[0])

    return a(a, b), build


@intrinsic
def equal(typing: Any, a: Any, b: Any) -> Any:
    """``equal(a, b)``: 1 where a equals b, else 0."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        one, none = (ir.Constant(args[0].type, [x] * a.count) for x in (1.0, 0.0))
        return builder.select(builder.fcmp_ordered("==", *args), one, none)

    return a(a, b), build


@intrinsic
def where_positive(typing: Any, condition: Any, a: Any) -> Any:
    """``where_positive(condition, a)``: a where the condition is positive or NaN, else 0."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        none = ir.Constant(args[0].type, [0.0] * a.count)
        return builder.select(builder.fcmp_unordered(">", args[0], none), args[1], none)

    return a(condition, a), build


@intrinsic
def to_double(typing: Any, a: Any) -> Any:
    """``to_double(a)``: a in double precision."""
    kind = ValueType(types.float64, a.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0] if a == kind else builder.fpext(args[0], context.get_value_type(kind))

    return kind(a), build


# ---------------------------------------------------------------------- tiles


class _Places:
    """Addresses of vectors and numbers of an array, counted from an index."""

    def __init__(self, context: Any, builder: Any, kind: types.Array, array: Any, index: Any) -> None:
        self.builder, self.data = builder, context.make_array(kind)(context, builder, array).data
        self.bytes, self.index = _bytes(kind), index

    def number(self, *steps: tuple[Any, int]) -> Any:
        """Return the address after ``count`` steps of each ``length``."""
        at = self.index
        for length, count in steps:
            if count:
                at = self.builder.add(at, self.builder.mul(length, ir.Constant(ir.IntType(64), count)))
        return self.builder.gep(self.data, [at])

    def _vector(self, kind: Any, *steps: tuple[Any, int]) -> Any:
        return self.builder.bitcast(self.number(*steps), kind.as_pointer())

    def load(self, kind: Any, *steps: tuple[Any, int]) -> Any:
        """Return the vector there."""
        return self.builder.load(self._vector(kind, *steps), align=self.bytes)

    def store(self, x: Any, *steps: tuple[Any, int]) -> None:
        """Write a vector there."""
        self.builder.store(x, self._vector(x.type, *steps), align=self.bytes)


@intrinsic(prefer_literal=True)
def tile(typing: Any, array: Any, rows: Any, cols: Any, v: Any) -> Any:
    """``tile(array, rows, cols, v)``: a tile of zeros of the array's type."""
    kind = TileType(array.dtype, v.count, rows.literal_value, cols.literal_value)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = context.get_value_type(kind)
        return ir.Constant(whole, [ir.Constant(whole.element, [0.0] * kind.count)] * whole.count)

    return kind(array, rows, cols, v), build


@intrinsic
def tile_add(typing: Any, a: Any, y: Any, j: Any, down: Any, right: Any) -> Any:
    """``tile_add(a, y, j, down, right)``: a tile plus the numbers of y from j on; its rows are
    ``down`` numbers apart, its columns ``right``."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole, array, index, below, beside = args
        places, vector = _Places(context, builder, y, array, index), _vector(a)
        for at in range(a.rows * a.cols):
            there = places.load(vector, (below, at // a.cols), (beside, at % a.cols))
            whole = builder.insert_value(whole, builder.fadd(builder.extract_value(whole, at), there), at)
        return whole

    return a(a, y, types.intp, types.intp, types.intp), build


@intrinsic
def tile_store(typing: Any, y: Any, j: Any, down: Any, right: Any, a: Any) -> Any:
    """``tile_store(y, j, down, right, a)``: write a tile to y, with the strides of
    :func:`tile_add`."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, index, below, beside, whole = args
        places = _Places(context, builder, y, array, index)
        for at in range(a.rows * a.cols):
            places.store(builder.extract_value(whole, at), (below, at // a.cols), (beside, at % a.cols))
        return context.get_dummy_value()

    return types.void(y, types.intp, types.intp, types.intp, a), build


@intrinsic
def tile_accumulate(typing: Any, out: Any, k: Any, down: Any, right: Any, a: Any) -> Any:
    """``tile_accumulate(out, k, down, right, a)``: add a tile to numbers of its own or of double
    precision."""
    kind = ValueType(out.dtype, a.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, index, below, beside, whole = args
        places, vector = _Places(context, builder, out, array, index), _vector(kind)
        for at in range(a.rows * a.cols):
            steps, x = ((below, at // a.cols), (beside, at % a.cols)), builder.extract_value(whole, at)
            x = x if a.dtype == out.dtype else builder.fpext(x, vector)
            places.store(builder.fadd(x, places.load(vector, *steps)), *steps)
        return context.get_dummy_value()

    return types.void(out, types.intp, types.intp, types.intp, a), build


@intrinsic
def tile_outer(typing: Any, a: Any, x: Any, i: Any, step: Any, w: Any, k: Any, v: Any) -> Any:
    """``tile_outer(a, x, i, step, w, k, v)``: a tile plus an outer product: numbers of x from i on,
    ``step`` apart, one per row, times vectors of w from k on, one per column."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole, numbers, index, apart, vectors, first, _ = args
        xs, ws = _Places(context, builder, x, numbers, index), _Places(context, builder, w, vectors, first)
        length = ir.Constant(ir.IntType(64), a.count)
        held = [ws.load(_vector(a), (length, col)) for col in range(a.cols)]
        for row in range(a.rows):
            e = _broadcast(builder, builder.load(xs.number((apart, row))), a.count)
            for at, t in enumerate(held, row * a.cols):
                whole = builder.insert_value(whole, _fma(builder, e, t, builder.extract_value(whole, at)), at)
        return whole

    return a(a, x, types.intp, types.intp, w, types.intp, v), build


@intrinsic(prefer_literal=True)
def tile_taps(typing: Any, a: Any, x: Any, i: Any, C: Any, w: Any, k: Any, K: Any, s: Any, d: Any, v: Any) -> Any:
    """``tile_taps(a, x, i, C, w, k, K, s, d, v)``: a tile of one column, whose rows are pixels,
    plus one row of a depthwise kernel: K weights times x at pixel ``row * s + kx * d`` after i,
    pixels being C numbers apart. K, s and d are literals."""
    side, stride, hop = (n.literal_value for n in (K, s, d))

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole, image, index, pixel, weights, first = args[:6]
        xs, ws = _Places(context, builder, x, image, index), _Places(context, builder, w, weights, first)
        held: dict[int, Any] = {}
        for kx in range(side):
            t = ws.load(_vector(a), (pixel, kx))
            for row in range(a.rows):
                place = row * stride + kx * hop
                if place not in held:
                    held[place] = xs.load(_vector(a), (pixel, place))
                whole = builder.insert_value(
                    whole, _fma(builder, held[place], t, builder.extract_value(whole, row)), row
                )
        return whole

    return a(a, x, types.intp, types.intp, w, types.intp, K, s, d, v), build


@intrinsic(prefer_literal=True)
def tile_taps_grad(
    typing: Any, a: Any, x: Any, i: Any, row: Any, C: Any, g: Any, j: Any, gap: Any, P: Any, v: Any
) -> Any:
    """``tile_taps_grad(a, x, i, row, C, g, j, gap, P, v)``: a tile of rows and columns of a
    depthwise kernel, plus the weight gradient of P pixels of g from j on, ``gap`` numbers apart:
    times x at pixel ``p + kx`` after i, pixels being C numbers apart and rows ``row``. P is a
    literal."""
    pixels = P.literal_value

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole, image, index, below, pixel, gradient, first, apart = args[:8]
        xs, gs = _Places(context, builder, x, image, index), _Places(context, builder, g, gradient, first)
        own = [gs.load(_vector(a), (apart, p)) for p in range(pixels)]
        for ky in range(a.rows):
            held = [xs.load(_vector(a), (below, ky), (pixel, place)) for place in range(pixels + a.cols - 1)]
            for p, kx in ((p, kx) for p in range(pixels) for kx in range(a.cols)):
                at = ky * a.cols + kx
                whole = builder.insert_value(
                    whole, _fma(builder, held[p + kx], own[p], builder.extract_value(whole, at)), at
                )
        return whole

    return a(a, x, types.intp, types.intp, types.intp, g, types.intp, types.intp, P, v), build
