"""A certificate in words and as JSON: what it proves, the matrix, and the numbers that re-prove it."""

from decimal import ROUND_CEILING, ROUND_FLOOR
from typing import Any

from flint import fmpq_mat
from rich.console import Console

from theory.certificate import Bounds, Certificate
from theory.definiteness import decimal_bound
from theory.layer import Layer
from tokendyn.certify import Result


def says(result: Result, layer: Layer) -> str:
    """The verdict in one sentence."""
    if result.bounds is None:
        return (
            f"No certificate of {result.kind} was proved: {result.verdict.reason}. This claims nothing else."
        )
    tokens = "any number of" if layer.n is None else f"at most {layer.n}"
    norm = decimal_bound(result.bounds.norm, ROUND_CEILING)
    rate = decimal_bound(result.bounds.rate, ROUND_FLOOR)
    if result.kind == "divergence":
        return (
            f"With {tokens} tokens, every start with a token of norm above {norm} diverges: "
            f"max_i‖x_i‖ grows at least like e^({rate} t)."
        )
    return (
        f"With {tokens} tokens, every start is ultimately bounded: limsup max_i‖x_i‖ ≤ {norm}; "
        f"the largest energy's excess over its radius decays at least like e^(-2·{rate} t)."
    )


def print_certificate(result: Result, layer: Layer, console: Console) -> None:
    """The verdict, what it means, and all numbers of the certificate."""
    console.print(f"certificate of {result.kind}: {result.verdict}", markup=False)
    console.print(says(result, layer), markup=False)
    if result.certificate is None or result.bounds is None:
        return
    for line in (*_bounds_lines(result.bounds, result.kind), *_certificate_lines(result.certificate)):
        console.print(line, markup=False, soft_wrap=True)


def _bounds_lines(bounds: Bounds, kind: str) -> list[str]:
    inequality = "dE/dt ≥ 2ηE − K" if kind == "divergence" else "dE/dt ≤ −2ηE + K"
    constant, energy, norm = (
        decimal_bound(ball, ROUND_CEILING) for ball in (bounds.constant, bounds.energy, bounds.norm)
    )
    return [
        f"  E = max_i ½x_iᵀMx_i obeys {inequality}",
        f"  rate η         {bounds.rate} ≈ {decimal_bound(bounds.rate, ROUND_FLOOR)}",
        f"  constant K   ≤ {constant}",
        f"  radius in E  ≤ {energy}   (K/2η)",
        f"  radius in ‖x‖ ≤ {norm}",
    ]


def _certificate_lines(certificate: Certificate) -> list[str]:
    rows = _strings(certificate.metric)
    width = max(len(entry) for row in rows for entry in row)
    lines = ["  M"] + ["    " + "  ".join(entry.rjust(width) for entry in row) for row in rows]
    for number, multipliers in enumerate(certificate.multipliers, start=1):
        pairs = ", ".join(f"{r}: ({c}, {mu})" for r, (c, mu) in multipliers.items())
        lines.append(f"  multipliers (c, μ) of head {number} by offset: {pairs}")
    return lines


def _strings(matrix: fmpq_mat) -> list[list[str]]:
    return [[str(entry) for entry in row] for row in matrix.tolist()]


def as_json(result: Result, layer: Layer) -> dict[str, Any]:
    """Everything as JSON; rationals are strings such as "3/4", bounds decimals rounded to the safe side."""
    verdict, certificate, found = result.verdict, result.certificate, result.bounds
    return {
        "kind": result.kind,
        "verdict": verdict.status.value,
        "grade": str(verdict.grade) if verdict.holds else None,
        "reason": verdict.reason,
        "says": says(result, layer),
        "layer": {"d": layer.dim, "n": layer.n, "causal": layer.causal, "heads": len(layer.heads)},
        "bounds": found
        and {
            "rate": str(found.rate),
            "constant": decimal_bound(found.constant, ROUND_CEILING),
            "energy_radius": decimal_bound(found.energy, ROUND_CEILING),
            "norm_radius": decimal_bound(found.norm, ROUND_CEILING),
        },
        "certificate": certificate
        and {
            "metric": _strings(certificate.metric),
            "rate": str(certificate.rate),
            "heads": [
                {
                    "share": _strings(share),
                    "multipliers": {str(r): [str(c), str(mu)] for r, (c, mu) in multipliers.items()},
                }
                for share, multipliers in zip(certificate.shares, certificate.multipliers, strict=True)
            ],
        },
    }
