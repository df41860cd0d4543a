"""Plots of an audit as inline SVG: text stays text, colours follow the page's light or dark scheme.

Every function returns one `<svg>` element. Lines and points take their colour from the page's style sheet by
class; only heat maps carry colours of their own, from Matplotlib's perceptually uniform maps.
"""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from matplotlib import colormaps
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

SEQUENTIAL, DIVERGING = colormaps["viridis"], colormaps["RdBu_r"]
SHRINKABLE = 480  # px: a wider map is unreadable when it is made to fit a telephone; it scrolls
FONT, POWER_FONT = 10.5, 8.0  # units of the drawing, as `svg text` and `.power` in the style sheet
WIDTHS = {".": 0.36, ",": 0.36, "−": 0.84, " ": 0.36, "%": 0.95}  # em, in the widest of the usual fonts
WIDTH = 0.64  # em: a digit in DejaVu Sans, which is wider than those of Arial or Segoe UI
GAP = 5.0  # between two labels on one line
CURVE_POINTS = 512  # enough for a curve 170 units wide; both ends of a spectrum are always among them


class Value(NamedTuple):
    """A number to draw, None where there is none, and what a pointer resting on it reads."""

    number: float | None
    title: str


class Line(NamedTuple):
    """A named curve: `kind` is its class in the style sheet, `points` are (x, value) in order of x."""

    kind: str
    points: Sequence[tuple[float, Value]]


def plain(number: float, digits: int = 3) -> str:
    """A number to so many significant digits, in full below a million, with a minus sign that is one."""
    text = f"{number:.{digits}g}"
    if "e+" in text and abs(number) < 1e6:
        text = f"{float(text):.0f}"
    return re.sub(r"e(-?)\+?0*", r"e\1", text).replace("-", "−")


def plane(eigenvalues: Sequence[Sequence[float]], label: str) -> Markup:
    """Eigenvalues, (re, im) pairs, in the complex plane; the half-plane Re λ > 0 is shaded."""
    points = np.asarray(eigenvalues, dtype=float).reshape(-1, 2)
    reach = 1.06 * float(np.abs(points).max(initial=0.0)) or 1.0
    ticks = _symmetric_ticks(reach, 140 / 2)
    labels = [plain(tick) for tick in ticks]
    left, top = round(20 + _widest(labels)), 6  # the axis' name takes 16, and 4 part labels and axis
    side = round(min(160.0, 230 - left - max(8.0, _widest(labels) / 2)))
    middle = side / 2

    def x(value: float) -> float:
        return left + middle * (1 + value / reach)

    def y(value: float) -> float:
        return top + middle * (1 - value / reach)

    parts = [
        f'<rect class="unstable" x="{px(x(0))}" y="{top}" width="{middle}" height="{side}"/>',
        f'<path class="axis" d="M{px(x(0))} {top}v{side}M{left} {px(y(0))}h{side}"/>',
        *(text_at(x(tick), top + side + 13, name) for tick, name in zip(ticks, labels, strict=True)),
        *(text_at(left - 4, y(tick) + 3.5, name, "end") for tick, name in zip(ticks, labels, strict=True)),
        text_at(left + middle, top + side + 27, "Re λ"),
        f'<text transform="translate(9 {top + middle}) rotate(-90)">Im λ</text>',
    ]
    for kind, chosen in (("stable", points[:, 0] <= 0), ("growing", points[:, 0] > 0)):
        dots = "".join(f"M{px(x(re))} {px(y(im))}h0" for re, im in points[chosen])
        parts.append(f'<path class="dots {kind}" d="{dots}"/>' if dots else "")
    return svg(230, 196, label, parts)


def _symmetric_ticks(reach: float, scale: float) -> list[float]:
    """Round numbers within ±`reach`, so many that their labels fit side by side; `reach` is `scale` long."""
    for count in (4, 2):
        found = MaxNLocator(count, symmetric=True).tick_values(-reach, reach)
        ticks = [float(tick) for tick in found if abs(tick) <= reach]
        step = scale * float(np.diff(ticks).min(initial=reach)) / reach
        if len(ticks) > 1 and _widest(map(plain, ticks)) + GAP <= step:
            return ticks
    return [0.0]


