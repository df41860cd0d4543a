"""The velocity of eight systems at a time, one in each lane: ``radial.slope`` written for Numba.

The same source runs with the sizes as numbers known when it is compiled, which lets LLVM unroll the loops, or
as arguments; the order of operations, and so every bit, is the same.
"""

from typing import NamedTuple

import numpy as np
from numba import types
from numba.core.imputils import lower_getattr_generic
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import NativeValue, models, register_model, typeof_impl, unbox

from numerics.lanes import (
    Rows,
    absolute,
    exp,
    fast,
    fill,
    fma,
    load,
    maximum,
    minimum,
    root,
    some,
    store,
    where,
)

SAFE = 450.0  # scores below this in size need no shift: their exponentials times tokens of 1e100 are finite


class Shape(NamedTuple):
    """Sizes and switches, all integers."""

    n: int
    d: int
    r: int  # rows of query and key; d without rotary encoding
    heads: int
    symmetric: int  # s_ij = s_ji
    causal: int
    rotary: int
    rotated: int
    bias: int
    bias_heads: int
    positions: int
    encoded: int  # values carry the positions
    sphere: int
    growth: int  # log-radius coordinates may be used
    forms: int  # quadratic forms that are watched


class Known:
    """A shape whose numbers compiled code takes as constants: it is compiled anew for each one."""

    def __init__(self, shape: Shape):
        self.shape = shape


class _KnownType(types.Type):
    def __init__(self, shape: Shape):
        self.shape = shape
        super().__init__(name=f"Known{tuple(self.shape)}")


register_model(_KnownType)(models.OpaqueModel)


@typeof_impl.register(Known)
def _typeof_known(value, context):
    return _KnownType(value.shape)


@unbox(_KnownType)
def _unbox_known(kind, value, context):
    return NativeValue(context.context.get_dummy_value())


@infer_getattr
class _KnownAttributes(AttributeTemplate):
    key = _KnownType

    def generic_resolve(self, kind, name):
        return types.intp if name in Shape._fields else None


@lower_getattr_generic(_KnownType)
def _known_attribute(context, builder, kind, value, name):
    return context.get_constant(types.intp, getattr(kind.shape, name))


class Lanes(NamedTuple):
    """Weights, the state, and room to work."""

    left: Rows
    value: Rows
    right: Rows
    turns: Rows
    bias: Rows
    positions: Rows
    forms: Rows
    z: Rows  # state at the start of the step
    stage: Rows  # state whose slope is wanted; after a step, its end
    k: Rows  # seven slopes
    h: Rows  # step
    growing: Rows  # 1 in log-radius coordinates, else 0
    y: Rows  # encoded tokens
    turned: Rows
    q: Rows
    key: Rows
    v: Rows
    P: Rows
    mean: Rows


def room(p: Shape) -> Lanes:
    """Room for one batch of lanes, all zero."""
    m = p.n * p.d + 1
    wide = p.n * max(p.d, p.r)
    sizes = (
        p.heads * p.d * p.r,
        p.heads * p.d * p.d,
        p.heads * p.d * p.r if p.rotary else 0,
        p.n * p.r * p.r if p.rotary else 0,
        p.bias_heads * p.n * p.n if p.bias else 0,
        p.n * p.d if p.positions else 0,
        p.forms * p.d * p.d,
        m,
        m,
        7 * m,
        1,
        1,
        wide,
        wide,
        wide,
        wide,
        wide,
        p.n * p.n,
        wide,
    )
    return Lanes(*map(Rows, sizes))


@fast
def _product(a, n, inner, weights, start, outer, out, transposed):
    """out_i = a_iᵀ M for rows a_i (n, inner); M (inner, outer), or Mᵀ is stored if transposed."""
    for i in range(n):
        for c in range(outer):
            step, first = (1, start + c * inner) if transposed else (outer, start + c)
            total = load(a, i * inner) * load(weights, first)
            for k in range(1, inner):
                total = fma(load(a, i * inner + k), load(weights, first + k * step), total)
            store(out, i * outer + c, total)


