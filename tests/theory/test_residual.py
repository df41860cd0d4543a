"""T16 in numbers: the sharp step, what the factor n is for, the hypotheses both ways."""

from dataclasses import replace
from fractions import Fraction

import pytest
from flint import arb, ctx, fmpq, fmpq_mat
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from theory.enclosure import PRECISION
from theory.evaluate import CONSTANTS
from theory.instance import Instance
from theory.notation import gain, lam, unit
from theory.registry import statement
from theory.system import Setting
from theory.theorem import sides
from theory.theorems.residual import STEP_MODERATE, STEP_POSITIVE, STEP_SMALL
from theory.verdict import Grade

T16, T16a, T16b, T16c, L7 = map(statement, ("T16", "T16a", "T16b", "T16c", "L7"))
FALLS = T16.claim("energy falls at the next layer")
ENTRIES = st.integers(-3, 3)


def scalar(tokens, step, form=1, response=-1):
    return Instance.of(score=[[form]], response=[[response]], tokens=[[x] for x in tokens], step=step)


@st.composite
def layers(draw, most_tokens=4):
    """d ≤ 2, A = −LLᵀ − I/2, W = MMᵀ + I/2 plus an antisymmetric part; the step is free."""
    n, d = draw(st.integers(1, most_tokens)), draw(st.integers(1, 2))
    half = [[Fraction(int(i == j), 2) for j in range(d)] for i in range(d)]

    def positive():
        root = [[draw(st.integers(-2, 2)) for _ in range(d)] for _ in range(d)]
        return [
            [sum(p * q for p, q in zip(root[i], root[j], strict=True)) + half[i][j] for j in range(d)]
            for i in range(d)
        ]

    form, response = positive(), [[-q for q in row] for row in positive()]
    if d == 2:
        skew = draw(ENTRIES)
        form[0][1], form[1][0] = form[0][1] + skew, form[1][0] - skew
    tokens = [[draw(ENTRIES) for _ in range(d)] for _ in range(n)]
    step = Fraction(draw(st.integers(1, 64)), 64)
    return Instance.of(score=form, response=response, tokens=tokens, step=step)


# The factor n


@pytest.mark.parametrize("n", [2, 3, 4, 5])
def test_the_factor_n_is_sharp(n):
    """d = 1: 2/(nw) is allowed, and 5 % more raises the energy of n − 1 small tokens and a large one."""
    bound, tokens = Fraction(2, n), [1] * (n - 1) + [100]
    inside, beyond = scalar(tokens, bound), scalar(tokens, bound * Fraction(105, 100))
    assert T16.applies(inside).holds
    assert T16.judge(FALLS, inside).holds
    assert STEP_SMALL.decide(beyond).fails
    assert T16.judge(replace(FALLS, reverse=True), beyond).holds


def test_without_the_factor_n_the_energy_rises_from_9_5_to_10_22():
    ((before, _),) = sides(T16.claim("energy is non-negative"), T16b.examples.witness)
    assert before == fmpq(19, 2)
    ((left, right),) = sides(T16b.claim("energy rises"), T16b.examples.witness)
    with ctx.workprec(PRECISION):
        assert arb("0.7192") < left - right < arb("0.7193")
    assert STEP_SMALL.decide(scalar([4], 1)).holds
    assert STEP_SMALL.decide(scalar([4, 4], 1)).holds
    assert STEP_SMALL.decide(scalar([4, 4, 4], 1)).fails


def _violated(instance: Instance) -> fmpq_mat | None:
    """A small integer vector u with uᵀ(2W_s − nhVᵀ(−A)V)u < 0, if there is one."""
    form, steps = instance.form, instance.number("step") * instance.tokens.nrows()
    room = form + form.transpose() + form.transpose() * instance.value * steps
    plane = [(p, q) for p in range(-4, 5) for q in range(-4, 5)] if room.nrows() == 2 else [(1,)]
    vectors = (fmpq_mat(len(v), 1, list(v)) for v in plane)
    return next((u for u in vectors if (u.transpose() * room * u)[0, 0] < 0), None)


