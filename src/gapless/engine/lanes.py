"""Short vectors of numbers as values in compiled functions: what one instruction of the processor computes at once.

A compiler finds such vectors in plain loops only where it can prove much; here they are written. Inside a function that
Numba compiles, ``load(array, index, v)`` is a value of ``v.count`` numbers, and the other functions below compute with
such values. Called from Python they raise.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import NativeValue, intrinsic, models, register_model, unbox


class Width:
    """How many numbers a vector holds; a value that is handed to compiled functions, which are compiled for each.

    ``paired``: whether the processor's registers hold the sums of two tiles of eight vectors at once.
    """

    def __init__(self, count: int, paired: bool) -> None:
        self.count, self.paired = count, paired
        self._numba_type_ = WidthType(count, paired)


class WidthType(types.Type):
    """The compiler's type of a :class:`Width`."""

    def __init__(self, count: int, paired: bool) -> None:
        self.count, self.paired = count, paired
        super().__init__(name=f"Width({count}, {paired})")


class LanesType(types.Type):
    """The compiler's type of a vector."""

    def __init__(self, dtype: types.Float, count: int) -> None:
        self.dtype, self.count = dtype, count
        super().__init__(name=f"Lanes({dtype}, {count})")


@register_model(WidthType)
class _WidthModel(models.OpaqueModel):
    pass


@unbox(WidthType)
def _unbox_width(typ: WidthType, obj: Any, c: Any) -> NativeValue:
    return NativeValue(c.context.get_dummy_value())


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: LanesType) -> None:
        element = ir.FloatType() if kind.dtype == types.float32 else ir.DoubleType()
        super().__init__(manager, kind, ir.VectorType(element, kind.count))


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


@intrinsic
def size(typing: Any, v: Any) -> Any:
    """``size(v)``: how many numbers a vector holds, known to the compiler."""

    def build(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return context.get_constant(types.intp, v.count)

    return types.intp(v), build


@intrinsic
def paired(typing: Any, v: Any) -> Any:
    """``paired(v)``: whether registers hold two tiles, known to the compiler."""

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
        vector = args[0].type
        name = f"llvm.fma.v{a.count}{'f32' if a.dtype == types.float32 else 'f64'}"
        return builder.call(
            cgutils.get_or_insert_function(builder.module, ir.FunctionType(vector, [vector] * 3), name), args
        )

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
