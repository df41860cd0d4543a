"""One printer for all formulas: SymPy's LaTeX in the notation of the sentences."""

import re
from functools import cache
from itertools import groupby

from sympy import Symbol
from sympy.printing.latex import LatexPrinter

from theory.derivation import Claim
from theory.notation import norm_V
from theory.one_line import one_line

DISPLAYED = 75  # characters of its one-line form that a displayed line holds


@cache
def latex(claim: Claim) -> str:
    """The formula of a claim: a SymPy relation printed, LaTeX as it is."""
    return claim if isinstance(claim, str) else Printer(PRINTING).doprint(claim)


def halves(claim: Claim, width: int) -> list[str]:
    """A relation longer than `width` in two parts, the second from its sign on; otherwise the claim whole."""
    whole = latex(claim)
    if isinstance(claim, str) or len(one_line(whole)) <= width:
        return [whole]
    left = latex(claim.lhs)
    return [left, whole.removeprefix(left)]


def displayed(claim: Claim) -> str:
    """The claim as one displayed formula, on two lines where it is long."""
    parts = halves(claim, DISPLAYED)
    return r"\begin{aligned} & " + r" \\ & \quad ".join(parts) + r" \end{aligned}" if parts[1:] else parts[0]


NAMED = {
    "positions": "p",
    "bias": "b",
    "query": "Q",
    "key": "K",
    "rotation": "R",
    "metric": "M",
    "logits": "M",
}
"""Letters of the entries of the system's parameters (theory.system.PARAMETERS)."""

PRINTING = {
    "symbol_names": {norm_V: r"\|V\|", Symbol("l", real=True): r"\ell"},
    "mat_delim": "",
    "mat_str": "pmatrix",
}


class Printer(LatexPrinter):
    """SymPy's LaTeX in the notation of the sentences: ⊤, P_{ij}, one sum over several indices, d/dt."""

    def _print_Symbol(self, expr, style="plain"):  # noqa: N802
        name, entry, index = expr.name.partition("_{")
        letter = NAMED.get(name) if entry else None
        return f"{letter}_{{{index}" if letter else super()._print_Symbol(expr, style)

    def _print_Determinant(self, expr):  # noqa: N802
        return rf"\det {self._print(expr.arg)}"

    def _print_Transpose(self, expr):  # noqa: N802
        return super()._print_Transpose(expr).removesuffix("^{T}") + r"^{\top}"

    def _print_Inverse(self, expr):  # noqa: N802
        printed = self._print(expr.arg)
        turned = printed.endswith(r"^{\top}")
        return printed.removesuffix(r"^{\top}") + r"^{-\top}" if turned else self._print_MatPow(expr)

    def _print_Indexed(self, expr):  # noqa: N802
        return f"{self._print(expr.base.label)}_{{{''.join(map(self._print, expr.indices))}}}"

    def _print_MatMul(self, expr):  # noqa: N802
        return re.sub(r"\\left\((\\frac\{\d+\}\{\d+\})\\right\)(?!\^)", r"\1", super()._print_MatMul(expr))

    def _print_Sum(self, expr):  # noqa: N802
        signs = []
        for (low, high), limits in groupby(expr.limits, key=lambda limit: limit[1:]):
            indices = ",".join(self._print(index) for index, _, _ in limits)
            signs.append(rf"\sum_{{{indices}={low}}}^{{{self._print(high)}}}")
        body = self._print(expr.function)
        return " ".join(signs) + (rf" \left({body}\right)" if expr.function.is_Add else f" {body}")

    def _print_Integral(self, expr):  # noqa: N802
        return super()._print_Integral(expr).replace(r"\limits", "")

    def _print_Derivative(self, expr):  # noqa: N802
        variable, order = expr.variable_count[0]
        power = f"^{{{order}}}" if order > 1 else ""
        return rf"\frac{{d{power}}}{{d {self._print(variable)}{power}}}\left({self._print(expr.expr)}\right)"
