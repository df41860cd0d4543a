"""The HTML report shows what the audit found, marks floats as such, loads nothing, and sorts in a browser."""

import json
import math
import re
from functools import cache
from html import unescape
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from tests.browser import IN_A_BROWSER, browse
from tests.pages import Page
from theory.errors import InputError
from tokendyn.report import html, typeset, write_html
from tokendyn.report_svg import Value, heat_map

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "audit_schema.json").read_text(encoding="utf-8"))
PLANTED = '</script><script>alert("x")</script>'
SCHEMA_NAME = SCHEMA["properties"]["schema"]["const"]
Json = dict[str, Any]


# A report in the audit's layout, with invented numbers


def verdict(status: str, margin: str = "", reason: str = "", grade: str | None = "exact") -> Json:
    return {"status": status, "grade": grade, "margin": margin, "reason": reason}


def signs(eigenvalues: np.ndarray, share: float) -> Json:
    counts = {"positive": int((eigenvalues > 0).sum()), "negative": int((eigenvalues < 0).sum())}
    indefinite = "a vector u with uᵀMu < 0 is known exactly"
    return {
        "inertia": {**counts, "zero": int((eigenvalues == 0).sum()), "grade": "interval"},
        "positive_definite": verdict("FAILS", f"≤ {eigenvalues.min():.4g}", indefinite),
        "negative_definite": verdict("FAILS", f"≤ {-eigenvalues.max():.4g}", indefinite),
        "antisymmetric_share_float": share,
    }


THEOREMS = {
    "T1": ("Farther or closer", "A symmetric"),
    "T2": ("Convergence to zero", "A symmetric"),
    "T6b": ("Almost no start converges", None),
    "T9": ("Universal collapse", "A symmetric"),
    "T15": ("Several heads", "heads tied"),
    "T17": ("One side of a hyperplane", None),
}


def theorem(identifier: str, about: str) -> Json:
    title, unmet = THEOREMS[identifier]
    return {
        "id": identifier,
        "title": title,
        "status": "UNDECIDED" if unmet else "HOLDS",
        "grade": None if unmet else "interval",
        "about": about,
        "concludes": "X(t) → 0 from every start" if unmet else "some starts diverge",
        "hypotheses": [unmet or "V unstable"],
        "start_conditions": ["one side"] if identifier == "T17" else [],
        "first_unmet": unmet,
    }


def part(rng: np.random.Generator, d: int, rank: int, about: str) -> Json:
    whole = about != "this head alone"
    size = d if whole else rank
    score, value = rng.normal(size=(2, size, size)) / np.sqrt(size)
    symmetric = np.linalg.eigvalsh(score + score.T)
    spectrum = np.linalg.eigvals(value)
    spread = np.sort(np.sinh(4 * rng.normal(size=size)))
    scores = signs(symmetric, float(rng.uniform(0.4, 0.8)))
    scores |= {
        "symmetry_float": float(rng.uniform(-1, 1)),
        "directionality_float": float(rng.uniform(-0.3, 0.3)),
    }
    diagonal = {"largest_entry": "≤ 2.31", "trace_float": 310.2, "trace_bound_float": 309.8}
    scores |= {"smallest_diagonal": diagonal if whole else diagonal | dict.fromkeys(list(diagonal)[1:])}
    scores |= {"spectrum_float": symmetric.tolist() if whole else None}
    change = {"change_to_negative_float": 0.93, "change_to_positive_float": 0.94}
    response = {**signs(spread, 0.7), **change, "spectrum_float": spread.tolist()} if whole else None
    rate = float(spectrum.real.max())
    growth = verdict("HOLDS", f"≥ {math.floor(rate * 1e4) / 1e4:.4g}", "an enclosed eigenvalue", "interval")
    hypotheses = {
        "V unstable": growth,
        "A symmetric": verdict("FAILS", "1.308", "VᵀW (so A) is not symmetric (|M − Mᵀ|/|M| = 1.3)"),
        "heads tied": verdict("UNDECIDED", "", "V_h is singular", None),
    }
    return {
        "scores": scores,
        "response": response,
        "values": {
            "singular": not whole,
            "growth": growth,
            "real_rate": verdict("HOLDS", f"μ ≥ {rate / 2:.4g}", "an enclosed real eigenvalue", "interval"),
            "abscissa_float": rate,
            "unstable_count_float": int((spectrum.real > 0).sum()),
            "unstable_count": [int((spectrum.real > 0).sum())] * 2 if whole else None,
            "spectrum_float": [[float(z.real), float(z.imag)] for z in spectrum],
        },
        "hypotheses": hypotheses,
        "theorems": [theorem(identifier, about) for identifier in THEOREMS],
    }