def _width(text: str) -> float:
    """About how wide a label is drawn; what follows "^" is raised and smaller."""
    base, _, raised = text.partition("^")
    ems = [sum(WIDTHS.get(letter, WIDTH) for letter in part) for part in (base, raised)]
    return FONT * ems[0] + POWER_FONT * ems[1]


def _widest(labels: Iterable[str]) -> float:
    return max(map(_width, labels), default=0.0)


def profile(eigenvalues: Sequence[float], label: str) -> Markup:
    """Real eigenvalues in ascending order against their rank; the scale is linear near 0, then logarithmic.

    The scale is asinh(λ/m) with m the median of |λ|, so that both the bulk and far outliers can be seen.
    """
    values = np.sort(np.asarray(eigenvalues, dtype=float))
    sizes = np.abs(values)
    unit = float(np.median(sizes)) or float(sizes.max(initial=0.0)) or 1.0
    reach = 1.05 * math.asinh(float(sizes.max(initial=0.0)) / unit) or 1.0
    top, height = 6.0, 140.0

    def y(value: float) -> float:
        return top + height / 2 * (1 - math.asinh(value / unit) / reach)

    ticks = _apart([0.0, *_powers(unit, float(sizes.max(initial=0.0)))], y)
    left = round(max(46.0, 8 + _widest(map(_short, ticks))))
    width = 214 - left

    count = len(values)
    shown = np.unique(np.linspace(0, count - 1, min(count, CURVE_POINTS)).round().astype(int))
    curve = [(left + width * (rank + 0.5) / count, float(values[rank])) for rank in shown.tolist()]
    parts = [f'<path class="axis" d="M{left} {px(y(0))}h{width}M{left} {top}v{height}"/>']
    for kind, wanted in (
        ("stable", [p for p in curve if p[1] < 0]),
        ("growing", [p for p in curve if p[1] > 0]),
    ):
        if wanted:
            trail = "".join(f"L{px(a)} {px(y(b))}" for a, b in wanted)
            parts.append(
                f'<path class="area {kind}" d="M{px(wanted[0][0])} {px(y(0))}{trail}'
                f'L{px(wanted[-1][0])} {px(y(0))}z"/>'
            )
    parts += [text_at(left - 4, y(tick) + 3.5, _short(tick), "end") for tick in ticks]
    parts += [
        text_at(left + width * share, top + height + 13, f"{share:.0%}".replace("%", " %"))
        for share in (0, 0.5)
    ]
    parts += [text_at(left + width, top + height + 13, "100 %", "end")]
    parts += [text_at(left + width / 2, top + height + 27, "of the eigenvalues")]
    parts += [text_at(9, y(0) + 3.5, "λ")]
    return svg(218, 178, label, parts)


