"""S3–S3f: their bounds against texts written out here, their sharp cases, and where they stop."""

from fractions import Fraction
from itertools import pairwise
from math import acos, cos, exp, isclose, log, pi, sin

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from theory.evaluate import Values
from theory.instance import Instance
from theory.registry import statement
from theory.system import Setting
from theory.theorem import sides
from theory.theorems.canonical_tasks import turned_within
from theory.verdict import Status

ROTARY = Setting(rotary=True)
LOGITS = st.integers(2, 5).flatmap(
    lambda m: st.lists(st.lists(st.integers(-3, 3), min_size=m, max_size=m), min_size=m, max_size=m)
)


def head(logits, margin) -> Instance:
    return Instance.of(score=[[0]], value=[[0]], tokens=[[0]] * len(logits), logits=logits, margin=margin)


def transposed(rows):
    return [list(column) for column in zip(*rows, strict=True)]


def half_spread(lines) -> Fraction:
    return max(Fraction(max(line) - min(line), 2) for line in lines)


def share(m: int, eta: float) -> float:
    return 1 / (1 + (m - 1) * exp(-2 * eta))


# S3 and S3b


@given(LOGITS, st.randoms(use_true_random=False))
def test_no_texts_find_a_content_more_often_than_nearly_positional_heads_may(logits, random):
    """Contents may repeat and change from text to text; only the target's position counts."""
    m = len(logits)
    texts = [[random.randrange(m) for _ in range(m)] for _ in range(m)]
    for position, text in enumerate(texts):
        text[position] = 0
    weights = []
    for position, text in enumerate(texts):
        scores = [exp(logits[content][at]) for at, content in enumerate(text)]
        weights.append(scores[position] / sum(scores))
    bound = share(m, float(half_spread(transposed(logits))))
    assert sum(weights) / m <= bound + 1e-12  # rounding of a mean of at most 5 weights


@pytest.mark.parametrize(("name", "turn"), [("S3", transposed), ("S3b", list)])
@given(logits=LOGITS)
def test_the_smallest_deviation_is_all_that_counts(name, turn, logits):
    """η is half the widest spread: with it the statement applies and holds, with less it does not apply."""
    theorem, eta = statement(name), half_spread(turn(logits))
    assert theorem.applies(head(logits, eta)).status is Status.HOLDS
    assert not theorem.judge(theorem.claims[0], head(logits, eta)).fails
    assert theorem.applies(head(logits, eta - Fraction(1, 100))).fails


@given(LOGITS)
def test_indexing_is_retrieval_with_contents_and_positions_exchanged(logits):
    [claim], [mirrored] = statement("S3").claims, statement("S3b").claims
    found, pointed = sides(claim, head(logits, 1)), sides(mirrored, head(transposed(logits), 1))
    for (_, weight), (_, other) in zip(found, pointed, strict=True):
        assert (weight - other).contains(0)
        assert float((weight - other).rad()) < 1e-30  # 128 bits


@pytest.mark.parametrize("name", ["S3", "S3b"])
@pytest.mark.parametrize("m", [2, 3, 5])
def test_the_bound_is_attained(name, m):
    """A head that favours one content (position) by 2η over all others is as good as its η allows."""
    favoured = [[2 if k == 0 else -2 for _ in range(m)] for k in range(m)]
    logits = favoured if name == "S3" else transposed(favoured)
    bound, weight = sides(statement(name).claims[0], head(logits, 2))[0]
    assert (bound - weight).contains(0)
    assert isclose(float(weight.mid()), share(m, 2.0), rel_tol=1e-12)
    assert isclose(4.0, log((m - 1) * share(m, 2.0) / (1 - share(m, 2.0))), rel_tol=1e-12)


@pytest.mark.parametrize(("name", "rank"), [("S3", list), ("S3b", transposed)])
def test_a_pure_head_gives_exactly_one_in_m(name, rank):
    """Positional logits (columns constant) and symbolic ones, however peaked."""
    for _, weight in sides(statement(name).claims[0], head(rank([[5, 0, -3]] * 3), 0)):
        assert (weight - 1 / (weight * 0 + 3)).contains(0)
        assert float(weight.rad()) < 1e-30


# Turns


ANGLES = st.builds(
    lambda p, q: (Fraction(p * p - q * q, p * p + q * q), Fraction(2 * p * q, p * p + q * q)),
    st.integers(0, 9),
    st.integers(1, 9),
)


