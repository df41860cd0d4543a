"""An audit in words: its statements as sentences, and the report on about one terminal screen."""

from functools import partial
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from theory.hypotheses import A_DEFINITE, A_NEGATIVE, A_POSITIVE, A_SYMMETRIC, V_NOT_HURWITZ

NEED_A = frozenset(h.key for h in (A_SYMMETRIC, A_POSITIVE, A_NEGATIVE, A_DEFINITE))

Json = dict[str, Any]


def says(layer: Json) -> list[str]:
    """The certified statements in plain words, for the layer as a whole and then for its heads."""
    whole = [_says_equal_tokens(layer), _says_half_space(layer), _says_sufficient(layer)]
    return whole if layer["heads_count"] == 1 else [*whole, _says_heads(layer)]


def _entry(part: Json, identifier: str) -> Json:
    return next(theorem for theorem in part["theorems"] if theorem["id"] == identifier)


def _says_equal_tokens(layer: Json) -> str:
    whole = layer["whole"]
    verdict, growth = whole["hypotheses"][V_NOT_HURWITZ.key], whole["values"]["growth"]
    several = " (with all its heads)" if layer["heads_count"] > 1 else ""
    if verdict["status"] == "FAILS":
        return (
            f"T6 and T6b are silent: V is Hurwitz ({verdict['grade']}), so equal tokens decay; that is "
            "necessary for convergence from every start, and proves nothing more."
        )
    if verdict["status"] == "UNDECIDED":
        return f"T6 and T6b are silent: whether V is Hurwitz could not be certified ({verdict['reason']})."
    said = (
        f"T6 ({verdict['grade']}): V is not Hurwitz, so in the attention-only layer{several} not every "
        "start converges to zero."
    )
    if growth["status"] != "HOLDS":
        return said
    return (
        f"{said} Tokens that start equal obey ẋ = Vx, and V has an eigenvalue with real part "
        f"{growth['margin']} ({growth['grade']}): some such starts diverge. T6b ({growth['grade']}): almost "
        "no start converges to zero; those that do have measure zero, whatever the heads' W and the mask."
    )


def _says_half_space(layer: Json) -> str:
    entry, rate = _entry(layer["whole"], "T17"), layer["whole"]["values"]["real_rate"]
    if entry["status"] != "HOLDS":
        return f"T17 is silent: {rate['reason']}."
    said = (
        f"T17 ({entry['grade']}): ℓᵀV = μℓᵀ with a real {rate['margin']}: there is an open half-space "
        "ℓᵀx > 0 such that, if all tokens start in it, every token diverges, whatever W: ℓᵀx_i grows at "
        "exactly rate μ, and x_i at least so fast."
    )
    gap = layer["left_eigenvector_gap"]
    if layer["heads_count"] == 1:
        return said
    measured = (
        f" (the sine of the angle between V_hᵀℓ and ℓ is {gap['smallest_sine_float']:.2f} to "
        f"{gap['largest_sine_float']:.2f} over the heads; float)"
        if gap
        else ""
    )
    return (
        f"{said} This is about the single-head idealisation, or heads that share V. It is not claimed for "
        f"the multi-head layer, where ℓ would have to be a left eigenvector of every V_h{measured}."
    )


def _says_sufficient(layer: Json) -> str:
    entries = [t for t in layer["whole"]["theorems"] if t["id"] not in ("T6", "T6b", "T17")]
    met = [t["id"] for t in entries if t["status"] == "HOLDS"]
    silent = [t["id"] for t in entries if t["status"] != "HOLDS"]
    parts = []
    if met:
        parts.append(f"{', '.join(met)}: every hypothesis on the weights holds (whole layer).")
    if silent:
        parts.append(
            f"{', '.join(silent)}: silent about the whole layer. A sufficient condition that is not met "
            "leaves its conclusion open; it does not refute it."
        )
    return " ".join(parts)


def _says_heads(layer: Json) -> str:
    """Why the theorems about A_h and (W_h)_s are silent about every single head."""
    d, rank = layer["d"], layer["head_dim"]
    if rank >= d:
        return "Single heads: none is of low rank; see their verdicts in the report."
    names = ", ".join(t["id"] for t in layer["heads"][0]["theorems"] if NEED_A & set(t["hypotheses"]))
    indefinite = f", and (W_h)_s has rank ≤ {2 * rank} < {d}, so it is not definite" if 2 * rank < d else ""
    return (
        f"{names} are silent about every single head: V_h has rank ≤ {rank} < {d}, so it is singular and "
        f"A_h = W_h V_h⁻¹ does not exist{indefinite}. T6 holds of every single head, if only because 0 is "
        "an eigenvalue of V_h."
    )


