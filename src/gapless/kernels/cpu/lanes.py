"""Short vectors of numbers as values in compiled functions: what one instruction of the processor computes at once.

A compiler finds such vectors in plain loops only where it can prove much; here they are written. Inside a function that
Numba compiles, ``load(array, index, v)`` is a value of ``v.count`` numbers, and the other functions below compute with
such values. Called from Python they raise.

A *tile* is rows by columns of vectors, sums that stay in registers. Its sides, and the sides of a kernel, are whole
numbers written in the code, so that each pixel is loaded once for all the sums that it has a part in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import NativeValue, intrinsic, models, register_model, unbox


class Width:
    """How many numbers a vector holds; a value that is handed to compiled functions, which are compiled for each.

    ``paired``: whether the processor has 32 registers, which hold 16 sums and what is added to them; 16 hold 12.
    """

    def __init__(self, count: int, paired: bool) -> None:
        self.count, self.paired = count, paired
        self._numba_type_ = WidthType(count, paired)


def _stamp() -> int:
    """Return what these sources are known by. What is compiled is kept on disk by the file that it stands in and by the
    types that it is given; what it calls in another file may have changed since."""
    here = Path(__file__)
    return crc32(b"".join(here.with_name(name).read_bytes() for name in ("lanes.py", "loops.py") if here.exists()))


def opaque(kind: type[types.Type]) -> type[types.Type]:
    """Let Python hand over values of a type that say all they say by their type."""
    register_model(kind)(models.OpaqueModel)
    unbox(kind)(lambda typ, obj, c: NativeValue(c.context.get_dummy_value()))
    return kind


@opaque
class WidthType(types.Type):
    """The compiler's type of a :class:`Width`."""

    STAMP = _stamp()

    def __init__(self, count: int, paired: bool) -> None:
        self.count, self.paired = count, paired
        super().__init__(name=f"Width({count}, {paired}, {self.STAMP})")


class TileType(types.Type):
    """The compiler's type of a tile."""

    def __init__(self, dtype: types.Float, count: int, rows: int, cols: int) -> None:
        self.dtype, self.count, self.rows, self.cols = dtype, count, rows, cols
        super().__init__(name=f"Tile({dtype}, {count}, {rows}, {cols})")


class LanesType(types.Type):
    """The compiler's type of a vector."""

    def __init__(self, dtype: types.Float, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype}, {count})")


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: LanesType) -> None:
        super().__init__(manager, kind, _vector(kind))


@register_model(TileType)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: TileType) -> None:
        super().__init__(manager, kind, ir.ArrayType(_vector(kind), kind.rows * kind.cols))


def _vector(kind: LanesType | TileType) -> Any:
    return ir.VectorType(ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType(), kind.count)


def _pointer(context: Any, builder: Any, sig: Any, args: Any, kind: types.Type) -> Any:
    array = context.make_array(sig.args[0])(context, builder, args[0])
    address = builder.gep(array.data, [args[1]])
    return builder.bitcast(address, context.get_value_type(kind).as_pointer())


def _bytes(array: types.Array) -> int:
    return int(array.dtype.bitwidth) // 8


def _filled(builder: Any, x: Any, count: int) -> Any:
    vector, index = ir.VectorType(x.type, count), ir.VectorType(ir.IntType(32), count)
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(vector, ir.Undefined), ir.Constant(index, [0] * count))


def _fma(builder: Any, a: Any, b: Any, c: Any) -> Any:
    name = f"llvm.fma.v{a.type.count}{'f32' if a.type.element == ir.FloatType() else 'f64'}"
    kind = ir.FunctionType(a.type, [a.type] * 3)
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [a, b, c])


@intrinsic
def size(typing: Any, v: Any) -> Any:
    """``size(v)``: how many numbers a vector holds, known to the compiler."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, v.count)

    return types.intp(v), build


@intrinsic
def paired(typing: Any, v: Any) -> Any:
    """``paired(v)``: whether registers hold 16 sums, known to the compiler."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.boolean, v.paired)

    return types.boolean(v), build


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """``pointer(address)``: an address as Numba's ``carray`` takes it."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), build


@intrinsic
def load(typing: Any, array: Any, index: Any, v: Any) -> Any:
    """``load(array, index, v)``: the numbers from ``index`` on of an array of one axis."""
    kind = LanesType(array.dtype, v.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, sig, args, kind), align=_bytes(array))

    return kind(array, types.intp, v), build


@intrinsic
def store(typing: Any, array: Any, index: Any, x: Any) -> Any:
    """``store(array, index, x)``: write the numbers of x from ``index`` on."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, sig, args, x), align=_bytes(array))
        return context.get_dummy_value()

    return types.void(array, types.intp, x), build


