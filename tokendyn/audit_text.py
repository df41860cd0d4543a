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
    whole = [_says_equal_tokens(layer), _says_first_token(layer), _says_half_space(layer)]
    whole += [_says_sufficient(layer), _says_no_certificate(layer)]
    several = [] if layer["heads_count"] == 1 else [_says_tie(layer), _says_heads(layer)]
    return [sentence for sentence in (*whole, *several) if sentence]


def _entry(part: Json, identifier: str) -> Json | None:
    return next((theorem for theorem in part["theorems"] if theorem["id"] == identifier), None)


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


def _says_first_token(layer: Json) -> str:
    """Of causal layers alone."""
    entry, growth = _entry(layer["whole"], "T14c"), layer["whole"]["values"]["growth"]
    if not entry or entry["status"] != "HOLDS":
        return ""
    return (
        f"T14c ({entry['grade']}): in the attention-only layer the first token obeys ẋ = Vx, whatever the "
        f"scores, and diverges from almost every start, at the rate {growth['margin']}."
    )


def _says_half_space(layer: Json) -> str:
    entry, rate = _entry(layer["whole"], "T17"), layer["whole"]["values"]["real_rate"]
    if not entry or entry["status"] != "HOLDS":
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
    """The other theorems: those that speak, and those that are silent by the hypothesis that is not met."""
    part = layer["whole"]
    entries = [t for t in part["theorems"] if t["id"] not in ("T6", "T6b", "T14c", "T17")]
    met = [t["id"] for t in entries if t["status"] == "HOLDS"]
    parts = [f"{', '.join(met)}: every hypothesis on the weights holds (whole layer)."] if met else []
    silent: dict[str, list[str]] = {}
    for entry in entries:
        if entry["status"] != "HOLDS":
            silent.setdefault(entry["first_unmet"], []).append(entry["id"])
    reasons = []
    for key, ids in silent.items():
        unmet = part["hypotheses"][key]
        why = ", ".join(filter(None, (unmet["grade"], unmet["reason"], unmet["margin"])))
        reasons.append(f"{', '.join(ids)}: '{key}' is not met ({why})")
    if silent:
        parts.append(
            f"Silent about the whole layer: {'; '.join(reasons)}. An unmet sufficient condition leaves its "
            "conclusion open; it does not refute it."
        )
    return " ".join(parts)


def _says_no_certificate(layer: Json) -> str:
    found = {kind: reason for kind, reason in layer["no_certificate"].items() if reason}
    if not found:
        return ""
    reasons = " ".join(f"None of {kind}: {reason}." for kind, reason in found.items())
    return f"T11: no certificate exists, since equal tokens obey ẋ = Vx. {reasons}"


def _says_tie(layer: Json) -> str:
    tie = layer["heads_tie"]
    if tie is None:
        return ""
    why = f"; it cannot hold with c_1 = 1: {tie['obstacle']} (interval)" if tie["obstacle"] else ""
    return (
        "T15 needs one symmetric A with A V_h = c_h W_h, c_h ≥ 0, for all heads. The best A leaves "
        f"{100 * tie['equal_float']:.1f} % of the W_h where all c_h‖W_h‖ are equal, the best A and c "
        f"{100 * tie['best_float']:.1f} % (float; 0 is tied, 100 no better than A = 0){why}."
    )


def _says_heads(layer: Json) -> str:
    """Why the theorems about A_h and (W_h)_s are silent about every single head."""
    if not layer["heads"]:
        return ""
    d, rank = layer["d"], layer["head_dim"]
    if rank >= d:
        return "Single heads: none is of low rank; see their verdicts in the report."
    names = ", ".join(t["id"] for t in layer["heads"][0]["theorems"] if NEED_A & set(t["hypotheses"]))
    indefinite = f" and (W_h)_s, of rank ≤ {2 * rank}, is not definite" if 2 * rank < d else ""
    return (
        f"Single heads: V_h has rank ≤ {rank} < {d}, so A_h = W_h V_h⁻¹ does not exist{indefinite}: {names} "
        "are silent. T6 holds of every one, if only because 0 is an eigenvalue of V_h."
    )


def print_audit(report: Json, console: Console) -> None:
    """About one screen: one layer in detail, or several in a line each; then what all of it leaves out."""
    source, setting = report["source"], report["setting"]
    package = f" ({source['package']} {source['version']}, {source['licence']})" if source["package"] else ""
    write = partial(console.print, highlight=False, markup=False)
    write(f"Audit of {source['name']}{package}, architecture {report['architecture']}", style="bold")
    stored = ", ".join(dict.fromkeys(layer["stored_dtype"] for layer in report["layers"]))
    write(f"{_setting_text(setting)} Stored as {stored}. {report['iteration']}")
    if len(report["layers"]) == 1:
        _print_layer(report["layers"][0], console)
    else:
        _print_layers(report, console)
    if report["activations"]:
        _print_activations(report["activations"], console)
    write(f"\nThe theory ignores: {'; '.join(report['ignores'])}. A verdict here is not one about the model.")
    grades = "; ".join(f"{grade}: {meaning}" for grade, meaning in report["grades"].items())
    write(f"Grades: {grades}. The proofs of the statements themselves: `tokendyn show T6b`.")