@settings(max_examples=25)
@given(layers(), st.sampled_from([1, 2, 4, 8, 16]))
def test_beyond_the_condition_some_tokens_raise_the_energy(instance, factor):
    """The condition is necessary: tokens u/τ, …, u/τ, τ²u along a violated direction, for any W and A."""
    step = instance.parameters["step"] * fmpq(factor)
    instance = replace(instance, parameters={"step": step})
    assume((u := _violated(instance)) is not None)
    assert STEP_SMALL.decide(instance).fails
    n, tau = instance.tokens.nrows(), fmpq(1000)
    scales = [1 / tau] * (n - 1) + [tau**2]
    tokens = fmpq_mat(n, u.nrows(), [scale * q for scale in scales for q in u.entries()])
    assert T16.judge(replace(FALLS, reverse=True), replace(instance, tokens=tokens)).holds


@settings(max_examples=40)
@given(layers())
def test_the_bound_by_eigenvalues_is_enough(instance):
    """h ≤ 2λ/(nΓ) implies 2W_s ⪰ nhVᵀ(−A)V."""
    n, h = instance.tokens.nrows(), instance.number("step")
    assume(2 * arb(CONSTANTS[lam](instance)) > n * h * arb(CONSTANTS[gain](instance)))
    assert STEP_SMALL.decide(instance).holds


@pytest.mark.parametrize("n", [2, 3, 8])
def test_the_bound_by_eigenvalues_is_not_necessary(n):
    """W = diag(1, 4), A = −I: 2λ/(nΓ) = 1/(8n), but steps up to 1/(2n) are allowed."""
    eye, tokens = [[-1, 0], [0, -1]], [[1, 2]] * n
    for step, allowed in ((Fraction(1, 2 * n), True), (Fraction(1, 2 * n) + Fraction(1, 1000), False)):
        instance = Instance.of(score=[[1, 0], [0, 4]], response=eye, tokens=tokens, step=step)
        assert STEP_SMALL.decide(instance).holds is allowed
        bound = 2 * arb(CONSTANTS[lam](instance)) / (n * arb(CONSTANTS[gain](instance)))
        assert bound.contains(fmpq(1, 8 * n))
        assert bound < fmpq(1, 2 * n)


def test_gain_is_the_squared_norm_of_the_whitened_form():
    """A = −diag(1, 4), W = [[1, 2], [0, 4]]: Ŵ = [[1, 1], [0, 1]], ‖Ŵ‖² = (3 + √5)/2."""
    instance = Instance.of(score=[[1, 2], [0, 4]], response=[[-1, 0], [0, -4]], tokens=[[1, 1]])
    with ctx.workprec(PRECISION):
        golden = (3 + arb(5).sqrt()) / 2
        assert abs(arb(CONSTANTS[gain](instance)) - golden) < arb(2) ** -100
    assert not arb(CONSTANTS[gain](Instance.of(score=[[1]], value=[[0]], tokens=[[1]]))).is_finite()


# The hypotheses both ways


def test_the_boundary_of_the_step_is_decided_exactly():
    """x ↦ −x for one token with h = 2/w: not strict. Two tokens with 2h = 2/w: allowed."""
    assert STEP_SMALL.decide(scalar([3], 2)).fails
    assert STEP_SMALL.decide(scalar([3], Fraction(2) - Fraction(1, 10**30))).holds
    assert STEP_SMALL.decide(scalar([3, 5], 1)).holds
    assert STEP_SMALL.decide(scalar([3, 5], 1)).grade is Grade.EXACT
    assert STEP_SMALL.decide(scalar([3, 5], Fraction(1) + Fraction(1, 10**30))).fails
    ((left, right),) = sides(FALLS, scalar([3], 2))
    assert (left - right).contains(0)
    assert T16.judge(FALLS, scalar([3, 5], 1)).holds


def test_steps_must_be_given_and_positive():
    bare = Instance.of(score=[[1]], response=[[-1]], tokens=[[1]])
    for hypothesis in (STEP_POSITIVE, STEP_SMALL, STEP_MODERATE):
        assert str(hypothesis.decide(bare)) == "UNDECIDED"
        assert hypothesis.decide(scalar([1], 0)).fails
        assert hypothesis.decide(scalar([1], -1)).fails
        assert hypothesis.decide(scalar([1], Fraction(1, 2))).holds
    without_tokens = Instance.of(score=[[1]], response=[[-1]], step=1)
    assert str(STEP_SMALL.decide(without_tokens)) == "UNDECIDED"
    assert STEP_MODERATE.decide(scalar([1], 1)).fails
    singular = Instance.of(score=[[1]], value=[[0]], tokens=[[1]], step=1)
    assert str(STEP_MODERATE.decide(singular)).startswith("UNDECIDED")


