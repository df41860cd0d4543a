"""The search: false claims fall from the claim alone, true ones stand, and long transients deceive nobody."""

import dataclasses
import json
import math
import time
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from theory.errors import InputError
from tokendyn.claims.claim import Claim, make_claim, read_claim
from tokendyn.claims.command import find, library
from tokendyn.claims.confirm import confirmed, confirmed_exactly, established
from tokendyn.claims.dynamics import Systems
from tokendyn.claims.floats import eigenvalues
from tokendyn.claims.genome import Genome
from tokendyn.claims.hunt import (
    Judge,
    Suspect,
    Tally,
    equivariant,
    fresh,
    hunt,
    mutated,
    sizes,
    structured,
)
from tokendyn.claims.plain import plain
from tokendyn.claims.probing import NOT_REFUTED, REFUTED, VACUOUS, Report, probe
from tokendyn.claims.record import replay
from tokendyn.claims.shrink import fractions, shrunk
from tokendyn.claims.violation import largest

SETS = Path(__file__).parents[1] / "claims_sets"
FILES = [*library().values(), *sorted(SETS.glob("*/*.toml"))]
BRIEF = 2.0
"""Seconds for claims that stand. Those that fall get many more, and stop at the first proof."""
PLENTY = 120.0


def _random(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def _judged(claim: Claim, n: int, d: int, tokens: list, **weights: list) -> tuple[Judge, Suspect]:
    """A suspect with the raw numbers given for the claim's names, and for the tokens."""
    judge, genome = Judge(claim), Genome(claim, n, d)
    parts = {name.lstrip("_"): part for name, part in genome.parts.items()}
    raw = torch.zeros(genome.size, dtype=torch.float64)
    for name, numbers in {**weights, "x": tokens}.items():
        place = parts[name].place
        raw[place] = torch.tensor(numbers, dtype=torch.float64).flatten()
    score, when = judge.score(genome, raw[None])
    return judge, Suspect(genome, raw, score.item(), when.item())


def _stands(report: Report) -> None:
    tally = report.tally
    assert (report.verdict, report.found) == (NOT_REFUTED, None)
    assert 0 < tally.tried == sum(tally.sizes.values())
    assert tally.where is not None
    genome, raw = tally.where
    assert raw.shape == (genome.size,)
    again = Judge(report.claim).score(genome, raw[None])[0].item()
    # batches of other sizes round otherwise: the largest violation may be a few units of rounding
    assert again == pytest.approx(tally.worst, rel=1e-4, abs=1e-7)
    assert Judge(report.claim).feasible(genome, raw[None]).item() >= 0


# False claims


@pytest.mark.parametrize(
    "name", ["stable_value_is_enough", "residual_step_bound_without_n", "every_token_diverges"]
)
def test_false_claims_fall_from_the_claim_alone(name):
    """R1, T16's bound without the number of tokens, and every token under T8's conditions."""
    report = probe(find(name), seconds=PLENTY)
    assert report.verdict == REFUTED
    assert report.found.grade in ("exact", "interval")
    again = replay(report.found, digits=20)
    assert again.hypotheses.holds
    assert again.proved


def test_the_counterexample_to_r1_is_beyond_what_is_proved():
    """Two tokens converge under R1's conditions: a counterexample there would be wrong."""
    claim = dataclasses.replace(find("stable_value_is_enough"), tokens=(2, 2))
    _stands(probe(claim, seconds=BRIEF))


def test_the_same_seed_finds_the_same():
    found = [probe(find("every_token_diverges"), PLENTY, seed).found for seed in (3, 3, 4)]
    assert found[0] == found[1]
    assert found[0].raw != found[2].raw


def test_violations_at_later_times_are_found():
    """At the start the bound holds by far; nothing bounds two heads later on."""
    claim = make_claim(
        {
            "conclude": "norm(x[2]) <= 1 + norm(x0[1]) + norm(x0[2])",
            "causal": True,
            "heads": 2,
            "where": ["norm(x[i]) <= 1/2"],
            "tokens": 2,
            "dimension": 1,
        }
    )
    report = probe(claim, seconds=2 * BRIEF)
    assert report.verdict == REFUTED
    assert report.found.time > 0
    assert report.describe()["grade"] == report.found.grade
    json.dumps(report.describe(), allow_nan=False)


# True claims


@pytest.mark.parametrize(
    "name",
    [
        "symmetric_response_converges",
        "tokens_move_apart_in_the_response_metric",
        "causal_with_stable_value_converges",
    ],
)
def test_true_claims_stand(name):
    _stands(probe(find(name), seconds=BRIEF))


def test_an_identity_is_not_refuted_by_rounding():
    _stands(probe(read_claim(SETS / "true" / "l4_response_identity.toml"), seconds=BRIEF))


def test_cancellation_refutes_nothing():
    """Floats lose all digits of x² here, and call it violated; exact arithmetic does not."""
    big = 10**7
    claim = make_claim({"conclude": f"({big} + x[1][1])**2 - {big}**2 - 2*{big}*x[1][1] == x[1][1]**2"})
    report = probe(claim, seconds=BRIEF)
    assert report.tally.worst > 0.1
    assert report.found is None
    assert report.verdict == NOT_REFUTED


@pytest.mark.parametrize(("relation", "verdict"), [("<", REFUTED), ("<=", NOT_REFUTED)])
def test_equality_refutes_a_strict_relation_only(relation, verdict):
    claim = make_claim({"conclude": f"quad(W, x[i]) {relation} x[i] @ W @ x[i]"})
    assert probe(claim, seconds=BRIEF).verdict == verdict


def test_contradictory_hypotheses_are_vacuous():
    claim = make_claim(
        {
            "conclude": "X tends to 0",
            "matrices": {"W": "symmetric"},
            "where": ["eigmin(W) > 1", "eigmax(W) < 0"],
        }
    )
    report = probe(claim, seconds=BRIEF)
    assert (report.verdict, report.found, report.tally.tried) == (VACUOUS, None, 0)
    assert report.tally.drawn > 0
    assert report.tally.nearest < 0
    assert report.describe()["largest_violation"] is None


def test_rare_hypotheses_are_reached():
    """An interval of relative width 1e-4, which random draws miss: repairs follow the slope."""
    claim = make_claim(
        {
            "conclude": "eigmin(W) <= 4",
            "matrices": {"W": "symmetric"},
            "where": ["eigmin(W) >= 3", "eigmin(W) <= 3.0003"],
            "dimension": [2, 3],
        }
    )
    _stands(probe(claim, seconds=BRIEF))


# Almost every start

POLES = [[0, 0, 1], [0, 0, -1]]
"""Raw tokens on S²: opposite poles, an equilibrium, but not a stable one."""


@pytest.mark.parametrize("quantifier", ["every start", "almost every start"])
def test_unstable_equilibria_refute_every_start_only(quantifier):
    claim = dataclasses.replace(find("sphere_consensus_from_almost_every_start"), quantifier=quantifier)
    judge, suspect = _judged(claim, 2, 3, POLES, beta=[1])
    assert suspect.score > 0
    assert confirmed(judge, suspect) == (quantifier == "every start")


@pytest.mark.parametrize("quantifier", ["every start", "almost every start"])
def test_equal_tokens_refute_a_generic_rate_for_every_start_only(quantifier):
    """Equal tokens shrink like e^(−t), the second of two different ones like e^(−t/2)."""
    claim = make_claim(
        {
            "conclude": "rate of norm(x[2]) == -1/2",
            "causal": True,
            "quantifier": quantifier,
            "define": {"W": "eye(d)", "V": "-eye(d)"},
        }
    )
    judge, suspect = _judged(claim, 2, 1, [[1], [1]])
    assert suspect.score > 0
    assert confirmed(judge, suspect) == (quantifier == "every start")
    judge, suspect = _judged(claim, 2, 1, [[1], [0.5]])
    assert not confirmed(judge, suspect)


@pytest.mark.parametrize(
    "path",
    [
        SETS / "true" / "t14_rate_of_the_second_token.toml",
        library()["sphere_consensus_from_almost_every_start"],
    ],
    ids=lambda path: path.stem,
)
def test_true_claims_of_almost_every_start_stand(path):
    _stands(probe(read_claim(path), seconds=BRIEF))


# What floats must not believe

CAUSAL = {"conclude": "X tends to 0", "causal": True, "define": {"W": "-eye(d)", "V": "-eye(d)"}}


@pytest.mark.parametrize("tokens", [(131, 0), (-8, 0, -1, 0)], ids=str)
def test_metastable_states_are_not_confirmed(tokens):
    """They tend to 0 (T14), after a time that no run reaches: first tokens repel those behind them."""
    judge, suspect = _judged(make_claim(CAUSAL), len(tokens), 1, [[x] for x in tokens])
    assert suspect.score > 0  # a run of the search is deceived
    assert not confirmed(judge, suspect)


def test_what_does_stand_is_confirmed():
    """The same tokens under V = I, W = 1, where the first one grows: the check does not refuse all."""
    claim = make_claim({**CAUSAL, "define": {"W": "eye(d)", "V": "eye(d)"}})
    judge, suspect = _judged(claim, 2, 1, [[1], [0.5]])
    assert suspect.score > 0
    assert confirmed(judge, suspect)


@pytest.mark.parametrize(
    "conclude",
    ["rate of norm(x[1] - x[2]) <= 0", "norm(x[1] - x[2]) is bounded", "power of norm(x[i] - x[j]) <= 0"],
)
def test_differences_lost_beside_large_tokens_are_not_confirmed(conclude):
    """With W = 0, V = I differences are constant while tokens grow like e^t and drown them."""
    claim = make_claim({"conclude": conclude, "define": {"W": "0*eye(d)", "V": "eye(d)"}})
    for tokens in ([[1, 0.3], [2, 1]], [[1e3, 0.1], [1e3, 0.3]], [[5, 5], [5.001, 5]]):
        assert not confirmed(*_judged(claim, 2, 2, tokens))


ECCENTRIC = [[-0.256, -0.687], [0.531, 0.908]]
"""Eigenvalues 0.326 ± 0.158i: the norm of a token oscillates about e^(0.326 t), slower than runs sample."""


@pytest.mark.parametrize(("bound", "real"), [("abscissa(V)", False), ("abscissa(V)/2", True)])
def test_oscillations_refute_no_rate(bound, real):
    claim = make_claim({"conclude": f"rate of norm(x[i]) <= {bound}", "where": ["norm(x[i]) > 0"]})
    judge, suspect = _judged(claim, 1, 2, [[1, 0]], W=[[0, 0], [0, -1]], V=ECCENTRIC)
    assert confirmed(judge, suspect) == real


def test_rates_that_a_run_does_not_tell_have_no_margin():
    """A change of e^(−0.06) over the run, far below its oscillation, says nothing about a limit."""
    claim = make_claim({"conclude": "rate of norm(x[i]) <= 0"})
    _, suspect = _judged(claim, 1, 2, [[1, 0]], V=[[-0.001, -1], [2, -0.001]])
    assert suspect.score == -torch.inf


def test_scores_stay_on_the_device_of_their_items():
    assert largest(torch.empty(2, 0, device="meta")).device.type == "meta"


@pytest.mark.parametrize(("tokens", "real"), [([0, 0, 0.8, -0.8], False), ([0.5, 0.2, 0.8, -0.8], True)])
def test_growth_from_rounding_refutes_nothing(tokens, real):
    """Mirrored pairs stay mirrored, but unstably: in floats their sum grows from 1e-19 to 1e33."""
    where = ["norm(x[3]+x[4]) == 0", *([] if real else ["norm(x[1]+x[2]) == 0"])]
    matrices = {"V": "identity", "W": "symmetric, positive definite"}
    claim = make_claim({"conclude": "norm(x[1]+x[2]) tends to 0", "where": where, "matrices": matrices})
    judge, genome = Judge(claim), Genome(claim, 4, 1)
    raw = torch.tensor([1.1, *tokens], dtype=torch.float64)
    assert raw.shape == (genome.size,)
    suspect = Suspect(genome, raw, judge.score(genome, raw[None])[0].item())
    assert suspect.score > 0
    assert confirmed(judge, suspect) == real


SPHERE = {"sphere": True, "matrices": {"V": "identity"}, "conclude": "consensus"}


@pytest.mark.parametrize("quantifier", ["every start", "almost every start"])
def test_slow_instability_refutes_every_start_only(quantifier):
    """Opposite tokens part at the rate e^(−2·9): no run shows it, the eigenvalues do."""
    claim = make_claim({**SPHERE, "quantifier": quantifier, "define": {"W": "9*eye(d)"}})
    judge, suspect = _judged(claim, 2, 3, POLES)
    assert suspect.score > 0
    assert confirmed(judge, suspect) == (quantifier == "every start")


@pytest.mark.parametrize("hemisphere", [True, False])
def test_an_equilibrium_outside_the_hypotheses_refutes_nothing(hemisphere):
    """Almost opposite tokens of a hemisphere meet, though slowly; the opposite ones beside are in none."""
    entries = {"vectors": {"v": "any"}, "where": ["inner(v, x[i]) > 0"]} if hemisphere else {}
    claim = make_claim({**SPHERE, **entries, "define": {"W": "9*eye(d)"}})
    given = {"v": [1, 0]} if hemisphere else {}
    judge, suspect = _judged(claim, 2, 2, [[1e-4, 1], [-1e-4, -1]], **given)
    assert suspect.score > 0
    assert confirmed(judge, suspect) != hemisphere


@pytest.mark.parametrize(("step", "real"), [("2 - 1/20000000", False), ("2", True)])
def test_layers_that_shrink_slowly_are_not_confirmed(step, real):
    claim = make_claim({"conclude": "X tends to 0", "step": step, "define": {"V": "-eye(d)"}})
    judge, suspect = _judged(claim, 1, 1, [[1]])
    assert suspect.score > 0
    assert confirmed(judge, suspect) == real


@pytest.mark.parametrize(("value", "relation"), [("", "<= 10"), ("", "== 1"), ("-", ">= -1"), ("-", "== -5")])
def test_exponentials_are_no_powers(value, relation):
    """Their power is ±∞, which no slope in log t comes to."""
    entries = {
        "tokens": [1, 2],
        "dimension": 1,
        "where": ["norm(x[i]) > 0"],
        "define": {"V": f"{value}eye(d)"},
    }
    report = probe(make_claim({"conclude": f"power of norm(x[i]) {relation}", **entries}), seconds=PLENTY)
    assert (report.verdict, report.found.grade) == (REFUTED, "exact")


@pytest.mark.parametrize(("factor", "verdict"), [("5", NOT_REFUTED), ("19/10", REFUTED)])
def test_trends_of_layers_that_name_the_layer(factor, verdict):
    """Norms are halved at most: x = (1, 0)."""
    claim = read_claim(SETS / "true" / "layers_time_factor.toml")
    claim = make_claim({**claim.describe(), "conclude": f"norm(x[i]) * ({factor})**t is nondecreasing"})
    assert probe(claim, seconds=BRIEF).verdict == verdict


def test_weights_that_only_rounding_leaves_refute_nothing():
    """V = 0, of which floats leave 1e-17; time is counted in units of its size, and tokens grow."""
    claim = read_claim(SETS / "true" / "left_null_vector_is_bounded.toml")
    judge, genome = Judge(claim), Genome(claim, 1, 1)
    deceived = 0
    for tenths in range(1, 100):
        raw = [Fraction(tenths, 10) for _ in range(genome.size)]
        deceived += confirmed(judge, judge.suspect(genome, raw))
        assert confirmed_exactly(judge, genome, raw) is None
    assert deceived > 0
    grows = make_claim({"conclude": "norm(x[1]) is bounded", "tokens": 1, "define": {"V": "eye(d)/3"}})
    genome = Genome(grows, 1, 1)
    assert confirmed_exactly(Judge(grows), genome, [Fraction(1)] * genome.size) is not None


def test_weights_that_are_not_defined_refute_nothing():
    """A matrix of rank 1 has no inverse, but for what rounding leaves of it."""
    define = {"V": "inv(outer(ell, ell)) @ outer(ell, ell)"}
    claim = make_claim(
        {"conclude": "X tends to 0", "dimension": 2, "vectors": {"ell": "any"}, "define": define}
    )
    judge, genome = Judge(claim), Genome(claim, 1, 2)
    for tenths in range(1, 30):
        raw = [Fraction(tenths + k, 10) for k in range(genome.size)]
        assert confirmed_exactly(judge, genome, raw) is None


@pytest.mark.parametrize(("sign", "score", "real"), [("", 49, False), ("-", 1, True)])
def test_turning_as_a_whole_is_no_sign_of_life(sign, score, real):
    """Under V = I and a turn tokens close in, too slowly to see; under V = −I they do go to opposite ends."""
    weights = {"W": f"{score}*eye(d)", "V": f"{sign}eye(d) + [[0, -1/50], [1/50, 0]]"}
    claim = make_claim({**SPHERE, "matrices": {}, "define": weights, "quantifier": "almost every start"})
    judge, suspect = _judged(claim, 2, 2, [[1, 1], [0, 1]])
    assert suspect.score > 0
    assert confirmed(judge, suspect) == real


@pytest.mark.parametrize(("score", "apart", "real"), [(1, 2e-5, False), (-1, 1, True)])
def test_the_motion_of_others_is_no_evidence(score, apart, real):
    """The third coordinates collapse like t^(−1/2) from 1e9 on, or never; the others turn for ever."""
    weights = {"V": "[[0, -1/20, 0], [1/20, 0, 0], [0, 0, -1]]", "W": f"diag(0, 0, {score})"}
    claim = make_claim({"conclude": "abs(x[i][3] - x[j][3]) tends to 0", "define": weights})
    judge, suspect = _judged(claim, 2, 3, [[1, 0, apart], [1, 0, -apart]])
    assert confirmed(judge, suspect) == real


@pytest.mark.parametrize(
    ("other", "quantifier", "real"),
    [
        ("179/200", "almost every start", False),
        ("1/2", "almost every start", False),
        ("1/2", "every start", True),
    ],
)
def test_a_start_on_a_slower_mode(other, quantifier, real):
    """Its rate is that of the mode; nobody waits until starts near by show the faster one."""
    weights = {"W": "eye(d)", "V": f"diag(1, {other})"}
    entries = {"conclude": "rate of norm(x[i]) == 1", "define": weights, "quantifier": quantifier}
    judge, suspect = _judged(make_claim(entries), 1, 2, [[0, -1]])
    assert suspect.score > 0
    assert confirmed(judge, suspect) == real


def test_directions_of_growing_tokens_are_compared():
    """(1, 0) and (−1, 1) under V = W = I: each attends to itself at last, when rounding has long hidden 1."""
    claim = make_claim({"conclude": "directions align up to sign", "define": {"V": "eye(d)", "W": "eye(d)"}})
    judge, suspect = _judged(claim, 2, 2, [[1, 0], [-1, 1]])
    assert suspect.score > 0
    assert confirmed(judge, suspect)


@pytest.mark.parametrize("dimension", [2, 3])
def test_a_continuum_of_equilibria_is_one_where_attention_is_mild(dimension):
    """Under a causal mask and V = −I on the sphere, the first token rests wherever it is; the second goes
    opposite to it, and the third where it sees both alike."""
    entries = {
        "causal": True,
        "define": {"W": "diag(1, 1/2, 1/3)" if dimension == 3 else "diag(1, 1/2)", "V": "-eye(d)"},
    }
    claim = make_claim(
        {"sphere": True, "conclude": "bipartite consensus", "quantifier": "almost every start", **entries}
    )
    tokens = [[0.3, 0.2, 1], [0.1, -0.6, 1], [0.8, 0.4, 1]]
    judge, suspect = _judged(claim, 3, dimension, [token[-dimension:] for token in tokens])
    assert suspect.score > 0
    assert confirmed(judge, suspect)


def test_a_trend_that_only_rounding_shows_has_no_score():
    """The determinant of collinear tokens' covariance is 0, and −0.0004 in floats."""
    claim = read_claim(SETS / "false" / "volume_grows.toml")
    line = [
        [-3310.2973978215564, 672.1645701670636],
        [3310.2973978215564, -672.1645701670636],
        [0, 0],
        [0, 0],
    ]
    assert _judged(claim, 4, 2, line)[1].score < 1e-5
    judge, suspect = _judged(claim, 4, 2, [[4, -0.5], [1, 0], [6, 0], [8, 1]])
    assert suspect.score > 1e-3
    assert confirmed(judge, suspect)


@pytest.mark.parametrize(
    ("conclude", "tokens", "real"),
    [
        ("quad(W, x[i]) <= exp(-2*t)*quad(W, x0[i])", [[-1], [0]], False),
        ("quad(W, x[i]) <= exp(-3*t)*quad(W, x0[i])", [[-1], [0.5]], True),
    ],
)
def test_chattering_across_a_tie_refutes_nothing(conclude, tokens, real):
    """A token at 0 ties with itself: steps throw it aside by their length (Filippov: it stays)."""
    entries = {"attention": "hardmax", "matrices": {"W": "symmetric"}, "define": {"V": "-eye(d)"}}
    judge, suspect = _judged(make_claim({"conclude": conclude, **entries}), 2, 1, tokens, W=[[0.5]])
    assert suspect.score > 0
    assert confirmed(judge, suspect) == real


@pytest.mark.parametrize(("factor", "real"), [("1", True), ("7/5", False)])
@pytest.mark.parametrize("quantifier", ["every start", "almost every start"])
def test_what_settles_like_a_power_of_time_is_extrapolated(factor, real, quantifier):
    """Tokens tend to mean(p) − p_i = (−4/3, 2/3, 2/3) like t^(−1/2), from above."""
    claim = make_claim(
        {
            "conclude": f"eventually norm(x[1]) <= {factor}*norm(p[1])",
            "encoding": "absolute in scores",
            "define": {"V": "-eye(d)", "W": "eye(d)"},
            "quantifier": quantifier,
        }
    )
    start = [[-1.5], [0.5], [0.9]]
    judge, suspect = _judged(claim, 3, 1, start, p=[[1], [-1], [-1]])
    assert (suspect.score > 0) == real
    assert confirmed(judge, suspect) == real


@pytest.mark.parametrize(("slope", "real"), [(2, True), (0, False)])
def test_what_vanishes_exponentially_has_no_power(slope, real):
    """ALiBi makes the collapse at t^(−1/2) exponential; runs to 60,000 underflow."""
    claim = make_claim(
        {
            "conclude": "power of norm(x[i]) == -1/2",
            "encoding": "alibi",
            "define": {"V": "-eye(d)", "W": "eye(d)"},
            "quantifier": "almost every start",
        }
    )
    judge, suspect = _judged(claim, 2, 1, [[1], [-0.5]], slope=slope)
    assert (suspect.score > 0) == real
    assert confirmed(judge, suspect) == real


def test_gaps_that_freeze_while_tokens_grow_are_confirmed():
    """All attend to one extreme token, and move alike in the end."""
    claim = make_claim({"conclude": "at most 2 clusters", "define": {"V": "eye(d)", "W": "-eye(d)"}})
    for quantifier in ("every start", "almost every start"):
        stated = dataclasses.replace(claim, quantifier=quantifier)
        assert confirmed(*_judged(stated, 3, 1, [[-0.53], [-0.4], [-1.43]]))


@pytest.mark.parametrize("quantifier", ["every start", "almost every start"])
@pytest.mark.parametrize(("slow", "real"), [(-0.25, True), (0.002, False)])
def test_a_token_that_vanishes_beside_one_that_stands(slow, real, quantifier):
    """Hidden by the other's size, the first goes on to 0; or it grows, after all runs, and draws it along."""
    values = {"V1": "diag(1, -1)", "V2": f"diag(-5/4, 1 + {slow})"}
    entries = {"define": {"W1": "4*eye(d)", "W2": "eye(d)", **values}, "quantifier": quantifier}
    claim = make_claim({"conclude": "norm(x[2]) is unbounded", "causal": True, "heads": 2, **entries})
    found = established(*_judged(claim, 2, 2, [[0, 1e-13], [3, 0]]))
    assert bool(found) == real
    assert not found or found.raw.tolist() == [0, 0, 3, 0]


def test_a_hidden_token_may_wake():
    """Its attention waits for the product of both, which grows; 0 is no start of the claim."""
    claim = make_claim(
        {
            "conclude": "norm(x[2])/norm(x[1]) tends to 100/199",
            "quantifier": "almost every start",
            "encoding": "bias",
            "heads": 2,
            "define": {"W1": "eye(d)", "V1": "eye(d)", "W2": "-eye(d)", "V2": "-199/100*eye(d)"},
            "where": [
                *("b[1, 1] == 0", "b[1, 2] == 0", "b[2, 1] == -1000", "b[2, 2] == 0"),
                *("x[2][1] >= 9", "x[2][1] <= 11", "x[1][1] - x[2][1] >= 9", "x[1][1] - x[2][1] <= 11"),
            ],
        }
    )
    assert not established(*_judged(claim, 2, 1, [[20], [10]], b=[[0, 0], [-1000, 0]]))


@pytest.mark.parametrize(("skew", "real"), [(0, False), (1.5, True)])
def test_starts_that_slowly_part_from_a_null_set(skew, real):
    """Tokens on a line keep t·tr Cov = 1/2; beside it that is so with much skewness only."""
    claim = make_claim(
        {
            "conclude": "t*trace(Cov) tends to trace(inv(W) @ inv(W).T)/2",
            "define": {"V": "-W"},
            "quantifier": "almost every start",
        }
    )
    judge, suspect = _judged(claim, 3, 2, [[0, 0], [2, -2], [2, -2]], W=[[1, -skew], [skew, 1]])
    assert suspect.score > 0
    assert confirmed(judge, suspect) == real


LINE = {"define": {"V": "-eye(d)", "W": "eye(d)"}}
PLANE = {"V": "[[1, 0], [0, 0]]", "W": "[[0, 0], [0, -1]]"}
HILL = {"W": "beta*eye(d)", "V": "eye(d)"}
UPHILL = {"define": {"V": "-eye(d)", "W": "-eye(d)"}}
ASLEEP = {
    "causal": True,
    "heads": 2,
    "define": {"W1": "0*eye(d)", "V1": "[[0, -1/2], [1/2, 0]]", "W2": "[[-1, 0], [-1, -1]]", "V2": "-eye(d)"},
}
SLOPE = {**LINE, "encoding": "alibi", "where": ["b[1, 2] < 0"]}
LATE = {
    "gaps drown in growth": (
        {"conclude": "abs(x[1][1] - x[2][1]) tends to 0", "define": PLANE, "where": ["x[1][2] < x[2][2]"]},
        ([[1, 1], [2, 1.5]], {}),
    ),
    "gaps shrink slowly beside growth": (
        {"conclude": "abs(x[1][1] - x[2][1]) tends to 0", "define": PLANE, "where": ["x[1][2] < x[2][2]"]},
        ([[1, 1], [2, 1.02]], {}),
    ),
    "a saddle is left late": (
        {
            "conclude": "consensus",
            "sphere": True,
            "scalars": {"beta": "> 0"},
            "vectors": {"v": "any"},
            "define": HILL,
            "where": ["inner(v, x[i]) > 0"],
        },
        ([[5e-10, 1], [-5e-10, -1]], {"beta": [5**0.5], "v": [1000, 0]}),
    ),
    "a small slope works late": (
        {"conclude": "power of norm(x[1]) <= -1", **SLOPE},
        ([[1, 0], [-0.5, 0]], {"slope": [0.003]}),
    ),
    "a tiny slope works later": (
        {"conclude": "power of norm(x[1]) <= -1", **SLOPE},
        ([[1, 0], [-0.5, 0]], {"slope": [1e-5]}),
    ),
    "a large power underflows": (
        {"conclude": "power of norm(x[1])**200 >= -110", **LINE},
        ([[10, 0], [-5, 0]], {}),
    ),
    "an exponential is no power": (
        {"conclude": "power of norm(x[1]) <= -2000", "causal": True, **LINE},
        ([[1, 0], [-0.5, 0]], {}),
    ),
    "a creep of a root of log t has no rate yet": (
        {"conclude": "rate of max(norm(x[a]) for a in tokens) <= -1/3", "causal": True, **UPHILL},
        ([[2, 0], [-1, 0]], {}),
    ),
    "a tiny part outgrows the rest": (
        {
            "conclude": "x[1][1]/norm(x[1]) tends to 0",
            "define": {"V": "diag(1, 11/10)", "W": "0*eye(d)"},
            "where": ["x[i][2] > 0"],
        },
        ([[3, 3e-9], [3, 3e-9]], {}),
    ),
    "layers of small tokens": (
        {"conclude": "X tends to 0", "step": "1", "define": {"V": "-eye(d)/4", "W": "eye(d)/4"}},
        ([[0, 0], [-2e-6, 0]], {}),
    ),
    "a turn is damped once attention wakes": (
        {"conclude": "X tends to 0", **ASLEEP},
        ([[0, 0], [0, -12]], {}),
    ),
    "such a turn drives another token": (
        {"conclude": "X tends to 0", **ASLEEP},
        ([[0, 0], [-12, 0], [0, 0]], {}),
    ),
    "a turn has no rate before": (
        {"conclude": "rate of norm(x[2]) <= -1/4", **ASLEEP},
        ([[0, 0], [0, -4]], {}),
    ),
    "a quantity passes through 0": (
        {"conclude": "power of max(norm(x[1]) - 1/5, 0) + max(1/10 - norm(x[1]), 0) >= -1", **LINE},
        ([[1, 0], [-0.5, 0]], {}),
    ),
}
"""True claims, and a start that looks like a counterexample for as long as runs last."""


@pytest.mark.parametrize("quantifier", ["every start", "almost every start"])
@pytest.mark.parametrize("why", LATE)
def test_true_claims_that_runs_end_too_soon_for(why, quantifier):
    entries, (tokens, weights) = LATE[why]
    assert not established(
        *_judged(make_claim({**entries, "quantifier": quantifier}), len(tokens), 2, tokens, **weights)
    )


def test_exact_polygons_are_no_suspects_for_almost_every_start():
    """They stay on the circle for ever, and nothing beside them does."""
    claim = make_claim({**SPHERE, "tokens": 3, "dimension": 2, "define": {"W": "-eye(d)/10"}})
    for quantifier, found in (("every start", True), ("almost every start", False)):
        stated, deadline = dataclasses.replace(claim, quantifier=quantifier), time.monotonic() + BRIEF
        suspects = list(islice(hunt(stated, deadline, 0, Tally(), Judge(stated)), 5))
        assert bool(suspects) == found


def test_suspects_that_were_none_do_not_come_again():
    claim, deadline = find("every_token_diverges"), time.monotonic() + PLENTY
    first = next(hunt(claim, deadline, 0, Tally(), Judge(claim)))
    again = next(hunt(claim, deadline, 0, Tally(refused={first.key}), Judge(claim)))
    assert first.key != again.key


@pytest.mark.parametrize(
    "options",
    [{"seconds": math.nan}, {"seconds": math.inf}, {"seed": 2**63}, {"seed": -1}, {"device": "banana"}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError, match=r"time|seed|device"):
        probe(find("every_token_diverges"), **{"seconds": BRIEF, **options})


def test_suspects_outside_the_hypotheses_are_not_confirmed():
    claim = make_claim({"conclude": "norm(x[i]) <= 1", "where": ["norm(x[1]) <= 2"]})
    assert confirmed(*_judged(claim, 2, 1, [[1.5], [0]]))
    assert not confirmed(*_judged(claim, 2, 1, [[2.5], [0]]))


# Making it small


def _weight(suspect: Suspect) -> tuple[int, int, int]:
    """Numbers, then the sum of their denominators and of their numerators."""
    numbers = fractions(suspect.raw)
    return len(numbers), sum(q.denominator for q in numbers), sum(abs(q.numerator) for q in numbers)


SHRINK = {
    "at once": ({"conclude": "norm(x[i]) <= 1", "where": ["norm(x[1]) > 1/3"]}, 5, 3),
    "weights": ({"conclude": "eigmin(W) >= -1", "matrices": {"W": "symmetric"}}, 4, 3),
    "fixed size": ({"conclude": "norm(x[1] - x[2]) <= 1", "tokens": 3, "dimension": [2, 3]}, 3, 3),
}


@pytest.mark.parametrize("name", SHRINK)
def test_shrinking_keeps_the_violation(name):
    entries, n, d = SHRINK[name]
    claim = make_claim(entries)
    judge, genome = Judge(claim), Genome(claim, n, d)
    raw = 3 * torch.randn(200, genome.size, generator=_random(), dtype=torch.float64)
    raw = raw[judge.feasible(genome, raw) >= 0]
    score, when = judge.score(genome, raw)
    at = int(score.argmax())
    before = Suspect(genome, raw[at], score[at].item(), when[at].item())
    assert confirmed(judge, before)
    after = shrunk(judge, before, time.monotonic() + PLENTY)
    assert confirmed(judge, after)
    assert after.score > 0
    # by hand: no fewer tokens or dimensions than the claim's least are needed in any of the three
    assert (after.genome.n, after.genome.d) == (claim.tokens[0], claim.dimension[0])
    assert all(small < large for small, large in zip(_weight(after), _weight(before), strict=True))
    assert max(q.denominator for q in fractions(after.raw)) <= 10
    assert sum(after.raw == 0) >= after.genome.size - 4


def test_shrinking_stops_in_time():
    judge, suspect = _judged(make_claim({"conclude": "norm(x[i]) <= 1"}), 2, 1, [[2.345], [1.1]])
    assert shrunk(judge, suspect, time.monotonic() - 1) is suspect


# The search's parts


def _starts(n: int, d: int) -> Tensor:
    genome = Genome(make_claim({"conclude": "X tends to 0"}), n, d)
    raw = torch.randn(400, genome.size, generator=_random(), dtype=torch.float64)
    return structured(genome, raw, _random(1))[:, genome.parts["x"].place].unflatten(1, (n, d))


def test_starts_have_structure():
    x = _starts(4, 2)
    gram = x @ x.mT
    seen = {
        "equal": (x == x[:, :1]).all((1, 2)),
        "mirrored": (x[:, 1::2] == -x[:, ::2]).all((1, 2)),
        "one zero": ((x == 0).all(2).sum(1) == 1),
        "square": ((gram[:, 0, 0] - gram[:, 2, 2]).abs() < 1e-12) & (gram[:, 0, 1].abs() < 1e-12),
        "on a line": (torch.linalg.svdvals(x)[:, 1] < 1e-12) & (x != x[:, :1]).any(2).any(1),
        "two places": (x[:, ::2] == x[:, :1]).all((1, 2)) & (x[:, 1::2] == x[:, -1:]).all((1, 2)),
    }
    for name, rows in seen.items():
        assert rows.sum() > 3, name
    assert (torch.linalg.svdvals(x)[:, 1] > 0.01).sum() > 100  # others are left as they were
    assert (_starts(3, 2)[:, -1] == 0).all(1).sum() > 3  # mirrored, with an odd one out at 0


@pytest.mark.parametrize(
    "matrices", [{"W": "positive definite", "A": "negative definite"}, {"W": "any", "A": "any"}]
)
def test_equivariant_rows_commute_with_rotations(matrices):
    claim = make_claim({"conclude": "X tends to 0", "matrices": matrices, "define": {"V": "inv(A) @ W"}})
    genome = Genome(claim, 5, 2)
    raw = equivariant(genome, torch.randn(20, genome.size, generator=_random(), dtype=torch.float64))
    systems = Systems(genome, raw)
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]], dtype=torch.float64)
    for name in ("W", "A", "V"):
        matrix = systems.values[name].data
        assert torch.allclose(matrix @ turn, turn @ matrix, rtol=1e-12)
    x = torch.randn(20, 5, 2, generator=_random(2), dtype=torch.float64)
    # the solver's inverse of A is good to its condition number times 1e-16
    assert torch.allclose(systems.velocity(x @ turn.T), systems.velocity(x) @ turn.T, rtol=1e-9, atol=1e-12)
    centre, sides = systems.x0.sum(1), (systems.x0 - systems.x0.roll(1, 1)).norm(dim=2)
    assert centre.abs().max() < 1e-12  # a regular polygon
    assert torch.allclose(sides, sides[:, :1].expand_as(sides), rtol=1e-12)