def _setting_text(setting: Json) -> str:
    shared = f" ({setting['kv_heads']} of keys and values)" if setting["kv_heads"] != setting["heads"] else ""
    mask = "causal" if setting["causal"] else "full attention"
    encoding = f", rotary ({setting['rotary']})" if setting["rotary"] else ""
    folded = "; gains of the norm before attention are multiplied in" if setting["norm_folded"] else ""
    layers = f"{setting['layers']} layer{'s' if setting['layers'] > 1 else ''} of d = {setting['d']}"
    heads = f"{setting['heads']} heads{shared} of {setting['head_dim']}"
    return f"{layers}, {heads}, {mask}{encoding}{folded}."


def _print_layer(layer: Json, console: Console) -> None:
    write = partial(console.print, highlight=False, markup=False)
    write(f"\n{layer['name']}", style="bold")
    write(layer["audited"])
    console.print(_whole_table(layer["whole"]))
    console.print(_theorem_table(layer["whole"]))
    console.print(_head_table(layer))
    for sentence in (*layer["says"], *_searched([layer])):
        write(f"• {sentence}")


def _print_layers(report: Json, console: Console) -> None:
    """What speaks and what is silent over all layers, then a line for each layer."""
    write = partial(console.print, highlight=False, markup=False)
    write(report["layers"][0]["audited"])
    console.print(_summary_table(report["summary"]))
    for sentence in (*_silent(report["summary"]), *_searched(report["layers"])):
        write(f"• {sentence}")
    console.print(_layer_table(report["layers"]))
    grades = sorted({_grade(layer["whole"]["scores"]["inertia"]) for layer in report["layers"]})
    write(
        f"Signs, max Re λ(V) and μ(V): {', '.join(grades)}. Shares and gap: float; the gap is what the best "
        "common A leaves of the W_h (0: tied, 1: no better than A = 0)."
    )


def _summary_table(summary: list[Json]) -> Table:
    table = _table("statement", "speaks on", "grade", "margins", "what it says, and of what")
    for row in summary:
        if row["speaks"]:
            unit = "heads" if row["about"] == "this head alone" else "layers"
            margins = margins_text(row)
            what = f"{row['concludes']} ({row['about']})"
            _add_row(table, row["id"], f"{row['speaks']} of {row['of']} {unit}", row["grade"], margins, what)
    return table


def margins_text(row: Json) -> str:
    """From the smallest to the largest margin of a row of the summary, what they measure said once."""
    smallest, largest = row["margin_smallest"], row["margin_largest"]
    if smallest == largest:
        return smallest
    measure, number = largest.rsplit(maxsplit=1) if " " in largest else ("", largest)
    return f"{smallest} … {number if smallest.startswith(measure) else largest}"


def _silent(summary: list[Json]) -> list[str]:
    """The statements that are silent everywhere, together where the same hypothesis is missing."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for row in summary:
        if not row["speaks"]:
            why = f"'{row['silent_because']}' is not met ({row['silent_reason']})."
            reasons.setdefault((row["about"], why), []).append(row["id"])
    return [f"{', '.join(ids)}: silent everywhere ({about}): {why}" for (about, why), ids in reasons.items()]


def _searched(layers: list[Json]) -> list[str]:
    """What the searches for T11's certificates found, layers with the same outcome together."""
    outcomes: dict[str, list[str]] = {}
    for layer in layers:
        if found := layer["certificate"]:
            verdict = found["verdict"]
            details = ", ".join(filter(None, (verdict["grade"], verdict["reason"], verdict["margin"])))
            outcome = f"T11 for {found['context']} tokens, {found['kind']}: {verdict['status']} ({details})"
            outcomes.setdefault(outcome, []).append(str(layer["index"]))
    return [f"{outcome}; layer {', '.join(numbers)}." for outcome, numbers in outcomes.items()]


def _layer_table(layers: list[Json]) -> Table:
    table = _table(
        "layer", "W_s: +, −, 0", "A_s: +, −", "‖W_a‖/‖W‖", "‖A_a‖/‖A‖", "max Re λ(V)", "real μ(V)", "T15 gap"
    )
    for layer in layers:
        part = layer["whole"]
        shares = [
            signs and signs["antisymmetric_share_float"] for signs in (part["scores"], part["response"])
        ]
        tie = layer["heads_tie"]
        _add_row(
            table,
            str(layer["index"]),
            _counts_text(part["scores"], ("positive", "negative", "zero")),
            _counts_text(part["response"], ("positive", "negative")) if part["response"] else "V singular",
            *map(_share_text, shares),
            _growth_text(part["values"]["growth"]),
            part["values"]["real_rate"]["margin"].removeprefix("μ ") or "silent",
            f"{tie['equal_float']:.2f}" if tie else "",
        )
    return table