def _powers(low: float, high: float) -> list[float]:
    """Powers of ten from `low` to `high`, with both signs and the largest first; else one such multiple."""
    if high <= 0:
        return []
    exponents = range(math.floor(math.log10(high)), math.ceil(math.log10(low)) - 1, -1)
    whole = 10.0 ** math.floor(math.log10(high))
    sizes = [10.0**exponent for exponent in exponents] or [whole * (high // whole)]
    return [sign * size for size in sizes for sign in (1, -1)]


def _short(tick: float) -> str:
    """A tick as a label: large and small powers of ten as such."""
    exponent = math.log10(abs(tick)) if tick else 0.0
    if abs(exponent) < 4 or exponent != round(exponent):
        return plain(tick)
    return f"{'−' if tick < 0 else ''}10^{plain(exponent)}"


def _apart(ticks: Sequence[float], place: Callable[[float], float]) -> list[float]:
    """Those ticks, the first ones preferred, whose labels do not touch."""
    chosen: list[float] = []
    for tick in ticks:
        if all(abs(place(tick) - place(other)) >= 13 for other in chosen):
            chosen.append(tick)
    return chosen


def heat_map(
    rows: Sequence[Sequence[Value]],
    row_names: Sequence[str],
    column_names: Sequence[str],
    label: str,
    *,
    diverging: bool,
    limits: tuple[float, float] | None = None,
) -> Markup:
    """Rows of values as coloured cells with a scale below; a diverging scale is centred on 0.

    A cell without a number is an empty outline. The scale goes from the smallest to the largest number, or
    has the `limits` that several maps share.
    """
    numbers = [value.number for row in rows for value in row if value.number is not None]
    low, high = limits or ((min(numbers), max(numbers)) if numbers else (0.0, 1.0))
    if diverging:
        high = max(abs(low), abs(high)) or 1.0
        low = -high
    span = (high - low) or 1.0
    colour = DIVERGING if diverging else SEQUENTIAL
    cell, tall = _between(12, 360 / max(len(column_names), 1), 30), _between(13, 420 / max(len(rows), 1), 26)
    left, top = round(max(8 + _widest(["layer", *row_names]), 34.0)), 30.0
    width, height = cell * len(column_names), tall * len(rows)
    parts = [text_at(left + width / 2, 11, "head"), text_at(left - 6, 24, "layer", "end")]
    stride = math.ceil(max(16, _widest(column_names) + GAP) / cell)
    skip = math.ceil(11 / tall)
    parts += [
        text_at(left + cell * (column + 0.5), 24, name)
        for column, name in enumerate(column_names)
        if column % stride == 0
    ]
    for row, (name, values) in enumerate(zip(row_names, rows, strict=True)):
        if row % skip == 0:
            parts.append(text_at(left - 6, top + tall * (row + 0.5) + 4, name, "end"))
        for column, value in enumerate(values):
            place = (left + cell * column, top + tall * row, cell - 1, tall - 1)
            fill = None if value.number is None else to_hex(colour((value.number - low) / span))
            parts.append(_cell(place, fill, value.title))
    parts += scale_bar(left, top + height + 10, max(width, 150), [low, (low + high) / 2, high], colour)
    return svg(left + max(width, 150) + 16, top + height + 40, label, parts, fixed=True)


def _cell(place: tuple[float, float, float, float], fill: str | None, title: str) -> str:
    x, y, width, height = (px(number) for number in place)
    shape = f'x="{x}" y="{y}" width="{width}" height="{height}"'
    paint = f'fill="{fill}"' if fill else 'class="missing"'
    return f"<rect {shape} {paint}><title>{escape(title)}</title></rect>"


def scale_bar(x: float, y: float, width: float, marks: Sequence[float], colour: Callable) -> list[str]:
    """A bar of the colours with three marks below it: its ends and, where there is room, its middle."""
    steps = 40
    bar = [
        f'<rect x="{px(x + width * i / steps)}" y="{px(y)}" width="{px(width / steps + 0.4)}" height="9" '
        f'fill="{to_hex(colour(i / (steps - 1)))}"/>'
        for i in range(steps)
    ]
    labels = [plain(mark) for mark in marks]
    places = list(zip((0, 0.5, 1), labels, ("start", "middle", "end"), strict=True))
    if _width(labels[1]) / 2 + max(_width(labels[0]), _width(labels[2])) + GAP > width / 2:
        del places[1]  # no room between the others
    return bar + [text_at(x + width * share, y + 22, name, anchor) for share, name, anchor in places]


def lines(curves: Sequence[Line], label: str, *, logarithmic: bool, mark: float | None) -> Markup:
    """Curves over layers. On a logarithmic axis the values are log₁₀; a missing value breaks its curve.

    `mark` is the trained depth: what lies beyond it is shaded.
    """
    shown = [(x, v.number) for curve in curves for x, v in curve.points if v.number is not None]
    first, last = _range(x for x, _ in shown)
    low, high = _range(number for _, number in shown)
    ticks, names = _log_ticks(low, high) if logarithmic else _linear_ticks(low, high)
    low, high = min(low, *ticks), max(high, *ticks)
    whole = [t for t in MaxNLocator(6, integer=True).tick_values(first, last) if first <= t <= last]
    steps = [plain(tick, 6) for tick in whole]
    left, top, height = round(max(52.0, 8 + _widest(names))), 8.0, 140.0
    width = round(312 - left - max(8.0, _widest(steps) / 2))

    def x(value: float) -> float:
        return left + width * (value - first) / (last - first)

    def y(value: float) -> float:
        return top + height * (high - value) / (high - low)

    parts = [f'<path class="axis" d="M{left} {top}v{height}h{width}"/>']
    if mark is not None and first <= mark < last:
        parts.append(
            f'<rect class="beyond" x="{px(x(mark))}" y="{top}" width="{px(x(last) - x(mark))}" '
            f'height="{height}"/>'
            f'<path class="depth" d="M{px(x(mark))} {top}v{height}"/>'
        )
    parts += [f'<path class="grid" d="M{left} {px(y(tick))}h{width}"/>' for tick in ticks]
    parts += [text_at(left - 5, y(tick) + 3.5, name, "end") for tick, name in zip(ticks, names, strict=True)]
    parts += [text_at(x(tick), top + height + 14, name) for tick, name in zip(whole, steps, strict=True)]
    parts.append(text_at(left + width / 2, top + height + 29, "layers applied"))
    for curve in curves:
        parts.append(_curve(curve, x, y))
    return svg(312, 180, label, parts)


def _curve(curve: Line, x: Callable[[float], float], y: Callable[[float], float]) -> str:
    trail, joined = [], False
    for step, value in curve.points:
        if value.number is not None:
            trail.append(f"{'L' if joined else 'M'}{px(x(step))} {px(y(value.number))}")
        joined = value.number is not None
    dots = "".join(
        f'<circle cx="{px(x(step))}" cy="{px(y(value.number))}" r="2.4">'
        f"<title>{escape(value.title)}</title></circle>"
        for step, value in curve.points
        if value.number is not None
    )
    return f'<g class="curve {curve.kind}"><path d="{"".join(trail)}"/>{dots}</g>' if dots else ""


def _range(numbers: Iterable[float]) -> tuple[float, float]:
    """Smallest and largest, apart by something even if they are equal."""
    found = list(numbers)
    low, high = min(found), max(found)
    return (low, high) if high > low else (low - 0.5 * (abs(low) or 1), high + 0.5 * (abs(high) or 1))


def _linear_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    ticks = [float(tick) for tick in MaxNLocator(4).tick_values(low, high)]
    return ticks, _distinct([0.0 if abs(tick) < 1e-12 * (high - low) else tick for tick in ticks])


def _log_ticks(low: float, high: float) -> tuple[list[float], list[str]]:
    """Positions (log₁₀) and labels: powers of ten, or round numbers where the range is short."""
    if high - low > 1.5 or abs(high) > 300:
        ticks = [float(tick) for tick in MaxNLocator(4, integer=True).tick_values(low, high)]
        return ticks, [f"10^{plain(tick, 6)}" for tick in ticks]
    round_numbers = [float(tick) for tick in MaxNLocator(4).tick_values(10**low, 10**high) if tick > 0]
    return [math.log10(tick) for tick in round_numbers], _distinct(round_numbers)


def _distinct(ticks: Sequence[float]) -> list[str]:
    """Labels with four digits, or as many more as tell neighbours apart."""
    labels = [[plain(tick, digits) for tick in ticks] for digits in range(4, 18)]
    return next((found for found in labels if len(set(found)) == len(ticks)), labels[0])


def svg(width: float, height: float, label: str, parts: Iterable[str], *, fixed: bool = False) -> Markup:
    """One drawing of `parts`, with `label` for who cannot see it.

    With `fixed` it keeps its size, unless a small screen shrinks a small one; else it fills.
    """
    size = f' width="{px(width)}" height="{px(height)}"' if fixed else ""
    size += ' class="shrinks"' if fixed and width <= SHRINKABLE else ""
    return Markup(
        f'<svg viewBox="0 0 {px(width)} {px(height)}"{size} role="img" aria-label="{escape(label)}">'
        f"{''.join(parts)}</svg>"
    )


def text_at(x: float, y: float, text: str, anchor: str = "middle") -> str:
    """Escaped text at a point; what follows a ^ is raised."""
    where = "" if anchor == "middle" else f' text-anchor="{anchor}"'
    base, power, exponent = text.partition("^")
    raised = f'<tspan dy="-4" class="power">{escape(exponent)}</tspan>' if power else ""
    return f'<text x="{px(x)}" y="{px(y)}"{where}>{escape(base)}{raised}</text>'


def px(number: float) -> str:
    """To a tenth of a unit of the drawing."""
    return f"{number:.1f}".removesuffix(".0")


def _between(low: float, number: float, high: float) -> float:
    return min(max(low, number), high)