def test_children_take_after_their_parents():
    genome = Genome(make_claim({"conclude": "X tends to 0"}), 3, 2)
    elite = torch.randn(2, genome.size, generator=_random(), dtype=torch.float64)
    child = mutated(genome, elite, 300, _random(1))
    x = genome.parts["x"].place
    weights, tokens = child[:, : x.start], child[:, x]
    kept = (weights[:, None] == elite[None, :, : x.start]).all(2)  # (children, elite)
    ratio = tokens[:, None] / elite[None, :, x]
    scaled = kept & ((ratio / ratio[..., :1] - 1).abs() < 1e-12).all(2)
    crossed = kept & (tokens[:, None] == elite.flip(0)[None, :, x]).all(2)
    assert child.shape == (300, genome.size)
    assert child.isfinite().all()
    assert scaled.any(0).all()
    assert crossed.any(0).all()
    assert (~kept.any(1)).sum() > 50


def test_slopes_lead_to_hypotheses_and_to_violations():
    claim = make_claim(
        {"conclude": "eigmin(W) <= 9", "matrices": {"W": "symmetric"}, "where": ["eigmin(W) >= 3"]}
    )
    judge, genome = Judge(claim), Genome(claim, 2, 2)
    raw = torch.randn(50, genome.size, generator=_random(), dtype=torch.float64)
    before = judge.feasible(genome, raw)
    assert (before < 0).all()
    mended = judge.repaired(genome, raw, steps=200)
    after = judge.feasible(genome, mended)
    assert (after > before).all()
    inside = mended[after >= 0]
    assert len(inside) > 10
    moved = judge.sharpened(genome, inside)
    assert (judge.score(genome, moved)[0] > judge.score(genome, inside)[0]).all()