def test_a_moderate_step_does_not_depend_on_n():
    for n in (1, 7, 500):
        assert STEP_MODERATE.decide(scalar([1] * n, Fraction(9, 10))).holds
    assert STEP_SMALL.decide(scalar([1] * 500, Fraction(9, 10))).fails


def test_a_singular_form_lets_tokens_rest():
    """W = diag(1, 0): the step condition holds, but tokens on the second axis never move."""
    instance = Instance.of(
        score=[[1, 0], [0, 0]], response=[[-1, 0], [0, -1]], tokens=[[0, 1], [0, 3]], step=Fraction(1, 2)
    )
    assert [h.key for h in T16.hypotheses if not h.decide(instance).holds] == ["W positive"]
    assert T16.judge(FALLS, instance).fails


def test_the_energy_may_rise_under_a_moderate_step():
    """T16c claims boundedness only: ten tokens, h = 1/2."""
    instance = scalar([1] * 9 + [20], Fraction(1, 2))
    assert T16c.applies(instance).holds
    assert T16.judge(replace(FALLS, reverse=True), instance).holds
    assert T16c.judge(T16c.claim("the largest energy contracts"), instance).holds


# L7


@st.composite
def semidefinite(draw):
    """W = BBᵀ plus an antisymmetric part, B of rank at most 1: W_s ⪰ 0 singular in the plane."""
    n, column = draw(st.integers(1, 4)), [draw(ENTRIES) for _ in range(2)]
    skew = draw(ENTRIES)
    form = [[column[0] ** 2, column[0] * column[1] + skew], [column[0] * column[1] - skew, column[1] ** 2]]
    tokens = [[Fraction(draw(st.integers(-6, 6)), 3) for _ in range(2)] for _ in range(n)]
    return Instance.of(score=form, value=[[1, 0], [0, 1]], tokens=tokens)


@settings(max_examples=60)
@given(semidefinite())
def test_scores_beat_means_for_semidefinite_forms(instance):
    """n Σe_i ≥ Σm_iᵀWm_i, L7's corollary, also where W_s is singular."""
    ((left, right),) = sides(L7.claim("means are within n times the scores"), instance)
    assert not left < right
    assert not right < 0
    assert not left < 0


@pytest.mark.parametrize(
    ("form", "tokens"), [(0, (1, 5, -2)), (3, (2, 2, 2)), (-1, (2, 2)), (1, (0, 0, 0)), (7, (3,))]
)
def test_uniform_attention_attains_equality(form, tokens):
    instance = Instance.of(score=[[form]], value=[[1]], tokens=[[x] for x in tokens])
    ((left, right),) = sides(L7.claim("means are within n times the scores"), instance)
    assert (left - right).contains(0)
    assert (left - right).rad() < arb(2) ** -100


def test_anything_else_is_strict():
    for form, tokens in ((1, (1, -1)), (-2, (1, -1)), (Fraction(1, 100), (1, 2, 3))):
        instance = Instance.of(score=[[form]], value=[[1]], tokens=[[x] for x in tokens])
        ((left, right),) = sides(L7.claim("means are within n times the scores"), instance)
        assert left > right


def test_a_causal_mask_breaks_it():
    """W antisymmetric, tokens (1, 0) and (0, 1): only the second attends to the other, with the score −1."""
    instance = Instance.of(
        score=[[0, 1], [-1, 0]],
        value=[[1, 0], [0, 1]],
        tokens=[[1, 0], [0, 1]],
        setting=Setting(causal=True),
    )
    ((left, right),) = sides(L7.claim("means are within n times the scores"), instance)
    assert left < right


def test_scores_need_the_factor_n():
    """Σe_i ≥ Σm_iᵀWm_i itself is false: n − 1 tokens that all attend to a large one."""
    instance = Instance.of(score=[[1]], value=[[1]], tokens=[[1], [1], [1], [100]])
    claim = L7.claim("means are within n times the scores")
    for share, holds in ((fmpq(1), True), (fmpq(99, 100), True), (fmpq(9, 10), False), (fmpq(1, 4), False)):
        assert L7.judge(claim, instance, {unit: share}).holds is holds
