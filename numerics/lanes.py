"""Vectors of eight float64 numbers, one system in each lane, for code that Numba compiles.

Numba has no vector type; this adds ``Vector`` and ``Mask`` with the operations that the integrator needs,
each lowered to one LLVM vector instruction or intrinsic. LLVM maps eight lanes to the registers at hand (one
of AVX-512, two of AVX, four of SSE or NEON). Nothing is reordered or contracted, so a lane's bits depend on
that lane alone. A number meets a vector through ``fill``.
"""

# pyright: reportOptionalCall=false
# (Numba's decorators are not typed)

import math
import operator

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import NativeValue, intrinsic, models, register_model, typeof_impl, unbox

LANES = 8
fast = njit(forceinline=True, error_model="numpy")
_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_LONGS = ir.VectorType(ir.IntType(64), LANES)
_BITS = ir.VectorType(ir.IntType(1), LANES)


class Vector(types.Type):
    """Eight float64."""


class Mask(types.Type):
    """Eight truth values."""


vector, mask = Vector(name="Vector"), Mask(name="Mask")


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _DOUBLES)


@register_model(Mask)
class _MaskModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _BITS)


def _longs(value: int) -> ir.Constant:
    return ir.Constant(_LONGS, [value] * LANES)


def _operator(symbol, emit, operands, result):
    """Teach Numba an infix operator on two vectors or two masks."""

    @infer_global(symbol)
    class _Typing(AbstractTemplate):
        def generic(self, args, kws):
            return signature(result, operands, operands) if tuple(args) == (operands, operands) else None

    @lower_builtin(symbol, operands, operands)
    def _lowering(context, builder, sig, args):
        return emit(builder, *args)


for _symbol, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _operator(_symbol, lambda builder, a, b, name=_name: getattr(builder, name)(a, b), vector, vector)
for _symbol, _name in ((operator.lt, "<"), (operator.le, "<="), (operator.gt, ">"), (operator.ge, ">=")):
    _operator(_symbol, lambda builder, a, b, name=_name: builder.fcmp_ordered(name, a, b), vector, mask)
_operator(operator.and_, lambda builder, a, b: builder.and_(a, b), mask, mask)
_operator(operator.or_, lambda builder, a, b: builder.or_(a, b), mask, mask)


def _function(*arguments, result, emit):
    """A function of vectors, masks or numbers, from the code that emits its instructions."""
    typed = result(*arguments), lambda context, builder, sig, args: emit(builder, *args)
    by_arity = {
        1: lambda context, a: typed,
        2: lambda context, a, b: typed,
        3: lambda context, a, b, c: typed,
    }
    return intrinsic(by_arity[len(arguments)])


def _llvm(name):
    """Emit a call to an LLVM intrinsic on vectors."""

    def emit(builder, *args):
        kind = ir.FunctionType(_DOUBLES, [_DOUBLES] * len(args))
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v8f64"), args)

    return emit