def test_generations_come_closer_than_chance():
    """Cauchy and Schwarz are sharp where two 3 × 3 matrices are parallel: no draw of 256 is nearly so."""
    claim = make_claim(
        {
            "conclude": "trace(B.T @ C) <= fro(B)*fro(C)",
            "matrices": {"B": "any", "C": "any"},
            "where": ["fro(B) >= 1", "fro(C) >= 1"],
            "tokens": 2,
            "dimension": 3,
        }
    )
    judge, tally, genome = Judge(claim), Tally(), Genome(claim, 2, 3)
    rows = fresh(genome, 256, _random())
    rows = rows[judge.feasible(genome, rows) >= 0]
    chance = judge.score(genome, rows)[0].max().item()
    for suspect in hunt(claim, time.monotonic() + BRIEF, 0, tally, judge):
        assert suspect.score < 1e-6  # the bound is true, but for rounding
    assert chance < -0.05
    assert tally.worst > -0.005


def test_sizes_start_small():
    claim = make_claim({"conclude": "X tends to 0", "tokens": [2, 4], "dimension": [1, 3]})
    found = sizes(claim)
    assert found[0] == (2, 1)
    assert found[-1] == (4, 3)
    assert len(set(found)) == 9


# Claims that cannot be evaluated


@pytest.mark.parametrize(
    ("entries", "got"),
    [
        ({"conclude": "x[i] tends to 0"}, r"x\[i\]"),
        ({"conclude": "W @ x[i] <= 1"}, r"W @ x\[i\]"),
        ({"conclude": "X tends to 0", "where": ["W >= 0"]}, "where: got W"),
        ({"conclude": "X tends to 0", "step": "W"}, "step: got W"),
        ({"conclude": "X tends to 0", "define": {"W": "1"}}, "define.W"),
        ({"conclude": "norm(x[9]) <= 1"}, r"x\[9\]"),
        ({"conclude": "x[1][9] <= 1"}, "9"),
        ({"conclude": "norm(p[1]) <= 1"}, "encoding"),
    ],
    ids=str,
)
def test_claims_that_make_no_sense_are_refused(entries, got):
    with pytest.raises(InputError, match=got):
        probe(make_claim(entries), seconds=BRIEF)