@given(ANGLES, st.integers(0, 30), st.integers(0, 12))
def test_turns_are_counted_as_their_angles_say(angle, count, halves):
    """Against acos, away from equality: 1e-9 is far above the rounding of 30 angles."""
    cosine, sine = angle
    excess = count * acos(cosine) - halves * pi
    assume(abs(excess) > 1e-9)
    assert turned_within(cosine, sine, count, halves) == (excess < 0)
    assert turned_within(cosine, -sine, count, halves) == (excess < 0)


@pytest.mark.parametrize(
    ("cosine", "sine", "count", "halves"),
    [(0, 1, 4, 2), (0, 1, 2, 1), (-1, 0, 1, 1), (-1, 0, 2, 2), (-1, 0, 6, 6)],
)
def test_full_and_half_turns_are_met_exactly(cosine, sine, count, halves):
    assert turned_within(Fraction(cosine), Fraction(sine), count, halves)
    assert not turned_within(Fraction(cosine), Fraction(sine), count + 1, halves)
    assert turned_within(Fraction(1), Fraction(0), count + 1, 0)


def scores(instance: Instance, row: int) -> list[float]:
    """What the system itself computes for one query, without M_kj."""
    values = Values.at(instance)
    return [float(values.enclose(score).mid()) for score in values.system.s.row(row)]


# S3c and S3e


def turning(half, tokens, margin, query=((1, 0), (0, 1))) -> Instance:
    """Turns by θ with (cos θ/2, sin θ/2) = half."""
    c, s = half[0] ** 2 - half[1] ** 2, 2 * half[0] * half[1]
    unity = [[1, 0], [0, 1]]
    return Instance.of(
        query=[list(row) for row in query],
        key=unity,
        value=unity,
        rotation=[[c, -s], [s, c]],
        tokens=tokens,
        margin=margin,
        setting=ROTARY,
    )


@given(ANGLES)
def test_a_turn_of_the_plane_is_as_slow_and_as_fast_as_twice_the_sine_of_half_its_angle(half):
    assume(half[0] > 0)
    speed = 2 * half[1]
    slow, fast = (statement(name).hypotheses[1] for name in ("S3c", "S3e"))
    for hypothesis, worse in ((slow, -1), (fast, 1)):
        assert hypothesis.decide(turning(half, [[1, 0]], speed)).status is Status.HOLDS
        assert hypothesis.decide(turning(half, [[1, 0]], speed + worse * Fraction(1, 1000))).fails


def test_a_turn_of_zero_is_not_fast():
    fast = statement("S3e").hypotheses[1]
    assert fast.decide(turning((Fraction(1), Fraction(0)), [[1, 0]], 0)).fails
    assert fast.decide(turning((Fraction(0), Fraction(1)), [[1, 0]], -1)).fails


@given(ANGLES, st.lists(st.integers(-4, 4), min_size=2, max_size=2))
def test_the_weight_beside_an_equal_key_is_bounded_by_the_frequency(half, token):
    """On the text itself: two equal keys and a query that would tell them apart."""
    assume(half[0] > 0)
    instance = turning(half, [token, token], 2 * half[1], query=((0, -1), (1, 0)))
    first, second = scores(instance, 1)
    size = token[0] ** 2 + token[1] ** 2
    assert abs(first - second) <= 2 * float(half[1]) * size + 1e-9
    theorem = statement("S3c")
    assert not any(theorem.judge(claim, instance).fails for claim in theorem.claims)


@pytest.mark.parametrize("angle", [0.05, 0.7, 1.9, pi])
@pytest.mark.parametrize("n", [2, 7, 40])
def test_log_odds_of_retrieval_stay_below_the_bound(angle, n):
    """Floats and any angle: content k with logits c cos(jθ + a), the others with c' cos(jθ + b)."""
    for wanted, other in [((3.0, 0.0), (0.0, 0.0)), ((2.0, 1.0), (2.0, -2.0)), ((5.0, 0.3), (5.0, 0.3))]:
        logits, beside = ([c * cos(j * angle + a) for j in range(n)] for c, a in (wanted, other))
        odds = [logits[j] - log(sum(exp(beside[i]) for i in range(n) if i != j)) for j in range(n)]
        parts = [(c * cos(a), c * sin(a)) for c, a in (wanted, other)]
        size = ((parts[0][0] - parts[1][0]) ** 2 + (parts[0][1] - parts[1][1]) ** 2) ** 0.5
        assert sum(odds) / n + log(n - 1) <= size / (n * sin(angle / 2)) + 1e-12  # rounding of n logs