def _counts_text(signs: Json, names: tuple[str, ...]) -> str:
    found = signs["inertia"]
    return ", ".join(str(found[name]) for name in names) if found else "open"


def _print_activations(found: Json, console: Console) -> None:
    """A line per layer: the full model beside the attention-only dynamics of the same weights."""
    table = _table(
        "layers applied",
        "mean norm",
        "cosine",
        "sharpness",
        "first / others",
        "mean norm, attention only",
        "",
    )
    rows = found["rows"]
    alone = {row["step"]: row for row in rows if row["system"] == "attention only"}
    for row in rows:
        if row["system"] == "model":
            other = alone.get(row["step"], {})
            beyond = "beyond the trained depth" if row["beyond_trained_depth"] else ""
            keys = ("norm_mean_float", "cosine_float", "sharpness_float", "first_token_ratio_float")
            cells = [_number_text(row[key]) for key in keys]
            _add_row(table, str(row["step"]), *cells, _number_text(other.get("norm_mean_float")), beyond)
    console.print(table)
    console.print(
        "All in floating point, of these tokens alone: it proves nothing. first / others: norm of the first "
        "token over the median of the others. sharpness: Σ_ij‖x_i − x_j‖²/(2(n − 1)Σ_i‖x_i‖²).",
        highlight=False,
        markup=False,
    )


def _number_text(number: float | None) -> str:
    return "–" if number is None else f"{number:.3g}"


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
        _add_row(table, f"‖{name}_a‖/‖{name}‖", _shares_text(signs), "float")
    scores, response, values = part["scores"], part["response"], part["values"]
    diagonal = scores["smallest_diagonal"]
    _add_row(
        table,
        "W_s + D ≻ 0",
        f"the largest entry of D is {diagonal['largest_entry']}, the smallest trace "
        f"{_number_text(diagonal['trace_float'])} (float)",
        _grade(scores["positive_definite"]),
    )
    if response:
        changes = [response[f"change_to_{sign}_float"] for sign in ("negative", "positive")]
        _add_row(
            table,
            "change of A",
            "{} ‖A‖ to meet T2's condition on A, {} ‖A‖ for T3's".format(*map(_number_text, changes)),
            "float",
        )
    count, grade = _unstable_text(values)
    grades = ", ".join(dict.fromkeys((_grade(values["growth"]), grade)))
    _add_row(table, "V, spectrum", f"max Re λ {_growth_text(values['growth'])}; {count}", grades)
    return table


def _theorem_table(part: Json) -> Table:
    table = _table("statement", "", "verdict", "what it says, and of what")
    for entry in part["theorems"]:
        if entry["status"] == "HOLDS":
            provided = "".join(f", provided '{key}'" for key in entry["start_conditions"])
            says = f"{entry['concludes']} ({entry['about']}{provided})"
            _add_row(table, entry["id"], entry["title"], f"HOLDS ({entry['grade']})", says)
    return table


def _head_table(layer: Json) -> Table:
    table = _table(
        "head",
        "W_s: +, −, 0",
        "λ_min, λ_max of W_s",
        "‖W_a‖/‖W‖ (float)",
        "max Re λ(V)",
        "T17 alone",
        "grade",
    )
    for part in layer["heads"]:
        signs, values = part["scores"], part["values"]
        verdicts = (
            signs["inertia"],
            signs["positive_definite"],
            signs["negative_definite"],
            values["growth"],
        )
        _add_row(
            table,
            str(part["head"]),
            _counts_text(signs, ("positive", "negative", "zero")),
            ", ".join(_range(signs)),
            _share_text(signs["antisymmetric_share_float"]),
            _growth_text(values["growth"]),
            values["real_rate"]["margin"] or "silent",
            ", ".join(dict.fromkeys(map(_grade, verdicts))),
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


def _unstable_text(values: Json) -> tuple[str, str]:
    """How many eigenvalues lie right of the imaginary axis, and the grade of that count."""
    bounds = values["unstable_count"]
    if bounds is None:
        return f"{values['unstable_count_float']} eigenvalues with Re λ > 0", "float"
    return f"{' to '.join(map(str, dict.fromkeys(bounds)))} eigenvalues with Re λ > 0", "interval"


def _shares_text(signs: Json) -> str:
    share = f"{_share_text(signs['antisymmetric_share_float'])} (of a large random matrix: 0.71)"
    if "symmetry_float" not in signs:
        return share
    symmetry, directionality = (
        _number_text(signs[f"{name}_float"]) for name in ("symmetry", "directionality")
    )
    return f"{share}; symmetry {symmetry}, directionality {directionality}"


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