def layer(rng: np.random.Generator, index: int, heads: int, d: int) -> Json:
    return {
        "index": index,
        "name": f"encoder.layer.{index}.attention",
        "d": d,
        "heads_count": heads,
        "kv_heads": heads,
        "head_dim": d // heads,
        "stored_dtype": "float32",
        "has_biases": True,
        "audited": "W = Σ_h W_h adds up the score matrices of the heads: a single-head idealisation.",
        "whole": part(rng, d, d, "single-head idealisation"),
        "heads": [{"head": h, **part(rng, d, d // heads, "this head alone")} for h in range(heads)],
        "left_eigenvector_gap": {"smallest_sine_float": 0.95, "largest_sine_float": 1.0},
        "heads_tie": {
            "equal_float": 0.99,
            "best_float": 0.96,
            "symmetric_float": 0.97,
            "obstacle": "no c_h ties every A V_h to W_h.",
        },
        "no_certificate": {
            "boundedness": "V has an eigenvalue with positive real part",
            "divergence": None,
        },
        "certificate": {
            "context": 8,
            "kind": "divergence",
            "verdict": verdict("UNDECIDED", "", "none found", None),
        },
        "says": ["T6b (interval): almost no start converges to zero.", "T1, T2, T9: silent."],
    }


def activations(layers: int) -> Json:
    def row(step: int, system: str) -> Json:
        grown = 2.0 ** (step * (1 + (system == "model")))
        far = step > layers and system == "model"
        return {
            "layer": step - 1 if step else None,
            "step": step,
            "beyond_trained_depth": step > layers,
            "system": system,
            "norm_mean_float": None if far else 3 * grown,
            "norm_min_float": grown,
            "norm_max_float": None if far else 5 * grown,
            "norm_first_float": None if far else 2 * grown,
            "log_norm_max_float": 800.0 if far else None,
            "first_token_ratio_float": 1.0 + step,
            "distance_mean_float": 2 * grown,
            "distance_sum_float": 9 * grown,
            "cosine_float": step / (step + 3) if system == "model" else 0.5,
            "sharpness_float": 1 / (step + 1),
            "one_side_share_float": None if step == 1 else 0.5,
            "attention_entropy_float": None,
        }

    agreement = {
        "layer": 0,
        "step": 1,
        "system": "attention only",
        "id": "T17",
        "statement": "ℓᵀx_i grows at the rate μ",
        "applies": True,
        "why": "all tokens start on one side",
        "predicted": 1.25,
        "observed": 1.2501,
        "agrees": True,
    }
    silent = {
        **agreement,
        "id": "T2",
        "applies": False,
        "predicted": None,
        "observed": "grows",
        "agrees": None,
    }
    rows = [row(k, system) for system in ("model", "attention only") for k in range(layers + 3)]
    return {
        "tokens": 12,
        "trained_depth": layers,
        "grade": "float",
        "rows": rows,
        "agreement": [agreement, silent],
    }


def summary(count: int, identifier: str, about: str) -> Json:
    title, unmet = THEOREMS[identifier]
    speaks = 0 if unmet else count
    return {
        "id": identifier,
        "title": title,
        "about": about,
        "speaks": speaks,
        "of": count,
        "grade": None if unmet else "interval",
        "concludes": "some starts diverge",
        "margin_of": unmet or "V unstable",
        "margin_smallest": "≥ 0.42" if speaks else "",
        "margin_largest": "≥ 1.9" if speaks else "",
        "silent_because": unmet,
        "silent_reason": unmet and "A is not symmetric",
    }


def sample(layers: int = 3, heads: int = 4, d: int = 16, *, text: bool = True, seed: int = 7) -> Json:
    """A report of that many layers and heads, as the audit writes it; the verdicts are invented."""
    rng = np.random.default_rng(seed)
    return {
        "schema": "tokendyn-audit/2",
        "source": {
            "name": "sample",
            "package": "pack",
            "version": "0.1",
            "licence": "MIT",
            "sha256": "ab" * 32,
        },
        "architecture": "bert",
        "setting": {
            "causal": False,
            "rotary": None,
            "heads": heads,
            "kv_heads": heads,
            "head_dim": d // heads,
            "d": d,
            "layers": layers,
            "biases": True,
            "norm_before_attention": None,
            "norm_folded": False,
        },
        "shared_layers": None,
        "iteration": "Each layer is audited as a system of its own.",
        "ignores": ["the feed-forward block (MLP)", "biases of the query, key, value and output maps"],
        "grades": {
            "exact": "proved in rational arithmetic about the stored weights",
            "interval": "proved about the stored weights with outward-rounded ball arithmetic",
            "float": "computed in double precision, for display: not a proof",
        },
        "layers_audited": list(range(layers)),
        "heads_audited": list(range(heads)),
        "summary": [
            summary(count, identifier, about)
            for count, about in ((layers, "attention-only layer"), (layers * heads, "this head alone"))
            for identifier in THEOREMS
        ],
        "layers": [layer(rng, index, heads, d) for index in range(layers)],
        "activations": activations(layers) if text else None,
    }


@cache
def source() -> str:
    return html(sample())


@cache
def page() -> Page:
    return Page(source())


@cache
def tables() -> dict[str, list[list[tuple[str, str]]]]:
    return read_tables(source())


def read_tables(document: str) -> dict[str, list[list[tuple[str, str]]]]:
    """Rows of cells, (class, text), of every table by its id; the first row is the head."""

    def rows(body: str):
        for row in re.findall(r"<tr[ >].*?</tr>", body.replace("<tr>", "<tr >"), re.S):
            cells = re.findall(r'<t[dh] [^>]*?class="(\w+)"[^>]*>(.*?)</t[dh]>', row, re.S)
            yield [(kind, " ".join(Page(f"<i>{inner}</i>").text.split())) for kind, inner in cells]

    found = re.findall(r'<table id="([\w-]+)".*?>(.*?)</table>', document, re.S)
    return {name: list(rows(body)) for name, body in found}


def column(document: str, table: str, title: str) -> list[str]:
    head, *rows = read_tables(document)[table]
    place = next(i for i, (_, text) in enumerate(head) if text.startswith(title))
    return [row[place][1] for row in rows]


def changed(part: Any, change, key: str = "") -> Any:
    """A copy in which `change(key, leaf)` stands for every leaf of the report."""
    if isinstance(part, dict):
        return {name: changed(value, change, name) for name, value in part.items()}
    if isinstance(part, list):
        return [changed(value, change, key) for value in part]
    return change(key, part)


def test_the_sample_is_a_report():
    jsonschema.validate(sample(), SCHEMA)
    jsonschema.validate(sample(1, 1, text=False), SCHEMA)


# What the page holds


def test_it_loads_nothing_and_every_link_stays_on_it():
    assert not page().resources
    assert {target[:1] for _, target in page().links} == {"#"}
    assert {target[1:] for _, target in page().links} <= page().parts.keys()
    assert not re.search(r"https?:|url\(|@import|//[a-z]|<(img|link|iframe|object)\b", source())
    policy = re.search(r'http-equiv="Content-Security-Policy" content="(.*?)"', source())
    assert policy
    allowed = {"default-src 'none'", "style-src 'unsafe-inline'", "script-src 'unsafe-inline'"}
    assert set(policy[1].split("; ")) == allowed


def test_it_can_be_read_without_seeing_it():
    for landmark in ("header", "nav", "main", "footer"):
        assert len(re.findall(rf"<{landmark}[ >]", source())) == 1
    assert len(re.findall("<caption", source())) == len(tables()) == source().count("<table")
    drawings = re.findall(r"<svg [^>]*>", source())
    assert drawings
    assert all(
        'aria-hidden="true"' in svg or re.search(r'role="img" aria-label="[^"]', svg) for svg in drawings
    )
    head_cells = re.findall(r"<th\b[^>]*>", source())
    assert all('scope="' in cell for cell in head_cells)


def test_the_head_says_what_was_audited():
    model = " ".join(page().parts["model"].split())
    for said in ("pack 0.1", "MIT", "ab" * 32, "bert", "4 of dimension 4", "every token", "all 3", "(MLP)"):
        assert said in model
    findings = " ".join(page().parts["findings"].split())
    assert "on 3 of 3 layers, T6b Almost no start converges: some starts diverge" in findings
    silent = "T1 Farther or closer; T2 Convergence to zero; T9 Universal collapse; T15 Several heads."
    assert f"Silent on every layer: {silent}" in findings
    for grade, meaning in sample()["grades"].items():
        assert grade in page().parts["reading"]
        assert meaning in page().parts["reading"]


def test_every_layer_head_and_statement_has_its_row():
    report = sample()
    heads = [f"{one['index']}.{part['head']}" for one in report["layers"] for part in one["heads"]]
    assert column(source(), "heads-table", "Head") == heads
    for table in ("layer-scores", "layer-values", "verdicts"):
        assert column(source(), table, "Layer") == ["0", "1", "2"]
    assert [text.split()[0] for _, text in tables()["verdicts"][0][1:]] == list(THEOREMS)
    for table, speaks in (("summary", "3 of 3"), ("head-summary", "12 of 12")):
        assert [row[0][1].split()[0] for row in tables()[table][1:]] == list(THEOREMS)
        assert column(source(), table, "Speaks on")[2] == speaks
    for one in report["layers"]:
        shown = " ".join(page().parts[f"layer-{one['index']}"].split())
        assert all(sentence in shown for sentence in one["says"])
        assert one["name"] in shown


def test_a_verdict_shows_its_grade_and_silence_its_reason():
    verdicts = {text for row in tables()["verdicts"][1:] for _, text in row[1:]}
    assert verdicts == {"silent", "HOLDS · interval"}
    silent = " ".join(page().parts["layer-1-T2"].split())
    assert "‘A symmetric’ fails (exact): VᵀW (so A) is not symmetric" in silent
    assert "margin 1.308" in silent
    assert "‘heads tied’ is undecided: Vh is singular" in " ".join(page().parts["layer-1-T15"].split())
    assert "provided ‘one side’" in " ".join(page().parts["layer-1-T17"].split())
    for text in column(source(), "heads-table", "Statements that hold"):
        assert text.startswith("T6b (interval), T17 (interval)")
        assert "T1, T2, T9 silent: ‘A symmetric’ fails (exact)" in text


def test_only_floats_are_marked_as_floats_and_all_of_them_are():
    """Every float of the report is set to one number, every proved margin to another."""

    def mark(key: str, leaf: Any) -> Any:
        if key.endswith("_float") and isinstance(leaf, int | float):
            return 0.123456
        return f"{leaf[0]} 0.9876" if key == "margin" and leaf[:1] in "≤≥μ" and leaf else leaf

    floats, proofs = set(), set()
    for rows in read_tables(html(changed(sample(), mark))).values():
        for row in rows[1:]:
            for (kind, text), (_, title) in zip(row, rows[0], strict=True):
                floats |= {(kind, "float" in title)} if "0.1234" in text or "0.1235" in text else set()
                proofs |= {(kind, "float" in title)} if "0.9876" in text else set()
    assert floats == {("float", True)}
    assert proofs == {("number", False)}


def test_a_statement_that_holds_only_in_floats_is_not_shown_as_proved():
    report = sample(1, 1)
    report["layers"][0]["whole"]["theorems"][2]["grade"] = "float"
    cell = re.search(r'<td class="verdict"[^>]*><a href="#layer-0-T6b">(.*?)</a>', html(report))
    assert cell
    assert cell[1] == '<span class="badge float">HOLDS · float</span>'


def test_a_float_gives_way_to_a_certified_number():
    """Of the two columns only those stand that are needed for every part to have a number."""
    rates, counts = "max Re λ(V)", "Re λ(V) > 0"

    def kinds(document: str, table: str, title: str) -> list[str]:
        return [kind for kind, text in read_tables(document)[table][0] if text.startswith(title)]

    report = sample(2, 2)
    for one in report["layers"]:
        for part in (one["whole"], *one["heads"]):
            part["values"] |= {"unstable_count": [3, 4]}
    sure = html(report)
    for table in ("layer-values", "heads-table"):
        assert [kinds(sure, table, title) for title in (rates, counts)] == [["number"]] * 2
    assert column(sure, "heads-table", counts) == ["3 to 4 interval"] * 4
    assert "max Re λ(Vh) (certified bounds)" in Page(sure).parts["maps"]

    lacking = report["layers"][1]["heads"][0]["values"]
    lacking |= {"unstable_count": None, "unstable_count_float": 7, "growth": verdict("UNDECIDED", "")}
    shown = html(report)
    for title in (rates, counts):
        assert kinds(shown, "heads-table", title) == ["number", "float"]
        assert kinds(shown, "layer-values", title) == ["number"]
    assert "max Re λ(Vh) (float)" in Page(shown).parts["maps"]

    for one in report["layers"]:
        for part in one["heads"]:
            part["values"] |= {"unstable_count": None}
    assert kinds(html(report), "heads-table", counts) == ["float"]


@pytest.mark.parametrize(
    ("status", "margin", "shown", "value"),
    [
        ("HOLDS", "μ ≥ 0.5", "≥ 0.5 interval", "0.5"),
        ("HOLDS", "μ ≥ 1e-07", "≥ 1e-07 interval", "1e-07"),
        ("FAILS", "", "none interval", ""),
        ("UNDECIDED", "", "open", ""),
    ],
)
def test_the_real_rate_is_a_bound_and_sorts_by_it(status, margin, shown, value):
    report = sample(1, 1)
    report["layers"][0]["whole"]["values"]["real_rate"] = verdict(status, margin, "", "interval")
    assert column(html(report), "layer-values", "Largest real λ(V)") == [shown]
    row = re.search(r'<table id="layer-values".*?<tbody>(.*?)</tbody>', html(report), re.S)
    assert row
    assert re.findall(r'data-value="(.*?)"', row[1])[3] == value


def test_the_summary_tells_what_a_margin_measures():
    report = sample(1, 1)
    margins = ["≥ 0.5", "μ ≥ 0.5", "|A − Aᵀ|/|A| ≈ 0.99", "0.9", ""]
    for one, margin in zip(report["summary"], margins, strict=False):
        one |= {"margin_of": "H", "margin_smallest": margin, "margin_largest": margin}
    shown = html(report)
    assert column(shown, "summary", "Margins of")[:5] == ["H", "H: μ", "H: |A − Aᵀ|/|A|", "H", "H"]
    assert column(shown, "summary", "Margin smallest")[:5] == ["≥ 0.5", "≥ 0.5", "≈ 0.99", "0.9", ""]
    rows = re.search(r'<table id="summary".*?<tbody>(.*?)</tbody>', shown, re.S)
    assert rows
    assert re.findall(r'data-value="([^"]*)"[^>]*>[^<]*</td>\s*</tr>', rows[1])[:5] == [
        *("0.5", "0.5", "0.99", "0.9"),
        "",
    ]


def test_a_grade_is_said_to_be_about_the_hypotheses():
    assert "proves" not in source()
    reading = " ".join(page().parts["reading"].split())
    assert "how surely the hypotheses of a statement hold of these weights" in reading
    assert "cited from the literature or argued in words: tokendyn show T6b lists the steps" in reading
    assert "A grade is about the hypotheses" in " ".join(page().parts["findings"].split())
    report = sample(1, 1)
    for one in report["summary"]:
        one["speaks"] = 0
    assert "A grade is about" not in Page(html(report)).parts["findings"]


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (("float32", "float32"), "Weights stored as float32 "),
        (("bfloat16", "float32"), "Weights stored as bfloat16, float32 "),
        (("Q4_1", "Q4_1"), "Q4_1: 4-bit quantised weights; verdicts are about these numbers"),
        (("Q6_K", "IQ4_NL"), "Q6_K, IQ4_NL: 4-bit and 6-bit quantised weights; verdicts"),
    ],
)
def test_the_type_of_the_stored_weights_is_named(stored, said):
    report = sample(2, 1)
    for one, name in zip(report["layers"], stored, strict=True):
        one["stored_dtype"] = name
    shown = " ".join(Page(re.sub("</d[dt]>", r" \g<0>", html(report))).parts["model"].split())
    assert said in shown
    assert ("quantised" in shown) == stored[0].startswith("Q")


def test_a_search_for_a_certificate_reads_as_in_the_terminal():
    report = sample(1, 1)
    assert "T11 for 8 tokens, divergence: UNDECIDED (none found)." in page().parts["layer-0"]
    found = verdict("HOLDS", "≥ 0.2", "a metric", "exact")
    report["layers"][0]["certificate"]["verdict"] = found
    shown = Page(html(report)).parts["layer-0"].replace("\u00a0", " ")
    assert "T11 for 8 tokens, divergence: HOLDS (exact, a metric, ≥ 0.2)." in shown


@pytest.mark.parametrize(
    ("margin", "lowest", "highest", "value"),
    [
        ("≤ -2.268", "≤ −2.268", "≥ 2.268", "2.268"),
        ("≥ 0.3", "≥ 0.3", "≤ −0.3", "-0.3"),
        ("> 0", "> 0", "< 0", "0.0"),
        ("≤ -1.5e-07", "≤ −1.5e-07", "≥ 1.5e-07", "1.5e-07"),
        ("≤ 0", "≤ 0", "≥ 0", "0.0"),
        ("", "open", "open", ""),
    ],
)
def test_a_bound_on_minus_w_is_shown_as_one_on_w(margin, lowest, highest, value):
    report = sample(1, 1)
    for side in ("positive_definite", "negative_definite"):
        report["layers"][0]["whole"]["scores"][side]["margin"] = margin
    shown = html(report)
    assert column(shown, "layer-scores", "λmin of Ws")[0].removesuffix(" exact") == lowest
    assert column(shown, "layer-scores", "λmax of Ws")[0].removesuffix(" exact") == highest
    assert f'data-value="{value}"' in shown


def test_what_is_absent_is_a_dash_and_no_empty_part_is_shown():
    report = sample(2, 2, text=False)
    for one in report["layers"]:
        one |= {"heads_tie": None, "left_eigenvector_gap": None, "certificate": None}
        one["no_certificate"] = {"boundedness": None, "divergence": None}
        one["whole"]["response"] = None
        one["whole"]["scores"] |= {"spectrum_float": None, "inertia": None}
    report["source"] |= {"package": None, "version": None, "licence": None}
    report["setting"] |= {
        "rotary": "half-split",
        "causal": True,
        "norm_before_attention": "rms",
        "kv_heads": 1,
    }
    jsonschema.validate(report, SCHEMA)
    bare = Page(html(report))
    assert "activations" not in bare.parts
    assert "Package" not in bare.parts["model"]
    assert "half-split" in bare.parts["model"]
    assert "rms norm, ignored" in bare.parts["model"]
    assert "2 of dimension 8, 1 of keys and values" in bare.parts["model"]
    assert column(html(report), "layer-values", "‖Aa‖/‖A‖") == ["–", "–"]
    assert column(html(report), "layer-scores", "Ws: λ") == ["open", "open"]
    assert "None" not in bare.text
    assert not re.search(r'data-value="None"', html(report))


def test_comparisons_are_counted():
    (_, row, silent) = tables()["tally"]
    assert [text for _, text in row[1:]] == ["attention only", "1 of 1", "1", "0"]
    assert [text for _, text in silent[1:]] == ["attention only", "0 of 1", "0", "0"]
    assert len(tables()["agreement"]) == 3


# Words of others


def test_names_and_words_from_a_model_are_escaped():
    def plant(key: str, leaf: Any) -> Any:
        fixed = ("schema", "id", "status", "grade", "about", "system", "sha256", "hypotheses", "first_unmet")
        return leaf + PLANTED if isinstance(leaf, str) and key not in fixed else leaf

    source = html(changed(sample(2, 2), plant))
    assert source.count("<script") == source.count("</script>") == 1
    shown = Page(source)
    for name in ("model", "findings", "layer-1", "activations", "heads"):
        assert PLANTED in shown.parts[name]
    assert all(PLANTED in text for text in column(source, "layer-scores", "λmin of Ws"))


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("W_s ≻ 0", "W<sub>s</sub>\u00a0≻\u00a00"),
        ("(W_h)_s, λ_min and ℓᵀx_i", "(W<sub>h</sub>)<sub>s</sub>, λ<sub>min</sub> and ℓᵀx<sub>i</sub>"),
        ("attn_qkv, W_out", "attn_qkv, W_out"),
        ("a < b & -0.5", "a &lt; b &amp; −0.5"),
        ("top-1, 1e-7", "top-1, 1e-7"),
    ],
)
def test_sentences_are_typeset(words, shown):
    assert typeset(words) == shown