# All claims that we keep


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_kept_claims_can_be_evaluated_at_all_sizes(path):
    claim, all_sizes = read_claim(path), []
    for n, d in sizes(claim):
        genome = Genome(claim, n, d)
        # a short horizon suffices to evaluate; layers need a few
        judge = Judge(claim, horizon=4.0 if claim.step else 0.1)
        raw = fresh(genome, 3, _random())
        assert not judge.feasible(genome, raw).isnan().any()
        all_sizes.append((judge, genome, raw))
    for judge, genome, raw in (all_sizes[0], all_sizes[-1]):
        assert not judge.score(genome, raw)[0].isnan().any()
    assert make_claim(claim.describe()) == claim


@pytest.mark.parametrize("name", library())
def test_the_library_says_where_a_claim_is_from_and_what_is_known(name):
    claim = find(name)
    assert claim.source
    assert claim.title != name
    assert library()[name].read_text("utf-8").startswith("# Known: ")


# Plain systems first


def _simplest(seconds: float = PLENTY, **entries) -> tuple[list[Suspect], Tally]:
    claim, tally = make_claim(entries), Tally()
    return list(plain(Judge(claim), seconds, 0, tally)), tally


def test_plain_systems_are_shrunk():
    """Two tokens on the line, all numbers 0 but the one that is too large."""
    (found,), tally = _simplest(conclude="norm(x[i]) <= 1", tokens=[2, 5], dimension=[1, 3])
    assert (found.genome.n, found.genome.d) == (2, 1)
    assert sorted(found.raw.abs().tolist()) == [0, 0, 0, 2]
    assert 0 < tally.tried <= tally.drawn


