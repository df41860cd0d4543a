"""Conditions in closed form: for which values of the user's symbols do the theorems' hypotheses hold?

Symbolic Q, K, V in; for each statement inequalities and equations out, simplified, with a point where they
hold or a proof that there is none. Nothing here is a float.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sympy import Eq, ImmutableDenseMatrix, false, true
from sympy.logic.boolalg import Boolean

from theory.closed_form import stages
from theory.errors import InputError, did_you_mean
from theory.expressions import parse_matrix, parse_relations, signs_of_symbols
from theory.region import Region, Row
from theory.semialgebraic.problem import Inputs, Problem
from theory.verdict import undecided
from theory.worker import Outcome, run

TIMEOUT = 20.0  # seconds for each region
LONGEST_CONTEXT = 32
LONGEST_TIMEOUT = 3600.0

ROWS = (
    Row(
        r"$A=A^\top\prec0$, $W_s\succ0$",
        ("A symmetric", "A negative", "W positive"),
        {
            "T2": r"$X(t)\to0$ from every start",
            "T4": r"every token's energy $\frac12x_i^\top(-A)x_i$ has limsup at most $\kappa_n/(2\lambda)$, "
            r"$\lambda=\lambda_{\min}(W_s,-A)$",
            "T10": r"pairwise distances in the metric $-A$ never grow, and equal tokens decay",
        },
    ),
    Row(
        r"$A=A^\top\succ0$, $W_s\succ0$",
        ("A symmetric", "A positive", "W positive"),
        {
            "T3": r"$\max_i\|x_i\|\to\infty$ from every start but 0",
            "T4": r"a token with energy $\frac12x_i^\top Ax_i$ above $\kappa_n/(2\lambda)$, "
            r"$\lambda=\lambda_{\min}(W_s,A)$, diverges at least like $e^{\lambda t}$",
            "T10": r"pairwise $A$-distances never shrink, and equal tokens diverge in every direction",
        },
    ),
    Row(
        r"$W=W^\top\succ0$, $A_s\prec0$",
        ("W symmetric", "W positive", "A negative"),
        {"T5": r"$X(t)\to0$ from every start"},
    ),
    Row(
        r"$W=W^\top\succ0$, $A_s\succ0$",
        ("W symmetric", "W positive", "A positive"),
        {"T5": r"$\max_i\|x_i\|\to\infty$ from every start but 0"},
    ),
    Row(
        r"$A=A^\top\succ0$",
        ("A symmetric", "A positive"),
        {"T1": r"pairwise $A$-distances never shrink, for any $W$"},
    ),
    Row(
        r"$A=A^\top\prec0$",
        ("A symmetric", "A negative"),
        {"T1": r"pairwise distances in the metric $-A$ never grow, for any $W$"},
    ),
    Row(
        r"$A=A^\top\succ0$, $W_s\prec0$",
        ("A symmetric", "A positive", "W negative"),
        {"T10": r"pairwise $A$-distances never shrink, while equal tokens decay"},
    ),
    Row(
        r"$A=A^\top\prec0$, $W_s\prec0$",
        ("A symmetric", "A negative", "W negative"),
        {
            "T10": r"pairwise distances in the metric $-A$ never grow, "
            r"while equal tokens diverge in every direction"
        },
    ),
    Row(
        r"$A=A^\top\succ0$, $\lambda>\delta$",
        ("A symmetric", "A positive", "W positive", "rotary margin"),
        {
            "T13": r"the largest token diverges once its energy $\frac12x_i^\top Ax_i$ "
            r"exceeds $\kappa_n/(2(\lambda-\delta))$"
        },
        "rotary",
    ),
    Row(
        r"$A=A^\top\prec0$, $\lambda>\delta$",
        ("A symmetric", "A negative", "W positive", "rotary margin"),
        {
            "T13": r"tokens stay bounded: the largest energy $\frac12x_i^\top(-A)x_i$ "
            r"has limsup at most $\kappa_n/(2(\lambda-\delta))$"
        },
        "rotary",
    ),
    Row(
        r"$V$ is not Hurwitz",
        ("V not Hurwitz",),
        {"T6": r"some start with equal tokens does not converge to 0, whatever $W$"},
        "any",
    ),
    Row(
        r"$V$ has a real eigenvalue $\mu>0$",
        ("positive eigenvalue",),
        {"T17": r"every token diverges from starts on one side of a hyperplane, at least at the rate $\mu$"},
        "any",
    ),
)


@dataclass(frozen=True)
class Derived:
    """What `derive` found: the regions of all statements that the given matrices determine.

    `shown` are W (or QᵀK, its positive multiple), VᵀW and the like, written out. `left_out` says which
    statements were not asked about, and why.
    """

    inputs: Inputs
    assumptions: tuple[Boolean, ...]
    shown: Mapping[str, ImmutableDenseMatrix]
    regions: tuple[Region, ...]
    left_out: tuple[str, ...]

    def about(self, statement: str) -> tuple[Region, ...]:
        """The regions that a statement needs, one for each choice of signs."""
        found = tuple(region for region in self.regions if statement in region.says)
        if not found:
            known = dict.fromkeys(name for region in self.regions for name in region.says)
            raise InputError(
                "statement",
                got=repr(statement),
                expected=f"one of {', '.join(known)}",
                fix="ask for one of these",
            )
        return found


def derive(
    query: Any = None,
    key: Any = None,
    value: Any = None,
    *,
    score: Any = None,
    response: Any = None,
    rotation: Any = None,
    context: int | None = None,
    where: Any = (),
    symbols: Collection[str] | None = None,
    statements: Collection[str] | None = None,
    timeout: float = TIMEOUT,
) -> Derived:
    """The conditions of every statement, in closed form, for symbolic weights.

    Q, K of shape (d_k, d) and V (d, d), as text, nested lists or SymPy matrices over real symbols; instead of
    Q and K the score matrix `score` = W, instead of V the response `response` = A. With a `rotation` R
    (d_k, d_k) the scores of tokens r places apart use W_r = QᵀR^rK, |r| < context. `where` are assumptions on
    the symbols, `statements` the ids asked about (all by default), `timeout` the seconds for each region. The
    factor 1/√d_k is positive and left out: no condition depends on it.

    Raises InputError for input that cannot be read or does not fit together.
    """
    given = {"query": query, "key": key, "value": value, "score": score, "response": response}
    given = {name: m for name, m in {**given, "rotation": rotation}.items() if m is not None}
    matrices = {name: parse_matrix(name, m, symbols) for name, m in given.items()}
    assumptions = (*signs_of_symbols(given.values()), *parse_relations("where", where, symbols))
    inputs = _substituted(Inputs(**matrices, context=context, where=tuple(dict.fromkeys(assumptions))))
    _check(inputs, timeout)
    rows, left_out = _chosen(inputs, statements)
    header, *outcomes = run(_work, inputs, [None, *rows], timeout)
    domain, shown = header.item or ((), {})
    assumptions = (*inputs.where, *domain)
    regions = (_region(assumptions, row, outcome) for row, outcome in zip(rows, outcomes, strict=True))
    return Derived(inputs, assumptions, shown, tuple(regions), left_out)


def _substituted(inputs: Inputs) -> Inputs:
    """With symbols that an assumption fixes, such as theta = pi/3, replaced by their values."""
    fixing = [r for r in inputs.where if isinstance(r, Eq) and r.lhs.is_Symbol and r.rhs.is_number]
    fixed = {relation.lhs: relation.rhs for relation in fixing}
    if not fixed:
        return inputs
    matrices = {name: m.xreplace(fixed).doit() for name, m in inputs.matrices.items()}
    where = [relation.xreplace(fixed) for relation in inputs.where]
    if false in where:
        raise InputError(
            "where",
            got=", ".join(str(relation) for relation in fixing),
            expected="values that satisfy the other assumptions",
            fix="correct or drop one of them",
        )
    return replace(inputs, **matrices, where=tuple(relation for relation in where if relation != true))


def _chosen(inputs: Inputs, statements: Collection[str] | None) -> tuple[list[Row], tuple[str, ...]]:
    """The rows that the given matrices determine, and in words which statements are left out."""
    names = list(dict.fromkeys(name for row in ROWS for name in row.says))
    wanted = {name.upper() for name in names if statements is None} | {
        name.upper() for name in statements or ()
    }
    if unknown := wanted - {*names}:
        raise InputError(
            "statements",
            got=", ".join(sorted(unknown)),
            expected=f"some of {', '.join(names)}",
            fix=did_you_mean(min(unknown), names) or "leave it out for all of them",
        )
    reasons = {row: _missing(inputs, row) for row in ROWS}
    rows = [row for row in ROWS if reasons[row] is None and wanted & row.says.keys()]
    kept = {name for row in rows for name in row.says}
    left_out: dict[str, list[str]] = {}
    for row, reason in reasons.items():
        if reason and (statements is not None or reason != NOT_ROTARY):
            names_out = left_out.setdefault(reason, [])
            names_out += [n for n in row.says if n in wanted - kept and n not in names_out]
    return rows, tuple(
        f"{', '.join(sorted(found, key=lambda name: int(name[1:])))}: {reason}"
        for reason, found in left_out.items()
        if found
    )


NOT_ROTARY = "about rotary encoding (give a rotation and a context)"


def _missing(inputs: Inputs, row: Row) -> str | None:
    """Why a row cannot be asked about, or None."""
    given = inputs.matrices.keys()
    if row.encoding == "none" and "rotation" in given:
        return "stated for attention without rotary encoding"
    if row.encoding == "rotary" and "rotation" not in given:
        return NOT_ROTARY
    has_form = bool({"score", "query"} & given) or {"response", "value"} <= given
    if any(key.startswith(("W", "rotary")) for key in row.hypotheses) and not has_form:
        return "needs W (give query and key, or score)"
    if any(key.startswith("A") for key in row.hypotheses) and "response" not in given and not has_form:
        return "needs A = W V⁻¹ (give query and key, or score)"
    if row.encoding == "any" and "value" not in given and not has_form:
        return "needs V (give value, or score beside response)"
    return None


def _work(inputs: Inputs, row: Row | None) -> Iterator[Any]:
    """In the worker: one row's region, or (first) where entries are defined and the matrices written out."""
    if row is not None:
        yield from stages(inputs, row)
        return
    problem = Problem(inputs)
    problem.require_rotation()
    yield problem.generators.domain, {}
    yield problem.generators.domain, problem.shown()