def _fill(builder, number):
    one = builder.insert_element(ir.Constant(_DOUBLES, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(one, ir.Constant(_DOUBLES, ir.Undefined), zeros)


def _scaled(builder, a, k):
    """a · 2^i where k = MAGIC + i holds i in its lowest bits."""
    exponent = builder.shl(builder.bitcast(k, _LONGS), _longs(52))
    return builder.bitcast(builder.add(builder.bitcast(a, _LONGS), exponent), _DOUBLES)


def _exponent(builder, a):
    """The unbiased exponent of positive normal numbers, as float64."""
    bits = builder.lshr(builder.bitcast(a, _LONGS), _longs(52))
    return builder.fsub(
        builder.bitcast(builder.or_(bits, _longs(0x4330000000000000)), _DOUBLES),
        ir.Constant(_DOUBLES, [2.0**52 + 1023] * LANES),
    )


def _mantissa(builder, a):
    """The mantissa in [1, 2) of positive normal numbers."""
    bits = builder.and_(builder.bitcast(a, _LONGS), _longs(0x000FFFFFFFFFFFFF))
    return builder.bitcast(builder.or_(bits, _longs(0x3FF0000000000000)), _DOUBLES)


def _any(builder, a):
    return builder.icmp_unsigned(
        "!=", builder.bitcast(a, ir.IntType(LANES)), ir.Constant(ir.IntType(LANES), 0)
    )


fill = _function(types.float64, result=vector, emit=_fill)
fma = _function(vector, vector, vector, result=vector, emit=_llvm("fma"))  # a·b + c, rounded once
absolute = _function(vector, result=vector, emit=_llvm("fabs"))
ceiling = _function(vector, result=vector, emit=_llvm("ceil"))
root = _function(vector, result=vector, emit=_llvm("sqrt"))
# Of a NaN and a number, the second argument, which is how the machine's own instruction behaves.
maximum = _function(
    vector, vector, result=vector, emit=lambda b, x, y: b.select(b.fcmp_ordered(">", x, y), x, y)
)
minimum = _function(
    vector, vector, result=vector, emit=lambda b, x, y: b.select(b.fcmp_ordered("<", x, y), x, y)
)
where = _function(mask, vector, vector, result=vector, emit=lambda b, m, x, y: b.select(m, x, y))
negate = _function(mask, result=mask, emit=lambda b, m: b.not_(m))
some = _function(mask, result=types.boolean, emit=_any)
_scale = _function(vector, vector, result=vector, emit=_scaled)
_binary_exponent = _function(vector, result=vector, emit=_exponent)
_significand = _function(vector, result=vector, emit=_mantissa)


class Rows:
    """Vectors in a row, zero at first: ``array`` (count, LANES) to Python, a bare address to compiled code.

    Compiled code does not count references to it, so the object must outlive the call.
    """

    def __init__(self, count: int):
        buffer = np.zeros((count + 1) * LANES)
        start = (-buffer.ctypes.data // 8) % LANES  # the 64-byte boundary that ``load`` and ``store`` rely on
        self.array = buffer[start : start + count * LANES].reshape(count, LANES)
        self.address = self.array.ctypes.data


class _RowsType(types.Type):
    """``Rows``; a[i, lane] is one number."""


rows = _RowsType(name="Rows")


@register_model(_RowsType)
class _RowsModel(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.DoubleType().as_pointer())


@typeof_impl.register(Rows)
def _typeof_rows(value, context):
    return rows


@unbox(_RowsType)
def _unbox_rows(kind, value, context):
    address = context.pyapi.object_getattr_string(value, "address")
    pointer = context.builder.inttoptr(context.pyapi.number_as_ssize_t(address), ir.DoubleType().as_pointer())
    context.pyapi.decref(address)
    return NativeValue(pointer)


def _vector_at(builder, pointer, row):
    first = builder.gep(pointer, [builder.mul(row, ir.Constant(ir.IntType(64), LANES))])
    return builder.bitcast(first, _DOUBLES.as_pointer())


def _number_at(context, builder, pointer, place):
    row, lane = cgutils.unpack_tuple(builder, place)
    return builder.gep(
        pointer, [builder.add(builder.mul(row, context.get_constant(types.intp, LANES)), lane)]
    )


_PLACE = types.UniTuple(types.intp, 2)
load = _function(  # one row as a vector
    rows,
    types.intp,
    result=vector,
    emit=lambda builder, a, row: builder.load(_vector_at(builder, a, row), align=8 * LANES),
)


@intrinsic
def store(context, array, row, value):
    """Set one row to a vector."""

    def emit(context, builder, sig, args):
        builder.store(args[2], _vector_at(builder, *args[:2]), align=8 * LANES)
        return context.get_dummy_value()

    return types.void(rows, types.intp, vector), emit


@infer_global(operator.getitem)
class _GetItem(AbstractTemplate):
    def generic(self, args, kws):
        return signature(types.float64, rows, _PLACE) if args[0] == rows else None


@infer_global(operator.setitem)
class _SetItem(AbstractTemplate):
    def generic(self, args, kws):
        return signature(types.void, rows, _PLACE, types.float64) if args[0] == rows else None


@lower_builtin(operator.getitem, _RowsType, _PLACE)
def _get_number(context, builder, sig, args):
    return builder.load(_number_at(context, builder, *args))


@lower_builtin(operator.setitem, _RowsType, _PLACE, types.float64)
def _set_number(context, builder, sig, args):
    builder.store(args[2], _number_at(context, builder, *args[:2]))
    return context.get_dummy_value()


MAGIC = 1.5 * 2.0**52  # adding it rounds to an integer, held in the lowest bits
_LOG2_HIGH, _LOG2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # fdlibm's split of log 2
_TAYLOR = tuple(1 / math.factorial(k) for k in range(13))


@fast
def exp(x):
    """eˣ to about one unit in the last place for x ≤ 709; below −708 it is e⁻⁷⁰⁸."""
    x = maximum(fill(-708.0), x)  # in this order, NaN stays NaN
    k = fma(x, fill(1 / math.log(2)), fill(MAGIC))
    whole = k - fill(MAGIC)
    rest = fma(whole, fill(-_LOG2_LOW), fma(whole, fill(-_LOG2_HIGH), x))
    total = fill(_TAYLOR[12])
    for i in range(11, -1, -1):
        total = fma(total, rest, fill(_TAYLOR[i]))
    return _scale(total, k)


@fast
def rough_log(x):
    """log x of positive normal numbers, to about 1e-6: enough to choose a step."""
    m = _significand(x)
    q = (m - fill(math.sqrt(2))) / (m + fill(math.sqrt(2)))  # log(m/√2) = 2 artanh q, |q| ≤ 0.172
    s = q * q
    series = fma(fma(s, fill(2 / 5), fill(2 / 3)), s, fill(2.0))
    return fma(_binary_exponent(x) + fill(0.5), fill(math.log(2)), q * series)
