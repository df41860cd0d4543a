"""Plots of heads as inline SVG: dots in a plane, and curves over the rotary frequencies.

Dots carry colours of their own, from one of Matplotlib's perceptually uniform maps, with an outline that
follows the page's light or dark scheme; curves take their colour from the page's style sheet by class.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup, escape
from matplotlib.colors import to_hex
from matplotlib.ticker import MaxNLocator

from tokendyn.report_svg import SEQUENTIAL, plain, px, scale_bar, svg, text_at

UNKNOWN = "none"
"""Fill of a dot without a number to colour it by."""


class Dot(NamedTuple):
    """A point, the number in [0, 1] that colours it (None: an empty circle), and what its title says."""

    x: float
    y: float
    shade: float | None
    title: str


class Axis(NamedTuple):
    """What is measured along an axis, from where to where; `ticks` are places with their labels."""

    name: str
    low: float
    high: float
    ticks: Sequence[tuple[float, str]]


class Curve(NamedTuple):
    """A named curve of points in order of x; `kind` is its class in the style sheet."""

    kind: str
    points: Sequence[tuple[float, float]]


def linear(name: str, low: float, high: float, count: int = 4) -> Axis:
    """An axis with round ticks between its ends."""
    ticks = [float(tick) for tick in MaxNLocator(count).tick_values(low, high) if low <= tick <= high]
    return Axis(name, low, high, [(tick, plain(tick)) for tick in ticks])


def powers(name: str, values: Sequence[float]) -> Axis:
    """An axis of log₁₀ of positive values, with a tick at each power of ten."""
    low, high = math.log10(min(values)) - 0.15, math.log10(max(values)) + 0.15
    whole = range(math.ceil(low), math.floor(high) + 1)
    return Axis(name, low, high, [(float(power), f"10^{plain(power)}") for power in whole])


def scatter(
    dots: Sequence[Dot],
    x: Axis,
    y: Axis,
    label: str,
    *,
    size: tuple[float, float] = (150.0, 150.0),
    curves: Sequence[Curve] = (),
    zero: bool = False,
) -> Markup:
    """Dots and curves in a frame of `size`; `zero` draws the line y = 0."""
    width, height = size
    left, top = 46.0, 8.0

    def place(point: tuple[float, float]) -> tuple[str, str]:
        across = left + width * (point[0] - x.low) / (x.high - x.low)
        return px(across), px(top + height * (y.high - point[1]) / (y.high - y.low))

    parts = [f'<path class="axis" d="M{px(left)} {px(top)}v{px(height)}h{px(width)}"/>']
    for at, name in x.ticks:
        parts.append(text_at(float(place((at, y.low))[0]), top + height + 14, name))
    for at, name in y.ticks:
        across, down = place((x.low, at))
        parts.append(f'<path class="grid" d="M{across} {down}h{px(width)}"/>')
        parts.append(text_at(left - 5, float(down) + 3.5, name, "end"))
    if zero:
        parts.append(f'<path class="axis" d="M{px(left)} {place((x.low, 0.0))[1]}h{px(width)}"/>')
    parts.append(text_at(left + width / 2, top + height + 30, x.name))
    parts.append(
        f'<text transform="translate(11 {px(top + height / 2)}) rotate(-90)">{escape(y.name)}</text>'
    )
    parts += [_curve(curve, place) for curve in curves]
    parts += [_dot(dot, *place(dot[:2])) for dot in dots]
    return svg(left + width + 12, top + height + 36, label, parts)


def legend(name: str, low: float, high: float) -> Markup:
    """The colours of dots, from `low` to `high`, with what they mean."""
    bar = scale_bar(8, 18, 150, [low, (low + high) / 2, high], SEQUENTIAL)
    return svg(220, 46, name, [text_at(8, 11, name, "start"), *bar], fixed=True)


def _dot(dot: Dot, x: str, y: str) -> str:
    fill = UNKNOWN if dot.shade is None else to_hex(SEQUENTIAL(dot.shade))
    shape = f'<circle class="head" cx="{x}" cy="{y}" r="3.4" fill="{fill}">'
    return f"{shape}<title>{escape(dot.title)}</title></circle>"


def _curve(curve: Curve, place) -> str:
    trail = "L".join(" ".join(place(point)) for point in curve.points)
    return f'<g class="curve {curve.kind}"><path d="M{trail}"/></g>' if trail else ""