# Plots


def test_every_eigenvalue_is_a_dot_on_its_side():
    report = sample()
    for kind, wanted in (("growing", lambda re: re > 0), ("stable", lambda re: re <= 0)):
        drawn = re.findall(rf'class="dots {kind}" d="([^"]*)"', source())
        spectra = [one["whole"]["values"]["spectrum_float"] for one in report["layers"]]
        assert [path.count("h0") for path in drawn] == [sum(wanted(z[0]) for z in s) for s in spectra]


def test_a_long_spectrum_is_thinned_but_keeps_its_ends():
    report = sample(1, 1, 16)
    report["layers"][0]["whole"]["scores"]["spectrum_float"] = [-50.0, *np.linspace(1, 2, 4000), 900.0]
    drawn = html(report)
    curve = re.search(r'class="area growing" d="([^"]*)"', drawn)
    assert curve
    assert 400 < curve[1].count("L") < 600
    assert "from −50 to 900" in Page(drawn).text
    below = re.search(r'class="area stable" d="([^"]*)"', drawn)
    assert below
    assert below[1].count("L") == 2  # one eigenvalue and back to the axis


def test_each_head_is_a_cell_that_reads_its_number():
    report = sample(2, 3, 12)
    del report["layers"][1]["heads"][0]
    drawn = Page(html(report)).parts["maps"]
    share = report["layers"][0]["heads"][2]["scores"]["antisymmetric_share_float"]
    assert f"layer 0, head 2: {share:.4g} (float)" in drawn
    assert drawn.count("layer 1, head 0: not audited") == 6
    assert drawn.count("layer 0, head 1:") == 6
    bound = report["layers"][1]["heads"][1]["scores"]["positive_definite"]["margin"]
    assert f"layer 1, head 2: {bound} (exact)" in drawn