@fast
def _turn(a, n, r, turns, out, back):
    """out_i = R_i a_i, or R_iᵀ a_i."""
    for i in range(n):
        for c in range(r):
            step, first = (r, i * r * r + c) if back else (1, i * r * r + c * r)
            total = load(turns, first) * load(a, i * r)
            for k in range(1, r):
                total = fma(load(turns, first + k * step), load(a, i * r + k), total)
            store(out, i * r + c, total)


@fast
def _score(q, key, i, j, r):
    total = load(q, i * r) * load(key, j * r)
    for k in range(1, r):
        total = fma(load(q, i * r + k), load(key, j * r + k), total)
    return total


@fast
def _exponentials(p, w, shifted):
    """P_ij = exp(s_ij − c_i) in place; c_i is the largest s_ij in the lanes ``shifted``, else 0."""
    n = p.n
    for i in range(n):
        last = i + 1 if p.causal else n
        top = load(w.P, i * n)
        for j in range(1, last):
            top = maximum(load(w.P, i * n + j), top)
        top = where(shifted, top, fill(0.0))
        for j in range(last):
            s = load(w.P, i * n + j)
            e = exp(s - top)
            store(w.P, i * n + j, where(s < fill(-1e300), fill(0.0), e) if p.bias else e)


@fast
def _symmetric_weights(p, w, key, factor):
    """P_ij = exp(s_ij) up to a factor for each i, from one exponential for each pair."""
    n, r = p.n, p.r
    top = fill(0.0)
    for i in range(n):
        for j in range(i + 1):
            s = _score(w.q, key, i, j, r) * factor
            store(w.P, i * n + j, s)
            top = maximum(absolute(s), top)
    large = top > fill(SAFE)
    if some(large):
        for i in range(n):
            for j in range(i):
                store(w.P, j * n + i, load(w.P, i * n + j))
        _exponentials(p, w, large)
    else:
        for i in range(n):
            for j in range(i + 1):
                e = exp(load(w.P, i * n + j))
                store(w.P, i * n + j, e)
                store(w.P, j * n + i, e)


@fast
def _weights(p, w, key, factor, head):
    """P_ij = exp(s_ij) up to a factor for each i."""
    n, r = p.n, p.r
    first = (head if p.bias_heads > 1 else 0) * n * n
    high, low = fill(-np.inf), fill(np.inf)
    for i in range(n):
        top = fill(-np.inf)
        for j in range(i + 1 if p.causal else n):
            s = _score(w.q, key, i, j, r) * factor
            if p.bias:
                s = s + load(w.bias, first + i * n + j)
            store(w.P, i * n + j, s)
            top = maximum(s, top)
        high, low = maximum(top, high), minimum(top, low)
    large = (high > fill(SAFE)) | (low < fill(-SAFE))
    if some(large):
        _exponentials(p, w, large)
    else:
        for i in range(n):
            for j in range(i + 1 if p.causal else n):
                s = load(w.P, i * n + j)
                e = exp(s)
                store(w.P, i * n + j, where(s < fill(-1e300), fill(0.0), e) if p.bias else e)


@fast
def _means(p, w, values):
    """mean_i = Σ_j P_ij values_j / Σ_j P_ij.

    Without fused operations, whose single rounding would not let values a and −a of equal weight cancel:
    tokens that cancel by symmetry then do so to the last bit, and no rounding grows out of an unstable zero.
    """
    n, d = p.n, p.d
    for i in range(n):
        last = i + 1 if p.causal else n
        total = load(w.P, i * n)
        for j in range(1, last):
            total = total + load(w.P, i * n + j)
        share = fill(1.0) / total
        for k in range(d):
            total = load(w.P, i * n) * load(values, k)
            for j in range(1, last):
                total = total + load(w.P, i * n + j) * load(values, j * d + k)
            store(w.mean, i * d + k, total * share)


