"""Attention of one large system on the CPU, tile by tile, compiled by Numba for the host's vectors.

The running maximum of Milakov & Gimelshein (2018), "Online normalizer calculation for softmax", in the tiling
of Dao et al. (2022), "FlashAttention". Queries lie along the vector lanes, so the softmax is elementwise; the
two products hold ROWS × VECTORS vectors of sums in registers. No rounding depends on the place in memory.
"""

# pyright: reportCallIssue=false
# (an intrinsic is called without the typing context, its first parameter)

import math

import numpy as np
from llvmlite import binding, ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

ROWS = 4
VECTOR_BYTES, VECTORS = (64, 4) if binding.get_host_cpu_features().get("avx512f") else (32, 2)
KEYS = 128  # per tile: its scores and its keys stay in the nearest caches
# log 2 in two parts, the first so short that its multiples by an exponent are exact
_LOG_2 = {32: (355 / 512, -2.1219444005469057e-4), 64: (0x162E42FEE / 2**33, 1.9082149292705877e-10)}
_ZERO_32 = ir.Constant(ir.IntType(32), 0)


@intrinsic
def _add_product(_, c, a, b, row, fresh):
    """c[row : row + ROWS] = a[row : row + ROWS] @ b, added to what is there unless ``fresh``.

    c and b are as wide as one tile of lanes.
    """
    size = c.dtype.bitwidth // 8
    width = VECTOR_BYTES // size

    def codegen(context, builder, sig, args):
        arrays = [
            make_array(kind)(context, builder, arg) for kind, arg in zip((c, a, b), args[:3], strict=True)
        ]
        vector = ir.VectorType(context.get_data_type(c.dtype), width)
        zero, undefined = ir.Constant(vector, [0.0] * width), ir.Constant(vector, ir.Undefined)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), width), [0] * width)

        def pointer(which, i, j):
            return cgutils.get_item_pointer(context, builder, sig.args[which], arrays[which], [i, j])

        def lanes(which, i, v):
            first = pointer(which, i, context.get_constant(types.intp, v * width))
            return builder.bitcast(first, vector.as_pointer())

        def multiply_add(x, y, z):
            return builder.fadd(builder.fmul(x, y, flags=["contract"]), z, flags=["contract"])

        rows = [builder.add(args[3], context.get_constant(types.intp, i)) for i in range(ROWS)]
        sums = [[cgutils.alloca_once_value(builder, zero) for _ in range(VECTORS)] for _ in rows]
        with cgutils.for_range(builder, cgutils.unpack_tuple(builder, arrays[2].shape)[0]) as loop:
            right = [builder.load(lanes(2, loop.index, v), align=size) for v in range(VECTORS)]
            for i, own in zip(rows, sums, strict=True):
                one = builder.insert_element(undefined, builder.load(pointer(1, i, loop.index)), _ZERO_32)
                left = builder.shuffle_vector(one, undefined, everywhere)
                for other, total in zip(right, own, strict=True):
                    builder.store(multiply_add(left, other, builder.load(total)), total)
        for i, own in zip(rows, sums, strict=True):
            for v, total in enumerate(own):
                before = builder.select(args[4], zero, builder.load(lanes(0, i, v), align=size))
                builder.store(builder.fadd(before, builder.load(total)), lanes(0, i, v), align=size)
        return context.get_dummy_value()

    return types.void(c, a, b, row, fresh), codegen


@intrinsic
def _exp(_, x):
    """eˣ for x ≤ 0 to about a unit in the last place; 0 where that would be below the normal numbers.

    x = i log 2 + r, the integer i in the lowest bits of x/log 2 + 1.5·2^mantissa, and eʳ by Taylor's sum.
    """
    bits, mantissa, lowest, degree = (32, 23, -87.0, 7) if x == types.float32 else (64, 52, -708.0, 13)
    high, low = _LOG_2[bits]

    def codegen(context, builder, sig, args):
        real, whole, (power,) = context.get_data_type(x), ir.IntType(bits), args

        def multiply_add(a, b, c):
            a, c = (part if isinstance(part, ir.Value) else ir.Constant(real, part) for part in (a, c))
            return builder.fadd(builder.fmul(a, b, flags=["contract"]), c, flags=["contract"])

        magic = ir.Constant(real, 1.5 * 2.0**mantissa)
        shifted = multiply_add(1 / math.log(2), power, magic)
        i = builder.fsub(shifted, magic)
        rest = multiply_add(-low, i, multiply_add(-high, i, power))
        total = ir.Constant(real, 1 / math.factorial(degree))
        for k in reversed(range(degree)):
            total = multiply_add(total, rest, 1 / math.factorial(k))
        exponent = builder.shl(builder.bitcast(shifted, whole), ir.Constant(whole, mantissa))
        result = builder.bitcast(builder.add(builder.bitcast(total, whole), exponent), real)
        small = builder.fcmp_ordered("<", power, ir.Constant(real, lowest))
        return builder.select(small, ir.Constant(real, 0.0), result)

    return x(x), codegen