def print_audit(report: Json, console: Console) -> None:
    """About one screen per layer: signs, spectrum, theorems, heads, and what all of it leaves out."""
    source = report["source"]
    package = f" ({source['package']} {source['version']}, {source['licence']})" if source["package"] else ""
    write = partial(console.print, highlight=False, markup=False)
    write(f"Audit of {source['name']}{package}, architecture {report['architecture']}", style="bold")
    write(report["iteration"])
    for layer in report["layers"]:
        write(
            f"\n{layer['name']}: d = {layer['d']}, {layer['heads_count']} heads of {layer['head_dim']}, "
            f"stored as {layer['stored_dtype']}",
            style="bold",
        )
        write(layer["audited"])
        for table in (_whole_table(layer["whole"]), _theorem_table(layer["whole"]), _head_table(layer)):
            console.print(table)
        for sentence in layer["says"]:
            write(f"• {sentence}")
    write(f"\nThe theory ignores: {'; '.join(report['ignores'])}. A verdict here is not one about the model.")
    write("Grades: " + "; ".join(f"{grade}: {meaning}" for grade, meaning in report["grades"].items()) + ".")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="underline")
    for column in columns:
        table.add_column(column)
    return table


def _add_row(table: Table, *cells: str) -> None:
    table.add_row(*(Text(cell) for cell in cells))


def _whole_table(part: Json) -> Table:
    table = _table("whole layer", "", "grade")
    for name, signs in (("W", part["scores"]), ("A", part["response"])):
        if signs is None:
            _add_row(table, "A = W V⁻¹", "not defined: V is singular", "exact")
            continue
        _add_row(table, f"{name}_s, signs", _inertia_text(signs["inertia"]), _grade(signs["inertia"]))
        _add_row(table, f"{name}_s, range", _range_text(signs), _range_grade(signs))
        share = signs["antisymmetric_share_float"]
        _add_row(
            table, f"‖{name}_a‖/‖{name}‖", f"{_share_text(share)} (of a large random matrix: 0.71)", "float"
        )
    values = part["values"]
    _add_row(
        table,
        "V, spectrum",
        f"max Re λ ≈ {values['abscissa_float']:.4g}; {values['unstable_count_float']} with Re λ > 0",
        "float",
    )
    _add_row(table, "V, max Re λ", _growth_text(values["growth"]), _grade(values["growth"]))
    return table


def _theorem_table(part: Json) -> Table:
    table = _table("theorem", "", "verdict", "what it says, or the first hypothesis that is not met")
    for entry in part["theorems"]:
        title = entry["title"]
        if entry["status"] == "HOLDS":
            provided = "".join(f", provided '{key}'" for key in entry["start_conditions"])
            says = f"{entry['concludes']} ({entry['about']}{provided})"
            _add_row(table, entry["id"], title, f"HOLDS ({entry['grade']})", says)
            continue
        key = entry["first_unmet"]
        unmet = part["hypotheses"][key]
        why = f"margin {unmet['margin']}" if unmet["margin"] else unmet["reason"]
        graded = f"{unmet['grade']}, {why}" if unmet["grade"] else why
        _add_row(table, entry["id"], title, "UNDECIDED", f"silent: '{key}' is not met ({graded})")
    return table


def _head_table(layer: Json) -> Table:
    table = _table(
        "head", "W_s: +, −, 0", "λ_min, λ_max of W_s", "‖W_a‖/‖W‖ (float)", "max Re λ(V)", "T17 alone"
    )
    for part in layer["heads"]:
        signs, values = part["scores"], part["values"]
        found, share = signs["inertia"], signs["antisymmetric_share_float"]
        _add_row(
            table,
            str(part["head"]),
            f"{found['positive']}, {found['negative']}, {found['zero']} ({found['grade']})"
            if found
            else "open",
            f"{', '.join(_range(signs))} ({_range_grade(signs)})",
            _share_text(share),
            f"{_growth_text(values['growth'])} ({_grade(values['growth'])})",
            values["real_rate"]["margin"] or "silent",
        )
    return table


def _inertia_text(found: Json | None) -> str:
    if found is None:
        return "open at the highest precision"
    total = found["positive"] + found["negative"] + found["zero"]
    share = f"{100 * found['negative'] / total:.1f} % negative"
    counts = f"{found['positive']} positive, {found['negative']} negative, {found['zero']} zero"
    return f"{counts} eigenvalues ({share})"


def _share_text(share: float | None) -> str:
    return "not computed" if share is None else f"{share:.3f}"


def _range_text(signs: Json) -> str:
    smallest, largest = _range(signs)
    return f"λ_min {smallest}, λ_max {largest}"


def _range(signs: Json) -> tuple[str, str]:
    smallest = signs["positive_definite"]["margin"] or "open"
    return smallest, _mirrored(signs["negative_definite"]["margin"]) or "open"


def _range_grade(signs: Json) -> str:
    sides = (signs["positive_definite"], signs["negative_definite"])
    return ", ".join(dict.fromkeys(_grade(side) for side in sides))


def _mirrored(margin: str) -> str:
    """The bound on −λ as a bound on λ: "≤ -2" becomes "≥ 2"."""
    if not margin:
        return ""
    relation, number = margin.split(maxsplit=1)
    opposite = {"≤": "≥", "≥": "≤", ">": "<", "<": ">"}[relation]
    negated = number.removeprefix("-") if number.startswith("-") or number == "0" else f"-{number}"
    return f"{opposite} {negated}"


def _growth_text(growth: Json) -> str:
    return growth["margin"] or "not certified > 0"


def _grade(verdict: Json | None) -> str:
    return str(verdict["grade"] or "open") if verdict else "open"