@intrinsic
def splat(typing: Any, array: Any, index: Any, v: Any) -> Any:
    """``splat(array, index, v)``: one number of an array in all places."""
    kind = LanesType(array.dtype, v.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _filled(builder, builder.load(_pointer(context, builder, sig, args, array.dtype)), kind.count)

    return kind(array, types.intp, v), build


@intrinsic
def zero(typing: Any, array: Any, v: Any) -> Any:
    """``zero(array, v)``: zeros of the array's type."""
    kind = LanesType(array.dtype, v.count)

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
def most(typing: Any, a: Any, b: Any) -> Any:
    """``most(a, b)``: the larger one; if one of them is not a number, that."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        larger, none = builder.fcmp_ordered(">", args[1], args[0]), builder.fcmp_unordered("uno", args[1], args[1])
        return builder.select(builder.or_(larger, none), args[1], args[0])

    return a(a, b), build


@intrinsic
def same(typing: Any, a: Any, b: Any) -> Any:
    """``same(a, b)``: 1 where a equals b, else 0."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        one, none = (ir.Constant(args[0].type, [x] * a.count) for x in (1.0, 0.0))
        return builder.select(builder.fcmp_ordered("==", *args), one, none)

    return a(a, b), build


@intrinsic
def where(typing: Any, condition: Any, a: Any) -> Any:
    """``where(condition, a)``: a where the condition is more than 0 (or not a number), else 0."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        none = ir.Constant(args[0].type, [0.0] * a.count)
        return builder.select(builder.fcmp_unordered(">", args[0], none), args[1], none)

    return a(condition, a), build


@intrinsic
def double(typing: Any, a: Any) -> Any:
    """``double(a)``: in double precision."""
    kind = LanesType(types.float64, a.count)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return args[0] if a == kind else builder.fpext(args[0], context.get_value_type(kind))

    return kind(a), build


# ---------------------------------------------------------------------- tiles


class _Places:
    """Addresses of vectors and numbers of an array, from an index on."""

    def __init__(self, context: Any, builder: Any, kind: types.Array, array: Any, index: Any) -> None:
        self.builder, self.data = builder, context.make_array(kind)(context, builder, array).data
        self.bytes, self.index = _bytes(kind), index

    def number(self, *steps: tuple[Any, int]) -> Any:
        """Return the address behind so many steps of some lengths."""
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
    """``tile(array, rows, cols, v)``: zeros of the array's type, so many rows and columns of vectors."""
    kind = TileType(array.dtype, v.count, rows.literal_value, cols.literal_value)

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole = context.get_value_type(kind)
        return ir.Constant(whole, [ir.Constant(whole.element, [0.0] * kind.count)] * whole.count)

    return kind(array, rows, cols, v), build


@intrinsic
def plus(typing: Any, a: Any, y: Any, j: Any, down: Any, right: Any) -> Any:
    """``plus(a, y, j, down, right)``: a tile and what lies in y, a row ``down`` and a column ``right`` numbers on."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole, array, index, below, beside = args
        places, vector = _Places(context, builder, y, array, index), _vector(a)
        for at in range(a.rows * a.cols):
            there = places.load(vector, (below, at // a.cols), (beside, at % a.cols))
            whole = builder.insert_value(whole, builder.fadd(builder.extract_value(whole, at), there), at)
        return whole

    return a(a, y, types.intp, types.intp, types.intp), build


@intrinsic
def put(typing: Any, y: Any, j: Any, down: Any, right: Any, a: Any) -> Any:
    """``put(y, j, down, right, a)``: write a tile, a row ``down`` and a column ``right`` numbers on."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        array, index, below, beside, whole = args
        places = _Places(context, builder, y, array, index)
        for at in range(a.rows * a.cols):
            places.store(builder.extract_value(whole, at), (below, at // a.cols), (beside, at % a.cols))
        return context.get_dummy_value()

    return types.void(y, types.intp, types.intp, types.intp, a), build


@intrinsic
def into(typing: Any, out: Any, k: Any, down: Any, right: Any, a: Any) -> Any:
    """``into(out, k, down, right, a)``: add a tile to numbers of its own precision, or of double precision."""
    kind = LanesType(out.dtype, a.count)

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
def outer(typing: Any, a: Any, x: Any, i: Any, step: Any, w: Any, k: Any, v: Any) -> Any:
    """``outer(a, x, i, step, w, k, v)``: a tile, and the products of numbers of x, ``step`` apart from i on, one a row,
    with the vectors of w from k on, one a column."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        whole, numbers, index, apart, vectors, first, _ = args
        xs, ws = _Places(context, builder, x, numbers, index), _Places(context, builder, w, vectors, first)
        length = ir.Constant(ir.IntType(64), a.count)
        held = [ws.load(_vector(a), (length, col)) for col in range(a.cols)]
        for row in range(a.rows):
            e = _filled(builder, builder.load(xs.number((apart, row))), a.count)
            for at, t in enumerate(held, row * a.cols):
                whole = builder.insert_value(whole, _fma(builder, e, t, builder.extract_value(whole, at)), at)
        return whole

    return a(a, x, types.intp, types.intp, w, types.intp, v), build


@intrinsic(prefer_literal=True)
def taps(typing: Any, a: Any, x: Any, i: Any, C: Any, w: Any, k: Any, K: Any, s: Any, d: Any, v: Any) -> Any:
    """``taps(a, x, i, C, w, k, K, s, d, v)``: a tile of one column, whose rows are pixels, and a row of K weights times
    what lies under them: x at pixel ``row * s + kx * d`` behind i, of C numbers each. K, s and d are written out."""
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
def taps_back(typing: Any, a: Any, x: Any, i: Any, row: Any, C: Any, g: Any, j: Any, gap: Any, P: Any, v: Any) -> Any:
    """``taps_back(a, x, i, row, C, g, j, gap, P, v)``: a tile of rows and columns of a kernel, and what P pixels of g
    add to it, ``gap`` numbers apart from j on: times x at pixel ``p + kx`` behind i, of C numbers each, ``row`` numbers
    on for each row. P is written out."""
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
