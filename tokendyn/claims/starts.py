"""Rows made from a given one, whose starts (and, last, weights) are easier to prove things about."""

from collections.abc import Iterator
from fractions import Fraction

from tokendyn.claims.genome import Genome, Part

Row = tuple[Fraction, ...]
Start = list[list[Fraction]]
SCALES = (Fraction(1), Fraction(2), Fraction(4), Fraction(8))


def candidates(genome: Genome, raw: Row) -> Iterator[tuple[Genome, Row]]:
    """Other starts for the same weights, then for simpler weights; hypotheses are not consulted."""
    part = genome.parts["x"]
    tokens = _rows(raw, part)
    for weights in (raw, simplified(genome, raw, turns=False)):
        for start in _starts(genome, tokens):
            yield genome, _with(weights, part, start)
    if "p" in genome.parts and not genome.claim.sphere:
        yield genome, _with(raw, part, [[-c for c in token] for token in _rows(raw, genome.parts["p"])])
    for other, row in _resized(genome, raw):
        for weights in (row, simplified(other, row)):
            for start in _squares(other):
                yield other, _with(weights, other.parts["x"], start)


def _rows(raw: Row, part: Part) -> Start:
    width = part.shape[1]
    flat = raw[part.place]
    return [list(flat[k : k + width]) for k in range(0, len(flat), width)]


def _with(raw: Row, part: Part, start: Start) -> Row:
    flat = tuple(entry for token in start for entry in token)
    return raw[: part.place.start] + flat + raw[part.place.stop :]


def _starts(genome: Genome, tokens: Start) -> Iterator[Start]:
    if genome.claim.sphere:
        yield from _on_the_sphere(genome, tokens)
        return
    n, d = genome.n, genome.d
    first = next((token for token in tokens if any(token)), [Fraction(1)] * d)
    yield [first] * n
    yield [[Fraction(1)] * d] * n
    for k in range(d):
        yield [[Fraction(c == k) for c in range(d)]] * n
    for scale in SCALES:
        yield _mirrored([scale * c for c in first], n)
    yield [[Fraction(0)] * d, *tokens[1:]]
    yield [*tokens[:-1], [Fraction(0)] * d]
    for scale in (4, 32):
        yield [[scale * c for c in token] for token in tokens]
    yield [[abs(c) for c in token] for token in tokens]


def _mirrored(first: list[Fraction], n: int) -> Start:
    """a, −a, a, −a, …, and 0 at the end if n is odd."""
    start = [[c if k % 2 == 0 else -c for c in first] for k in range(n)]
    return start if n % 2 == 0 else [*start[:-1], [Fraction(0)] * len(first)]


def _on_the_sphere(genome: Genome, tokens: Start) -> Iterator[Start]:
    """Raw tokens: the coordinates' axes (stereographic 0 or a unit vector) and the first token, mirrored."""
    d = genome.d
    axes = [[Fraction(c == k) for c in range(d - 1)] for k in range(d)]
    for y in [*axes, tokens[0][:-1]]:
        yield [[*y, Fraction((-1) ** k)] for k in range(genome.n)]
    yield [[*axes[k % d], Fraction((-1) ** (k // d))] for k in range(genome.n)]


def _resized(genome: Genome, raw: Row) -> Iterator[tuple[Genome, Row]]:
    """The same weights for four tokens, where the claim admits them, d ≥ 2 and there is no encoding."""
    claim = genome.claim
    least, most = claim.tokens
    if genome.d < 2 or claim.sphere or claim.causal or claim.encoding != "none" or not least <= 4 <= most:
        return
    other = genome if genome.n == 4 else Genome(claim, 4, genome.d)
    start = genome.parts["x"].start
    yield other, raw[:start] + (Fraction(0),) * (other.size - start)


def _squares(genome: Genome) -> Iterator[Start]:
    """±r e_1, ±r e_2 in the order of a quarter turn."""
    for r in SCALES:
        corners = [(r, 0), (0, r), (-r, 0), (0, -r)]
        yield [[Fraction(c) for c in corner] + [Fraction(0)] * (genome.d - 2) for corner in corners]


def simplified(genome: Genome, raw: Row, turns: bool = True) -> Row:
    """Square, lower and diagonal raw parts replaced by the nearest aI + bJ (J quarter turns), in eighths.

    So that weights made of them commute with J wherever the recipes allow it. Without `turns` by their
    diagonal: then the axes are eigenvectors.
    """
    found = list(raw)
    for part in genome.parts.values():
        if part.kind in ("matrix", "lower", "diagonal"):
            found[part.place] = _turned(list(raw[part.place]), part.kind, genome.d, turns)
    return tuple(found)


def _turned(flat: list[Fraction], kind: str, d: int, turns: bool) -> list[Fraction]:
    places = {
        "matrix": lambda r, c: r * d + c,
        "lower": lambda r, c: r * (r + 1) // 2 + c,
        "diagonal": lambda r, c: r,
    }
    place, new = places[kind], [Fraction(0)] * len(flat)
    for r in range(d):
        mean = sum((flat[place(k, k)] for k in range(d)), Fraction(0)) / d
        new[place(r, r)] = _eighth(mean if turns else flat[place(r, r)])
    if kind == "matrix" and turns:
        for r in range(0, d - 1, 2):
            b = _eighth((flat[place(r + 1, r)] - flat[place(r, r + 1)]) / 2)
            new[place(r + 1, r)], new[place(r, r + 1)] = b, -b
    return new


def _eighth(value: Fraction) -> Fraction:
    return Fraction(round(value * 8), 8) or Fraction(value > 0, 8)