def test_curves_break_where_a_number_is_missing_and_go_on_past_the_floats():
    drawn = page().parts["activations"]
    assert "model, layer 4: 10^347.4 (float)" in drawn  # e^800
    mean, largest, *_ = re.findall(r'<g class="curve model"><path d="([^"]*)"/><circle cx="[5-9]', source())
    assert (mean.count("L"), largest.count("L")) == (3, 5)  # the trained depth is 3, two more were run
    share = re.search(r'aria-label="Larger share.*?<path d="(M[^"]*)"/><circle', source())
    assert share
    assert share[1].count("M") == 2  # step 1 is missing
    assert "Mean entropy" not in drawn  # no number at all
    assert "past the trained depth of 3" in drawn


def test_a_large_model_stays_a_small_file():
    report = sample(30, 9, 18)
    rng = np.random.default_rng(0)
    for one in report["layers"]:
        whole = one["whole"]
        whole["values"]["spectrum_float"] = rng.normal(size=(576, 2)).round(4).tolist()
        for place in ("scores", "response"):
            whole[place]["spectrum_float"] = np.sort(rng.normal(size=576)).round(4).tolist()
    assert len(html(report).encode()) < 5_000_000


def labels(drawing: str) -> list[tuple[float, float, float, str]]:
    """(left, right, baseline, text) of every upright label of an SVG, its width estimated.

    0.6 em for a character is that of a digit of usual sans-serif fonts; points are narrower. That raised
    digits are smaller is left out.
    """
    found = []
    for where, inner in re.findall(r"<text ([^>]*)>(.*?)</text>", drawing):
        if "transform" in where:
            continue
        text = re.sub(r"<.*?>", "", unescape(inner))
        place = dict(re.findall(r'([\w-]+)="(.*?)"', where))
        width = 10.5 * sum(0.3 if letter in ". " else 0.6 for letter in text)
        share = {"start": 0.0, "end": 1.0}.get(place.get("text-anchor", ""), 0.5)
        left = float(place["x"]) - share * width
        found.append((left, left + width, float(place["y"]), text))
    return found