def _region(assumptions: tuple[Boolean, ...], row: Row, outcome: Outcome) -> Region:
    """What the worker sent last; stopped early it is undecided, and says where."""
    region = outcome.item or Region(row, assumptions)
    if not outcome.stopped:
        return region
    return replace(region, verdict=undecided(f"{outcome.stopped}; so far: {region.reason}"))


def _check(inputs: Inputs, timeout: float) -> None:
    """Raises InputError where matrices are missing, contradict each other, or do not fit together."""
    if not 0 < timeout <= LONGEST_TIMEOUT:
        raise InputError(
            "timeout",
            got=f"{timeout:g}",
            expected=f"seconds between 0 and {LONGEST_TIMEOUT:g}",
            fix="leave it out",
        )
    _check_which(inputs)
    _check_shapes(inputs)
    _check_rotation(inputs)


def _check_which(inputs: Inputs) -> None:
    given = inputs.matrices.keys()
    if ("query" in given) != ("key" in given):
        raise InputError(
            "query", got="only one of query and key", expected="both", fix="pass both, or the score matrix"
        )
    if "score" in given and "query" in given:
        raise InputError(
            "score", got="score beside query and key", expected="one of them", fix="leave one out"
        )
    if {"value", "response"} <= given and ("score" in given or "query" in given):
        raise InputError(
            "response",
            got="W, V and A",
            expected="two of them, as A V = W",
            fix="leave value or response out",
        )
    if not {"value", "response"} & given:
        raise InputError(
            "value", got="neither value nor response", expected="one of them", fix="pass V, or A = W V⁻¹"
        )