@njit(cache=True)
def tile_width(itemsize):
    """Queries in a tile, for numbers of so many bytes."""
    return VECTORS * VECTOR_BYTES // itemsize


@njit
def _mask(scores, bias, scale, causal, first, low, n):
    """Adds the bias to scores of keys low … by queries first …; hides j ≥ n, and j > i if causal."""
    keys, lanes = scores.shape
    if bias.size:
        for lane in range(min(lanes, n - first)):
            for j in range(min(keys, n - low)):
                scores[j, lane] += bias[first + lane, low + j] / scale[lane]
    visible = min(first, n) if causal else n  # keys before this are seen by all
    for j in range(max(0, visible - low), keys):
        for lane in range(lanes):
            if low + j >= n or (causal and low + j > first + lane):
                scores[j, lane] = -np.inf


@njit
def _weigh(scores, scale, unit, largest, total, fade):
    """Turns scores into weights e^(score − largest) of the given unit, with largest and total up to here.

    fade is what weights to an earlier largest are to be multiplied by.
    """
    higher, part = largest.copy(), np.zeros_like(total)
    for j in range(len(scores)):
        for lane in range(len(scale)):
            higher[lane] = max(higher[lane], scores[j, lane])
    for lane in range(len(scale)):
        fade[lane] = _exp((largest[lane] - higher[lane]) * scale[lane])
    for j in range(len(scores)):
        for lane in range(len(scale)):
            scores[j, lane] = _exp((scores[j, lane] - higher[lane]) * scale[lane]) * unit
            part[lane] += scores[j, lane]
    for lane in range(len(scale)):
        total[lane] = total[lane] * fade[lane] + part[lane]
        largest[lane] = higher[lane]


@njit(nogil=True, cache=True)
def attend(queries, keys, values, scale, bias, causal, out, start, stop):
    """Rows start … stop of out (n, c): Σ_j P_ij values_j with P = softmax_j of (q_i · k_j) scale_i + bias_ij.

    queries (n, r), scale (n,), bias (n, n) or empty. keys (m, r) and values (m, c') are padded with zeros to
    multiples of ROWS, m ≥ n and c' ≥ c. ``causal`` hides j > i. Maxima are taken before scores are scaled.
    """
    real, (n, r), (padded, width) = queries.dtype, queries.shape, values.shape
    lanes = tile_width(queries.itemsize)
    unit = real.type(2.0 ** -math.ceil(math.log2(n)))  # weights up to 1/n: no sum exceeds its values
    query, scores = np.zeros((r, lanes), real), np.empty((KEYS, lanes), real)
    mean, size = np.empty((width, lanes), real), np.zeros(lanes, real)
    largest, total, fade = np.empty_like(size), np.empty_like(size), np.empty_like(size)
    for first in range(start, stop, lanes):
        rows = min(lanes, stop - first)
        for lane in range(rows):
            size[lane] = scale[first + lane]
            for k in range(r):
                query[k, lane] = queries[first + lane, k]
        largest.fill(-np.finfo(real).max)
        total.fill(0)
        mean.fill(0)
        for low in range(0, min(first + lanes, n) if causal else n, KEYS):
            high = min(low + KEYS, padded)
            tile = scores[: high - low]
            for j in range(0, high - low, ROWS):
                _add_product(tile, keys[low:high], query, j, True)
            _mask(tile, bias, size, causal, first, low, n)
            _weigh(tile, size, unit, largest, total, fade)
            for c in range(width):
                for lane in range(lanes):
                    mean[c, lane] *= fade[lane]
            for c in range(0, width, ROWS):
                _add_product(mean, values[low:high].T, tile, c, False)
        for lane in range(rows):
            for c in range(out.shape[1]):
                out[first + lane, c] = mean[c, lane] / total[lane]
