"""The audit of checkpoints: made ones with known answers, the report's schema, and the real ALBERT."""

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flint import fmpq, fmpq_mat
from jsonschema import Draft202012Validator
from rich.console import Console

from numerics.errors import InputError
from numerics.fetch import UnavailableError
from theory.definiteness import ROUND_CEILING, ROUND_FLOOR, Inertia, decimal_bound, inertia
from theory.eigenpairs import unstable
from theory.verdict import Grade, Status
from theory.weights import identity, rational_matrix
from tokendyn.audit import audit
from tokendyn.audit_text import print_audit

SCHEMA = json.loads(Path(__file__).parents[2].joinpath("docs", "audit_schema.json").read_text("utf-8"))
NAME = "albert.encoder.albert_layer_groups.0.albert_layers.0.attention"
DEPTH = 3

KEY = [[2, -1, 0, 1], [1, 2, 0, 0], [0, 0, 2, -1], [-1, 0, 1, 2]]  # symmetric part 2I
EYE = np.eye(4)

Save = Callable[..., Path]
Report = dict[str, Any]


@pytest.fixture
def save(tmp_path: Path) -> Save:
    """Writes an ALBERT-like checkpoint with the given (out, in) matrices; returns its path."""

    def write(query: Any, key: Any, value: Any, output: Any, heads: int = 2) -> Path:
        parts = {"query": query, "key": key, "value": value, "dense": output}
        state = {f"{NAME}.{part}.weight": torch.tensor(np.array(m)).float() for part, m in parts.items()}
        torch.save(state, tmp_path / "model.bin")
        config = {"num_attention_heads": heads, "num_hidden_layers": DEPTH}
        (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        return tmp_path / "model.bin"

    return write


@pytest.fixture
def convergent(save: Save) -> Path:
    """Q = I, V = −K: A = −I/√d_k, W_s = 2I/√d_k, so T2 holds."""
    return save(EYE, KEY, KEY, -EYE)


@pytest.fixture
def random_maps() -> dict[str, np.ndarray]:
    """d = 32, beyond what is decided in rationals; float32, the values of the file."""
    generator = np.random.default_rng(3)
    maps = {name: generator.standard_normal((32, 32)) for name in ("query", "key", "value", "output")}
    return {name: m.astype(np.float32).astype(float) for name, m in maps.items()}


def whole(report: Report) -> Report:
    return report["layers"][0]["whole"]


def theorem(part: Report, identifier: str) -> Report:
    return next(entry for entry in part["theorems"] if entry["id"] == identifier)


def statuses(part: Report) -> dict[str, str]:
    return {entry["id"]: entry["status"] for entry in part["theorems"]}


def counts(signs: Report) -> tuple[int, int, int]:
    return tuple(signs["inertia"][sign] for sign in ("positive", "negative", "zero"))


def numpy_counts(matrix: np.ndarray) -> tuple[int, int, int]:
    values = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    zero = np.abs(values) < 1e-9 * np.abs(values).max()
    return int((~zero & (values > 0)).sum()), int((~zero & (values < 0)).sum()), int(zero.sum())


def bound(margin: str) -> float:
    return float(margin.split()[-1])


def printed(report: Report) -> str:
    console = Console(width=110, record=True, file=io.StringIO())
    print_audit(report, console)
    return console.export_text()


def flat(text: str) -> str:
    return " ".join(text.split())


# ---- known answers


def test_hypotheses_that_hold_are_reported_exactly(convergent: Path):
    part = whole(audit(convergent))
    met = ["T1", "T2", "T4", "T9b", "T10"]
    assert [identifier for identifier, status in statuses(part).items() if status == "HOLDS"] == met
    for identifier in met:
        entry = theorem(part, identifier)
        assert (entry["grade"], entry["first_unmet"]) == ("exact", None)
        assert entry["about"] == "single-head idealisation"
    assert theorem(part, "T2")["hypotheses"] == ["A symmetric", "A negative", "W positive"]
    assert 1.414 <= bound(part["hypotheses"]["W positive"]["margin"]) <= 2**0.5
    assert counts(part["scores"]) == (4, 0, 0)
    assert counts(part["response"]) == (0, 4, 0)
    assert part["response"]["antisymmetric_share_float"] == pytest.approx(0, abs=1e-12)


def test_unmet_hypotheses_leave_a_theorem_undecided(convergent: Path):
    part = whole(audit(convergent))
    unmet = {"T3": "A positive", "T5": "W symmetric", "T6": "V not Hurwitz", "T17": "left eigenvector"}
    for identifier, key in unmet.items():
        entry = theorem(part, identifier)
        assert (entry["status"], entry["grade"], entry["first_unmet"]) == ("UNDECIDED", None, key)
        assert part["hypotheses"][key]["status"] == "FAILS"
    assert part["values"]["growth"]["status"] == "FAILS"


def test_a_stable_layer_is_told_what_that_is_worth(convergent: Path):
    text = flat(printed(audit(convergent)))
    assert "T2 Convergence to zero HOLDS (exact) X(t) → 0 from every start (single-head idealisation)" in text
    assert "T1, T2, T4, T9b, T10: every hypothesis on the weights holds (whole layer)." in text
    assert "T6 and T6b are silent: V is Hurwitz" in text
    assert "proves nothing more" in text
    assert "T17 is silent" in text
    assert "W_s, range λ_min ≥ 1.414, λ_max ≥ 1.414 exact" in text


def test_heads_of_dependent_rows_and_stable_cores(convergent: Path):
    for h, part in enumerate(audit(convergent)["layers"][0]["heads"]):
        rows = slice(2 * h, 2 * h + 2)
        assert counts(part["scores"]) == numpy_counts(EYE[rows].T @ np.array(KEY)[rows])
        assert part["scores"]["inertia"]["grade"] == "exact"
        growth = part["values"]["growth"]
        assert (growth["status"], growth["margin"], part["values"]["singular"]) == ("FAILS", "= 0", True)
        assert theorem(part, "T6")["status"] == "HOLDS"


def test_a_singular_value_map_leaves_the_theorems_without_a(save: Save):
    report = audit(save(EYE, KEY, np.diag([3, -1, -1, 1]), np.diag([1, 1, 1, 0])))
    part = whole(report)
    assert part["response"] is None
    assert part["values"]["singular"]
    holding = [identifier for identifier, status in statuses(part).items() if status == "HOLDS"]
    assert holding == ["T6", "T6b", "T17"]
    assert theorem(part, "T2")["first_unmet"] == "A symmetric"
    assert part["hypotheses"]["A symmetric"]["grade"] is None
    assert "V is singular" in part["hypotheses"]["A symmetric"]["reason"]
    assert part["values"]["real_rate"]["margin"] in ("μ ≥ 3", "μ ≥ 2.999")
    text = flat(printed(report))
    assert "A = W V⁻¹ not defined: V is singular" in text
    assert "'A symmetric' is not met (V is singular" in text


def test_one_head_is_no_idealisation(save: Save):
    report = audit(save(EYE, KEY, KEY, EYE, heads=1))
    part = whole(report)
    assert {entry["about"] for entry in part["theorems"]} == {"attention-only layer"}
    assert theorem(part, "T3")["status"] == "HOLDS"
    assert theorem(part, "T3")["start_conditions"] == ["start nonzero"]
    text = flat(printed(report))
    assert "one head" in text
    assert "idealisation" not in text


def test_zero_scores_have_no_share_and_no_signs(save: Save):
    scores = whole(audit(save(0 * EYE, KEY, EYE, EYE)))["scores"]
    assert counts(scores) == (0, 0, 4)
    assert scores["antisymmetric_share_float"] is None


# ---- against numpy


def test_a_random_layer_agrees_with_numpy(save: Save, random_maps: dict[str, np.ndarray]):
    layer = audit(save(**random_maps, heads=4))["layers"][0]
    query, key, value, output = random_maps.values()
    score, values = query.T @ key / 8**0.5, output @ value
    response = score @ np.linalg.inv(values)
    part = layer["whole"]
    for signs, matrix in ((part["scores"], score), (part["response"], response)):
        extremes = np.linalg.eigvalsh((matrix + matrix.T) / 2)[[0, -1]]
        assert counts(signs) == numpy_counts(matrix)
        assert signs["inertia"]["grade"] == "interval"
        assert bound(signs["positive_definite"]["margin"]) == pytest.approx(extremes[0], rel=1e-3)
        assert bound(signs["positive_definite"]["margin"]) >= extremes[0]
        assert -bound(signs["negative_definite"]["margin"]) == pytest.approx(extremes[1], rel=1e-3)
        share = np.linalg.norm(matrix - matrix.T) / 2 / np.linalg.norm(matrix)
        assert signs["antisymmetric_share_float"] == pytest.approx(share, rel=1e-5)
    spectrum = np.linalg.eigvals(values)
    assert_growth(part["values"], spectrum)
    assert part["values"]["unstable_count_float"] == (np.real(spectrum) > 0).sum()
    largest = spectrum.real[(spectrum.imag == 0) & (spectrum.real > 0)].max()
    assert bound(part["values"]["real_rate"]["margin"]) == pytest.approx(largest, rel=1e-3)
    assert theorem(part, "T6")["about"] == theorem(part, "T6b")["about"] == "attention-only layer"
    assert theorem(part, "T17")["about"] == "single-head idealisation"
    assert 0 < layer["left_eigenvector_gap"]["smallest_sine_float"] <= 1


def assert_growth(values: Report, spectrum: np.ndarray) -> None:
    growth, abscissa = values["growth"], np.real(spectrum).max()
    assert growth["status"] == "HOLDS"
    assert bound(growth["margin"]) <= abscissa
    assert bound(growth["margin"]) == pytest.approx(abscissa, rel=1e-3)
    assert values["abscissa_float"] == pytest.approx(abscissa, rel=1e-5)


def test_random_heads_agree_with_numpy(save: Save, random_maps: dict[str, np.ndarray]):
    layer = audit(save(**random_maps, heads=4))["layers"][0]
    query, key, value, output = random_maps.values()
    for h, part in enumerate(layer["heads"]):
        rows = slice(8 * h, 8 * h + 8)
        score = query[rows].T @ key[rows] / 8**0.5
        smallest = np.linalg.eigvalsh((score + score.T) / 2)[0]
        assert (counts(part["scores"]), part["scores"]["inertia"]["grade"]) == ((8, 8, 16), "interval")
        assert numpy_counts(score) == (8, 8, 16)
        assert bound(part["scores"]["positive_definite"]["margin"]) == pytest.approx(smallest, rel=1e-3)
        assert (part["values"]["singular"], part["response"]) == (True, None)
        assert_growth(part["values"], np.linalg.eigvals(output[:, rows] @ value[rows]))
        assert statuses(part)["T6"] == "HOLDS"
        grows = part["values"]["growth"]["status"] == "HOLDS"
        assert statuses(part)["T6b"] == ("HOLDS" if grows else "UNDECIDED")
        assert {statuses(part)[t] for t in ("T1", "T2", "T3", "T4", "T5", "T10")} == {"UNDECIDED"}
        assert {entry["about"] for entry in part["theorems"]} == {"this head alone"}


def test_shared_value_maps_have_a_common_left_eigenvector(save: Save):
    """Each V_h has row space e_1 only for h = 0 and V_1 = 0: ℓ = e_1 is common, the sine is 0."""
    gap = audit(save(EYE, KEY, np.diag([2, 0, 0, 0]), EYE))["layers"][0]["left_eigenvector_gap"]
    assert gap == {"smallest_sine_float": 0, "largest_sine_float": 0}


# ---- report and terminal


def test_the_reports_validate(convergent: Path):
    report = audit(convergent)
    Draft202012Validator(SCHEMA).validate(report)
    assert json.loads(json.dumps(report)) == report


def test_every_field_of_the_schema_is_described_and_required():
    Draft202012Validator.check_schema(SCHEMA)
    objects = [node for node in nodes(SCHEMA) if "properties" in node]
    assert len(objects) > 8
    for node in objects:
        assert node["additionalProperties"] is False
        assert node["required"] == list(node["properties"])
        for name, field in node["properties"].items():
            assert field.get("description"), name


def nodes(tree: Any) -> Iterator[dict]:
    if isinstance(tree, dict):
        yield tree
        for child in tree.values():
            yield from nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from nodes(child)


def test_the_source_is_named_without_its_folder(convergent: Path):
    report = audit(str(convergent))
    source = report["source"]
    assert (source["name"], source["package"]) == ("model.bin", None)
    assert str(convergent.parent) not in json.dumps(report)


def test_the_terminal_says_what_the_verdicts_are_about(save: Save, random_maps: dict[str, np.ndarray]):
    report = audit(save(**random_maps, heads=4))
    text = printed(report)
    assert len(text.splitlines()) <= 64  # one screen
    assert max(map(len, text.splitlines())) <= 110
    assert "FAILS" not in text
    for sentence in (
        "a single-head idealisation, not the model's multi-head dynamics",
        f"iterated {DEPTH} times with the same weights, so it is one autonomous system",
        "in the attention-only layer (with all its heads) not every start converges to zero",
        "every token diverges, whatever W",
        "It is not claimed for the multi-head layer",
        "T15: 'A symmetric' is not met (interval, A is not symmetric, |A − Aᵀ|/|A| ≈",
        "it does not refute it",
        "Silent about the whole layer",
        "V_h has rank ≤ 8 < 32",
        "The theory ignores: layer normalisation",
        "float: computed in double precision, for display: not a proof",
    ):
        assert sentence in flat(text)


def test_an_unknown_depth_is_said(convergent: Path):
    convergent.with_name("config.json").unlink()
    assert "No depth with shared weights is known" in flat(printed(audit(convergent, num_heads=2)))


def test_stages_are_reported(convergent: Path):
    stages: list[str] = []
    audit(convergent, progress=stages.append)
    assert [stage.split(": ")[1] for stage in stages] == ["the whole layer", "head 1 of 2", "head 2 of 2"]


def test_errors_of_the_loaders_pass_through(tmp_path: Path, convergent: Path):
    with pytest.raises(InputError, match="no such file"):
        audit(tmp_path / "absent.bin")
    with pytest.raises(InputError, match="heads"):
        audit(convergent, num_heads=4)


# ---- what the audit needs of the exact half


def _block(*blocks: fmpq_mat) -> fmpq_mat:
    size = sum(block.nrows() for block in blocks)
    result, start = fmpq_mat(size, size), 0
    for block in blocks:
        for i in range(block.nrows()):
            for j in range(block.nrows()):
                result[start + i, start + j] = block[i, j]
        start += block.nrows()
    return result


def test_inertia_beyond_the_rationals_keeps_exact_zeros():
    swap = rational_matrix("m", [[0, 1], [1, 0]])
    matrix = _block(identity(20), identity(10) * -3, swap, fmpq_mat(3, 3))
    assert inertia(matrix) == (Inertia(21, 11, 3), Grade.INTERVAL)


def test_inertia_tells_a_tiny_negative_eigenvalue():
    tiny = identity(1) * fmpq(-1, 2**30)
    assert inertia(_block(identity(29), tiny)) == (Inertia(29, 1, 0), Grade.INTERVAL)


@pytest.mark.parametrize(
    ("matrix", "status", "grade", "margin"),
    [
        ([[1, 0], [0, 1]], Status.HOLDS, Grade.EXACT, "≥ 1"),  # a double eigenvalue: the trace decides
        ([[1, 5], [0, -3]], Status.HOLDS, Grade.INTERVAL, "≥ 0.9999"),  # enclosed, rounded down
        ([[-1, 5], [0, -3]], Status.FAILS, Grade.EXACT, "< 0"),
        ([[0, -1], [1, 0]], Status.UNDECIDED, Grade.FLOAT, ""),
    ],
)
def test_unstable(matrix: list, status: Status, grade: Grade, margin: str):
    verdict = unstable(rational_matrix("m", matrix))
    assert (verdict.status, verdict.grade, verdict.margin) == (status, grade, margin)


def test_decimal_bounds_are_rounded_outward():
    assert decimal_bound(fmpq(2, 3), ROUND_FLOOR) == "0.6666"
    assert decimal_bound(fmpq(2, 3), ROUND_CEILING) == "0.6667"
    assert decimal_bound(fmpq(-123456), ROUND_CEILING) == "-1.234e+5"


# ---- the real one


def test_the_fetched_albert_is_audited_honestly():
    try:
        report = audit("albert")
    except UnavailableError as error:
        pytest.skip(f"the package could not be downloaded here; run again with a network: {error.got}")
    Draft202012Validator(SCHEMA).validate(report)
    part = whole(report)
    assert (counts(part["scores"]), counts(part["response"])) == ((129, 127, 0), (129, 127, 0))
    assert part["response"]["antisymmetric_share_float"] == pytest.approx(0.706, abs=1e-3)
    assert [t["id"] for t in part["theorems"] if t["status"] == "HOLDS"] == ["T6", "T6b", "T17"]
    assert bound(part["values"]["growth"]["margin"]) == pytest.approx(0.8017, abs=1e-4)
    heads = report["layers"][0]["heads"]
    assert {counts(head["scores"]) for head in heads} == {(32, 32, 192)}
    assert [h["head"] for h in heads if h["values"]["growth"]["status"] == "FAILS"] == [2, 6]
    text = printed(report)
    assert len(text.splitlines()) <= 64  # one screen
    assert "iterated 12 times" in text