def misplaced(document: str) -> list[str]:
    """The labels of plots that leave their drawing or touch another one on the same line."""
    wrong = []
    for width, height, drawing in re.findall(
        r'<svg viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*role="img"[^>]*>(.*?)</svg>', document
    ):
        found = labels(drawing)
        wrong += [
            text
            for left, right, y, text in found
            if left < 0 or right > float(width) or not 8 <= y <= float(height)
        ]
        for number, (left, right, y, text) in enumerate(found):
            for left2, right2, y2, other in found[:number]:
                if abs(y - y2) < 8 and left < right2 + 2 and left2 < right + 2:
                    wrong.append(f"{other}|{text}")
    return wrong


def scaled(size: float) -> Json:
    """A report all of whose plotted numbers are about `size` as large."""
    plotted = ("spectrum_float", "antisymmetric_share_float", "norm_mean_float", "cosine_float")

    def scale(key: str, leaf: Any) -> Any:
        if key == "margin" and leaf and leaf[0] in "≤≥":
            return f"{leaf[:2]}{float(leaf[2:]) * size:.4g}"
        return leaf * size if key in plotted and leaf is not None else leaf

    return changed(sample(2, 2), scale)


SIZES = (1.0, 7.3e-3, 6.84e-3, 3.1e-4, 2.5e-5, 1e-12, 860.0, 3.7e4, 4.4e5, 2e9)