def test_low_frequencies_retrieve_what_high_ones_cannot():
    """The same query and keys on 40 positions: weight one half at every position, or nowhere near it."""
    n, size = 40, 8.0
    worst = {}
    for angle in (0.01, 1.0):
        logits = [size * cos(j * angle) for j in range(n)]
        worst[angle] = min(exp(logit) / (exp(logit) + n - 1) for logit in logits)
    assert worst[0.01] > 0.5
    assert worst[1.0] < 1e-4
    needed = n * sin(1.0 / 2) * log(n - 1)  # S3e: D for weight one half at every position
    assert size < needed


# S3d


def indexing(turn, n: int, gain: int = 3) -> Instance:
    unity = [[1, 0], [0, 1]]
    return Instance.of(
        query=[[gain, 0], [0, gain]],
        key=unity,
        value=unity,
        rotation=[[turn[0], -turn[1]], [turn[1], turn[0]]],
        tokens=[[1, 1]] * n,
        setting=ROTARY,
    )


@given(ANGLES, st.integers(2, 6))
def test_within_one_turn_every_position_attends_to_itself(turn, n):
    theorem, instance = statement("S3d"), indexing(turn, n)
    assume(turn[1] > 0)
    if theorem.applies(instance).holds:
        for position in range(n):
            found = scores(instance, position)
            assert all(found[position] > other for at, other in enumerate(found) if at != position)


def test_beyond_one_turn_two_positions_tie():
    instance = indexing((Fraction(0), Fraction(1)), 5)
    assert statement("S3d").applies(instance).fails
    found = scores(instance, 0)
    assert found[0] == found[4] == max(found)


# S3f


def induction(symbols, turn, content=6, gain=2) -> Instance:
    """Contents ±1 and the mark (1, 0)."""
    c, s = turn
    eye = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    return Instance.of(
        query=[[content, 0, 0], [0, gain, 0], [0, 0, gain]],
        key=eye,
        value=eye,
        rotation=[[1, 0, 0], [0, c, -s], [0, s, c]],
        tokens=[[symbol, 1, 0] for symbol in symbols],
        setting=ROTARY,
    )


SYMBOLS = st.lists(st.sampled_from([-1, 1]), min_size=3, max_size=6)
SLOW = (Fraction(15, 17), Fraction(8, 17))  # 28°, so six tokens stay within half a turn


@given(SYMBOLS)
def test_the_last_match_is_the_maximum(symbols):
    *keys, asked = symbols
    assume(asked in keys)
    instance = induction(symbols, SLOW)
    assert statement("S3f").applies(instance).holds
    found, n = scores(instance, len(keys))[:-1], len(symbols)
    last = max(j for j, symbol in enumerate(keys) if symbol == asked)
    theta = acos(float(SLOW[0]))
    gap = min(2 * (1 - cos(theta)), 12 - 2 * (1 - cos((n - 1) * theta)))
    others = [score for j, score in enumerate(found) if j != last]
    assert all(found[last] - other >= gap - 1e-12 for other in others)
    weight = 1 / (1 + sum(exp(other - found[last]) for other in others))
    assert weight >= 1 / (1 + (n - 2) * exp(-gap)) - 1e-12


def test_without_the_angle_matches_tie():
    first, second, third, _ = scores(induction([1, 1, -1, 1], (Fraction(1), Fraction(0))), 3)
    assert first == second > third


def test_with_too_large_an_angle_an_early_match_wins():
    """A quarter turn: four positions back looks like the query's own position."""
    instance = induction([-1, 1, -1, -1, 1, 1], (Fraction(0), Fraction(1)))
    assert statement("S3f").applies(instance).fails
    found = scores(instance, 5)
    assert found[1] == max(found[:-1]) > found[4]


def test_beyond_half_a_turn_and_within_one_the_later_of_two_matches_need_not_lead():
    """A quarter turn and three keys: two positions back, the mark counts −1; three back, 0."""
    quarter = (Fraction(0), Fraction(1))
    assert statement("S3f").applies(induction([1, 1, 1], quarter)).holds
    instance = induction([1, 1, 1, 1], quarter)
    assert statement("S3f").applies(instance).fails
    first, second, *_ = scores(instance, 3)
    assert first > second


def test_the_gap_shrinks_with_the_angle():
    gaps = []
    for turn in [(Fraction(3, 5), Fraction(4, 5)), (Fraction(4, 5), Fraction(3, 5)), SLOW]:
        early, late, _ = scores(induction([1, 1, 1], turn), 2)
        gaps.append(late - early)
    assert all(larger > smaller > 0 for larger, smaller in pairwise(gaps))