@fast
def _add_velocity(p, w, mean, head, to):
    """Slope ``to`` = V_h mean for the first head, added for the others."""
    n, d = p.n, p.d
    for i in range(n):
        for c in range(d):
            first = (head * d + c) * d
            total = load(mean, i * d) * load(w.value, first)
            for k in range(1, d):
                total = fma(load(mean, i * d + k), load(w.value, first + k), total)
            place = to + i * d + c
            store(w.k, place, total if head == 0 else load(w.k, place) + total)


@fast
def _add_turned(p, w, head, to):
    """The same for means in the frame of each token: R_iᵀ mean_i."""
    _turn(w.mean, p.n, p.d, w.turns, w.turned, True)
    for i in range(p.n * p.d):
        total = load(w.turned, i)
        store(w.k, to + i, total if head == 0 else load(w.k, to + i) + total)


@fast
def _tangent(p, w, to):
    """v_i − (x_i·v_i) x_i."""
    d = p.d
    for i in range(p.n):
        dot = load(w.stage, i * d) * load(w.k, to + i * d)
        for k in range(1, d):
            dot = fma(load(w.stage, i * d + k), load(w.k, to + i * d + k), dot)
        for k in range(d):
            v = load(w.k, to + i * d + k)
            store(w.k, to + i * d + k, v - dot * load(w.stage, i * d + k))


@fast
def normalise(p, w):
    """x_i / ‖x_i‖ for the tokens in ``stage``."""
    d = p.d
    for i in range(p.n):
        square = load(w.stage, i * d) * load(w.stage, i * d)
        for k in range(1, d):
            square = fma(load(w.stage, i * d + k), load(w.stage, i * d + k), square)
        length = root(square)
        for k in range(d):
            store(w.stage, i * d + k, load(w.stage, i * d + k) / length)


@fast
def _radial(p, w, to):
    """Take r' out of the slope of u, in the lanes that grow."""
    nd = p.n * p.d
    dot, square = fill(0.0), fill(0.0)
    for i in range(nd):
        u = load(w.stage, i)
        dot, square = fma(u, load(w.k, to + i), dot), fma(u, u, square)
    rate = where(load(w.growing, 0) > fill(0.5), dot / square, fill(0.0))
    for i in range(nd):
        store(w.k, to + i, load(w.k, to + i) - rate * load(w.stage, i))
    store(w.k, to + nd, rate)


@fast
def slope(p, w, to):
    """The slope at ``stage``, written to the rows of k from ``to`` on."""
    n, d, r, nd = p.n, p.d, p.r, p.n * p.d
    radius = load(w.stage, nd)
    factor = exp(minimum(radius + radius, fill(650.0)))
    y = w.stage
    if p.positions:
        y = w.y
        shrink = exp(fill(0.0) - radius)
        for i in range(nd):
            store(w.y, i, fma(load(w.positions, i), shrink, load(w.stage, i)))
    for head in range(p.heads):
        key = y
        if p.rotary:
            key = w.key
            _product(y, n, d, w.right, head * d * r, r, w.turned, False)
            _turn(w.turned, n, r, w.turns, w.key, False)
            _product(y, n, d, w.left, head * d * r, r, w.turned, False)
            _turn(w.turned, n, r, w.turns, w.q, False)
        else:
            _product(y, n, d, w.left, head * d * r, r, w.q, False)
        if p.symmetric:
            _symmetric_weights(p, w, key, factor)
        else:
            _weights(p, w, key, factor, head)
        values = y if p.encoded else w.stage
        if p.rotated:
            _product(values, n, d, w.value, head * d * d, d, w.turned, True)
            _turn(w.turned, n, d, w.turns, w.v, False)
            _means(p, w, w.v)
            _add_turned(p, w, head, to)
        else:
            _means(p, w, values)
            _add_velocity(p, w, w.mean, head, to)
    if p.sphere:
        _tangent(p, w, to)
    if p.growth and some(load(w.growing, 0) > fill(0.5)):
        _radial(p, w, to)
    else:
        store(w.k, to + nd, fill(0.0))