def _check_shapes(inputs: Inputs) -> None:
    given = inputs.matrices
    for name in ("value", "score", "response"):
        if name in given and given[name].rows != given[name].cols:
            raise InputError(
                name, got=f"shape {given[name].shape}", expected="a square matrix (d, d)", fix="pass one"
            )
    if "query" in given and given["query"].shape != given["key"].shape:
        raise InputError(
            "key",
            got=f"shape {given['key'].shape}",
            expected=f"the shape of query, {given['query'].shape}",
            fix="pass query and key as (d_k, d), acting on columns",
        )
    widths = {name: m.cols for name, m in given.items() if name != "rotation"}
    if len(set(widths.values())) > 1:
        raise InputError(
            next(reversed(widths)),
            got=", ".join(f"{name} with {width} columns" for name, width in widths.items()),
            expected="the same d for all",
            fix="match their sizes",
        )


def _check_rotation(inputs: Inputs) -> None:
    rotation, context = inputs.rotation, inputs.context
    if (rotation is None) != (context is None):
        raise InputError(
            "rotation", got="only one of rotation and context", expected="both or neither", fix="pass both"
        )
    if rotation is None or context is None:
        return
    if isinstance(context, bool) or not isinstance(context, int) or not 2 <= context <= LONGEST_CONTEXT:
        raise InputError(
            "context",
            got=f"{context!r}",
            expected=f"a number of tokens from 2 to {LONGEST_CONTEXT}",
            fix="pass one",
        )
    if inputs.query is None:
        raise InputError(
            "rotation",
            got="a rotation without query and key",
            expected="query and key",
            fix="pass Q and K, not W",
        )
    size = inputs.query.rows
    if rotation.shape != (size, size):
        raise InputError(
            "rotation",
            got=f"shape {rotation.shape}",
            expected=f"({size}, {size}), acting on Qx",
            fix="match d_k",
        )
