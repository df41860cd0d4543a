"""The house style: one meaning, one colour, everywhere."""

from pathlib import Path

STYLE = Path(__file__).with_name("style.mplstyle")

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
ORANGE, SKY, BLACK, GREY = "#E69F00", "#56B4E9", "#000000", "0.6"

CONVERGES, BOUNDED, DIVERGES, OPEN = BLUE, GREEN, VERMILLION, GREY
"""Regimes: tokens tend to zero, stay bounded, diverge, or nothing is known."""

SCENARIOS = {"pd": DIVERGES, "hd": PURPLE, "nd": CONVERGES}
"""By the signs of the eigenvalues of A_s: all, half or none positive."""

THEORY = {"color": BLACK, "linestyle": "--", "linewidth": 1.0}
"""Lines that a statement gives; what is simulated is drawn in colour."""

COLUMN, TEXT = 3.4, 7.0
"""Widths of one column and of the whole text, in inches."""