@pytest.mark.parametrize("size", SIZES)
def test_labels_stay_in_their_drawing_and_apart(size):
    assert misplaced(html(scaled(size))) == []


def test_many_layers_and_heads_leave_the_labels_of_a_map_apart():
    report = sample(2, 120, 240, text=False)
    for number, one in enumerate(report["layers"]):
        one["index"] = 100 + number
    assert misplaced(html(report)) == []


def test_a_scale_with_long_labels_has_two_of_them():
    def scale(low: float, high: float) -> list[str]:
        rows = [[Value(low, ""), Value(high, "")]]
        drawn = heat_map(rows, ["0"], ["0", "1"], "", diverging=False)
        return [text for *_, y, text in labels(drawn) if y > 60]

    assert scale(-0.00684, -0.00562) == ["−0.00684", "−0.00562"]
    assert scale(0.2, 0.4) == ["0.2", "0.3", "0.4"]


def test_neighbouring_ticks_have_different_labels():
    report = sample(3, 1)
    for row in report["activations"]["rows"]:
        row["cosine_float"] = 0.957487 + 1e-6 * row["step"]
    drawn = re.search(r'aria-label="Mean cosine.*?</svg>', html(report), re.S)
    assert drawn
    texts = [text for *_, text in labels(drawn[0]) if text.startswith("0.95")]
    assert len(texts) >= 3
    assert len(set(texts)) == len(texts)