def test_plain_systems_satisfy_the_hypotheses_and_violate_the_conclusion():
    entries = {
        "conclude": "X is bounded",
        "matrices": {"V": "positive definite"},
        "dimension": 1,
        "tokens": 2,
    }
    (found,), _ = _simplest(**entries)
    judge = Judge(make_claim(entries))
    assert judge.feasible(found.genome, found.raw[None])[0] >= 0
    assert confirmed(judge, found)


def test_no_time_is_lost_where_plain_systems_do_not_do():
    began = time.monotonic()
    found, tally = _simplest(seconds=BRIEF, conclude="norm(x[i]) >= 0", tokens=5, dimension=3)
    assert found == []
    assert tally.tried > 0
    assert time.monotonic() - began < 10 * BRIEF  # generous: the last example is finished


def test_the_hardmax_flow_is_followed_over_long_times():
    """V = −2: both tokens attend to themselves, so x(t) = e^(−2t) x(0), however far apart the samples are."""
    entries = {"conclude": "X tends to 0", "attention": "hardmax", "tokens": 2, "dimension": 1}
    genome = Genome(make_claim(entries), 2, 1)
    weights = {"_W": 1.0, "_V": -2.0}
    raw = torch.zeros(1, genome.size, dtype=torch.float64)
    for name, number in weights.items():
        raw[0, genome.parts[name].place] = number
    raw[0, genome.parts["x"].place] = torch.tensor([1.0, -1.0], dtype=torch.float64)
    path = Systems(genome, raw).path(torch.tensor([0.0, 4.0, 40.0], dtype=torch.float64))  # in units of 1/|V|
    assert path.times[0].tolist() == [0, 2, 20]
    size = path.states[0, :, 0, 0]
    assert size[1] == pytest.approx(math.exp(-4), rel=1e-4)  # steps of at most 1/4 err by 1e-5 each
    assert size[2] == pytest.approx(math.exp(-40), rel=1e-2)


@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_eigenvalues_of_matrices_of_any_size(size):
    """A rotation by a right angle, times the size; not finite entries have none."""
    turn = (
        torch.tensor([[[0.0, -1.0], [1.0, 0.0]], [[torch.nan, 0.0], [0.0, 1.0]]], dtype=torch.float64) * size
    )
    found = eigenvalues(turn)
    assert sorted((found[0] / size).imag.tolist()) == pytest.approx([-1, 1])
    assert found[1].isnan().all()


def test_a_condition_that_no_number_of_a_system_can_meet():
    """At n = 2 there is no slope to climb: these sizes are left out, and the others are searched."""
    tally = Tally()
    claim = make_claim({"conclude": "norm(x[i]) >= 0", "where": ["n >= 3"], "tokens": [2, 3], "dimension": 1})
    for _ in hunt(claim, time.monotonic() + BRIEF, 0, tally, Judge(claim)):
        raise AssertionError("a norm is not negative")
    assert set(tally.sizes) == {(3, 1)}
