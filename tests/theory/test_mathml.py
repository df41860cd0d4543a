"""Formulas as MathML: what a browser needs to space them, and nothing left of the LaTeX."""

from xml.etree import ElementTree

import pytest

from tests.pages import formula as parsed
from theory.mathml import mathml


def elements(formula: str, display: bool = False) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(mathml(formula, display)).iter())


def operators(formula: str, display: bool = False) -> dict[str, ElementTree.Element]:
    return {part.text or "": part for part in elements(formula, display) if part.tag == "mo"}


def forms(formula: str) -> list[str | None]:
    return [part.get("form") for part in elements(formula) if part.text in ("−", "+", "±")]


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        ("-x", ["prefix"]),
        ("x-y", [None]),
        ("x=-y", ["prefix"]),
        ("a,-b", ["prefix"]),
        ("(-a)-b", ["prefix", None]),
        (r"\left(-a\right)-b", ["prefix", None]),
        (r"|x|-|{-y}|", [None, "prefix"]),
        (r"\max -x", ["prefix"]),
        (r"x_i^\top-y", [None]),
        (r"x^2=\pm1", ["prefix"]),
        ("-", ["prefix"]),
    ],
)
def test_a_sign_that_stands_before_a_term_is_not_spaced_as_one_between_terms(formula, expected):
    assert forms(formula) == expected


def test_function_names_stand_off_their_arguments_but_not_off_brackets():
    for formula, left, right in [
        (r"2\log n", "0.1667em", "0.1667em"),
        (r"\log(n)", "0", "0"),
        (r"=\log n", "0", "0.1667em"),
        (r"n\log\left(n\right)", "0.1667em", "0"),
        (r"2\log=1", "0.1667em", "0"),
    ]:
        sign = operators(formula)["log"]
        assert (sign.get("lspace"), sign.get("rspace")) == (left, right), formula


def test_a_relation_alone_takes_no_space():
    assert operators(r"\succ")["≻"].attrib == {"lspace": "0", "rspace": "0"}
    assert operators(r"x\succ0")["≻"].attrib == {}


def test_capital_greek_is_upright_and_small_greek_is_not():
    letters = {part.text: part.get("mathvariant") for part in elements(r"\Gamma\gamma")}
    assert letters["Γ"] == "normal"
    assert letters["γ"] is None


def test_upright_words_are_one_element():
    for formula in (r"\mathrm{softmax}_j(s)", r"\operatorname{softmax}_j(s)"):
        assert "softmax" in operators(formula)


def test_limits_stand_below_only_where_a_formula_is_displayed():
    for formula in (r"\max_j s_j", r"\sum_j s_j", r"\limsup_{t} x", r"\left(\sum_j s_j\right)"):
        assert "munder" in {part.tag for part in elements(formula, display=True)}
        assert "munder" not in {part.tag for part in elements(formula)}


def test_negated_relations_are_one_sign():
    assert "↛" in operators(r"x\not\to 0")
    assert "⊁" in operators(r"x\not\succ 0")
    assert "≠" in operators(r"x\not= 0")


def test_bars_and_slashes_take_no_space():
    for formula in (r"a<|x|", r"\|x\|", "a/b"):
        spaced = [part for sign, part in operators(formula).items() if sign in "|‖/"]
        assert [(part.get("lspace"), part.get("rspace")) for part in spaced] == [("0", "0")]


def test_brackets_grow_only_around_what_is_tall():
    for formula, grows in ((r"\left(x_i\right)", "false"), (r"\left(\frac{a}{b}\right)", "true")):
        assert {operators(formula)[sign].get("stretchy") for sign in "()"} == {grows}


def test_words_with_formulas_inside():
    parts = elements(r"x=0 \text{ if $y_{1}>0$ holds}")
    assert [part.text for part in parts if part.tag == "mtext"] == ["\u00a0if\u00a0", "\u00a0holds"]
    assert any(part.tag == "msub" for part in parts)


@pytest.mark.parametrize(
    "formula",
    [
        r"\begin{pmatrix}a&b\\c&d\end{pmatrix}^{-1}\begin{pmatrix}a\\b\end{pmatrix}^\top",
        r"\begin{pmatrix}a&-b\\b&\frac{a}{2}\end{pmatrix}",
        r"f=\begin{cases}-1&x>0\\2&\text{else}\end{cases}",
        r"\begin{aligned}&a\\&\quad=b\end{aligned}",
        r"\tfrac1n\sqrt{d_k}\,\dot x_i\ \bar x\;\hat W\quad\ddot x",
        r"\mathbb R^d, \mathbb{R}, \mathcal{F}, \mathrm{d}x, \mathbf{x}",
        r"A\succ0\succeq B\prec C\preceq D\neq E\in F\implies G\iff H",
        r"\binom nk \otimes \forall x\exists y\colon x^*\le\|y\|_2^{-1/2}\to\infty",
        r"\operatorname{tr}K\#\{i:\lambda_i<0\}",
    ],
)
def test_what_the_statements_are_written_in(formula):
    for display in (True, False):
        for source in mathml(formula, display).split("<wbr>"):
            root = parsed(source)  # which looks at every element
            assert root.get("display") == ("block" if display else "inline")


def test_a_single_upright_letter_stays_upright():
    assert next(part for part in elements(r"\mathrm{d}x") if part.text == "d").get("mathvariant") == "normal"


def test_a_long_formula_in_a_sentence_breaks_after_relations_and_commas_outside_brackets():
    formula = r"a_{1}+b_{1}=f(c_{1},d_{1}=0)+c_{2}+c_{3}\ge d_{1}+d_{2}, e_{1}+e_{2}"
    pieces = [list(ElementTree.fromstring(piece)) for piece in mathml(formula).split("<wbr>")]
    assert [piece[-1].text for piece in pieces[:-1]] == ["=", "≥", ","]
    assert "<wbr>" not in mathml("a=b")


def test_a_long_displayed_formula_breaks_before_relations_signs_and_words_outside_brackets():
    formula = r"-a_{1}+b_{1}=-f(c_{1}+d_{1})-c_{2},c_{3}\ge d_{1}\text{ for }d_{2}+e_{1}"
    pieces = [list(ElementTree.fromstring(piece)) for piece in mathml(formula, display=True).split("<wbr>")]
    assert [piece[0].text for piece in pieces[1:] if piece[0].tag != "msub"] == [
        "+",
        "=",
        "−",
        "≥",
        "\u00a0for\u00a0",
        "+",
    ]
    assert [piece[0].get("form") for piece in pieces if piece[0].text in ("+", "−")] == [
        "prefix",
        *["infix"] * 3,
    ]
    assert "<wbr>" not in mathml("-a+b=c", display=True)


@pytest.mark.parametrize("formula", [r"\nosuchmacro x", "a & b", r"a \\ b", r"\text{a $b}"])
def test_what_has_no_mathml_form_is_an_error(formula):
    with pytest.raises(ValueError, match="no MathML form for"):
        mathml(formula)