# Colours


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb`, as WCAG 2.2 defines it."""
    levels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in levels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_and_marks_stand_out_from_the_page(dark):
    schemes = re.findall(r"(prefers-color-scheme: dark\) \{\s*)?:root \{(.*?)\}", source(), re.S)
    chosen = " ".join(body for found, body in schemes if bool(found) == dark)
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", chosen))

    def contrast(one: str, other: str) -> float:
        low, high = sorted((luminance(colours[one]), luminance(colours[other])))
        return (high + 0.05) / (low + 0.05)

    for name in ("ink", "soft", "link", "computed", "cited"):  # WCAG AA: 4.5 for text, 3 for graphics
        assert min(contrast(name, "paper"), contrast(name, "panel")) >= 4.5, name
    assert contrast("computed", "computed-paper") >= 4.5
    for name in ("growing", "stable", "model", "attention"):
        assert contrast(name, "paper") >= 3, name
    assert contrast("growing", "growing-paper") >= 3
    assert contrast("stable", "stable-paper") >= 3


# Writing it


def test_it_is_written_whole_and_the_same_every_time(tmp_path):
    for name in ("a.html", "b.html"):
        write_html(sample(), tmp_path / name)
        assert (tmp_path / name).read_text(encoding="utf-8") == source()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "b.html"]


def test_another_schema_or_place_is_refused(tmp_path):
    for schema in ("tokendyn-audit/1", "tokendyn-verify/1"):
        with pytest.raises(InputError, match=f"report: got schema '{schema}'; expected {SCHEMA_NAME}"):
            html({**sample(1, 1), "schema": schema})
    with pytest.raises(InputError, match="report: got schema None"):
        html({})
    for place in (tmp_path, tmp_path / "no" / "file.html"):
        with pytest.raises(InputError, match=r"--html: got .*expected a file in an existing"):
            write_html(sample(1, 1), place)


# In a browser

SCRIPT = """
const problems = [];
addEventListener("error", event => problems.push(event.message));
const table = document.getElementById("heads-table"), found = {};
const headings = [...table.tHead.rows[0].cells];
const column = headings.findIndex(one => /^max Re/.test(one.textContent));
const button = headings[column].querySelector("button");
const values = () => [...table.tBodies[0].rows].map(row => row.cells[column].dataset.value);
const state = () => headings.map(one => one.getAttribute("aria-sort"));
found.start = values();
button.focus(); found.focused = document.activeElement === button;
button.click(); found.up = values(); found.upState = state()[column];
button.click(); found.down = values(); found.downState = state()[column];
headings[0].querySelector("button").click();
found.back = values(); found.states = state().filter(Boolean);
const summary = document.getElementById("summary");
const names = () => [...summary.tBodies[0].rows].map(row => row.cells[0].textContent.split(" ")[0].trim());
summary.tHead.querySelector("button").click(); found.names = names();
summary.tHead.querySelector("button").click(); found.namesDown = names();
const all = [...document.querySelectorAll("thead th")];
found.buttons = all.every(one => one.querySelector("button[type=button]"));
const pick = document.querySelector("select[data-filters]");
pick.value = "1"; pick.dispatchEvent(new Event("change"));
const visible = [...table.tBodies[0].rows].filter(row => row.offsetHeight > 0);
found.filtered = visible.map(row => row.cells[0].textContent);
found.scrolls = document.documentElement.scrollWidth - document.documentElement.clientWidth;
const box = one => one.getBoundingClientRect();
found.flat = [...document.querySelectorAll("main svg")].filter(one => !(box(one).width > 0)).length;
dispatchEvent(new Event("beforeprint"));
found.printing = [...document.querySelectorAll("details.layer")].every(one => one.open);
dispatchEvent(new Event("afterprint"));
found.printed = document.querySelectorAll("details.layer[open]").length;
location.hash = "#layer-2-T2";
addEventListener("hashchange", () => {
  const target = document.getElementById("layer-2-T2");
  found.revealed = target.closest("details").open && target.querySelector("details").open;
  found.loaded = performance.getEntriesByType("resource").length;
  found.problems = problems;
  document.documentElement.dataset.found = JSON.stringify(found);
});
"""


@IN_A_BROWSER
@pytest.mark.parametrize("width", [1600, 400])
def test_the_page_works_in_a_browser(tmp_path, width):
    report = sample()
    heads = [part for one in report["layers"] for part in one["heads"]]
    rates = [
        -2.0,
        10.5,
        9.25,
        1e-3,
        1e5,
        -1e-7,
        0.0,
        3.0,
        12.0,
        -11.0,
        100.0,
        20.0,
    ]  # "10.5" < "9.25" as text
    for part, rate in zip(heads, rates, strict=True):
        part["values"]["growth"]["margin"] = f"≥ {rate}"
    document = tmp_path / "audit.html"
    driver = f"<script>{SCRIPT}</script></body>"
    document.write_text(html(report).replace("</body>", driver), encoding="utf-8")
    done = browse(document, f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    told = re.search(r'data-found="(.*?)"', done.stdout)
    assert told
    found = json.loads(unescape(told[1]))
    assert [float(value) for value in found["start"]] == rates
    assert [float(value) for value in found["up"]] == sorted(rates)
    assert [float(value) for value in found["down"]] == sorted(rates, reverse=True)
    assert (found["upState"], found["downState"]) == ("ascending", "descending")
    assert [float(value) for value in found["back"]] == rates
    assert found["states"] == ["ascending"]  # one column at a time
    assert found["names"] == list(THEOREMS)  # T9 before T15
    assert found["namesDown"] == list(THEOREMS)[::-1]
    assert found["focused"]
    assert found["buttons"]
    assert found["filtered"] == ["1.0", "1.1", "1.2", "1.3"]
    assert (found["flat"], found["scrolls"], found["loaded"], found["printed"]) == (0, 0, 0, 0)
    assert found["printing"]
    assert found["revealed"]
    assert found["problems"] == []


LAYOUT = """
const found = {clipped: [], touching: [], rows: [], heads: [], cut: []};
for (const one of document.querySelectorAll("details")) one.open = true;
for (const svg of document.querySelectorAll("main svg[role=img]")) {
  const {width, height} = svg.viewBox.baseVal;
  const upright = [...svg.querySelectorAll("text:not([transform])")];
  const texts = upright.map(one => [one.getBBox(), one.textContent]);
  texts.forEach(([a, text], i) => {
    if (a.x < 0 || a.x + a.width > width || a.y < -1 || a.y + a.height > height) found.clipped.push(text);
    for (const [b, other] of texts.slice(0, i))
      if (a.x < b.x + b.width && b.x < a.x + a.width && Math.abs(a.y - b.y) < 6)
        found.touching.push(other + "|" + text);
  });
}
for (const table of document.querySelectorAll("table")) {
  for (const row of table.rows) {
    const height = row.getBoundingClientRect().height;
    if (Math.abs(height - Math.round(height)) > 0.01) found.rows.push([table.id, height]);
  }
  found.heads.push(table.tHead.getBoundingClientRect().height);
}
const summary = document.querySelector("#summary").closest(".wide");
found.hidden = summary.scrollWidth - summary.clientWidth;
document.documentElement.dataset.found = JSON.stringify(found);
"""


@IN_A_BROWSER
@pytest.mark.parametrize("width", [1600, 1200, 420])
def test_the_layout_holds_in_a_browser(tmp_path, width):
    """Real fonts: labels inside and apart, rows of whole pixels (else borders break), low headings."""
    document = tmp_path / "audit.html"
    driver = f"<script>{LAYOUT}</script></body>"
    document.write_text(html(scaled(6.84e-3)).replace("</body>", driver), encoding="utf-8")
    done = browse(document, f"--window-size={width},900", "--virtual-time-budget=5000", "--dump-dom")
    assert "CONSOLE" not in done.stderr
    told = re.search(r'data-found="(.*?)"', done.stdout)
    assert told
    found = json.loads(unescape(told[1]))
    assert (found["clipped"], found["touching"], found["rows"]) == ([], [], [])
    assert max(found["heads"]) < 90  # px: two or three lines, unit and arrow included
    if width >= 1200:
        assert found["hidden"] == 0  # every column of the summary is in view


@IN_A_BROWSER
def test_without_scripts_nothing_is_hidden_and_nothing_is_missing_a_number(tmp_path):
    report = sample(1, 2)
    report["layers"][0]["heads"][1]["values"]["growth"]["margin"] = ""
    still = re.sub(r"<script>.*?</script>", "", html(report), flags=re.DOTALL)
    (tmp_path / "audit.html").write_text(still, encoding="utf-8")
    shown = browse(tmp_path / "audit.html", "--dump-dom").stdout
    assert column(shown, "heads-table", "max Re λ(V)")[1] == "open"
    assert "<button" not in shown
    assert 'class="sorting-help" hidden' in shown
