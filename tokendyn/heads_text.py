"""The report of `tokendyn heads` on a terminal: a line for each layer, the strongest heads, its limits."""

from functools import partial
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Json = dict[str, Any]

MODES = {
    "swapped": "keys of two blocks swapped inside the head, query fixed",
    "rerun": "blocks swapped in the text, model run again",
}
SHORT = {"positional": "positional", "symbolic": "symbolic", "both ways": "both", "mixed": "mixed"}
"""Kinds as the columns of the table name them; whether a head is uniform does not depend on the mode."""


def print_heads(report: Json, console: Console) -> None:
    """About one screen for a small model; numbers of single heads are in the JSON and on the page."""
    write = partial(console.print, highlight=False, markup=False)
    source, modes = report["source"], report["run"]["modes"]
    package = f" ({source['package']} {source['version']}, {source['licence']})" if source["package"] else ""
    write(f"Heads of {source['name']}{package}, architecture {report['architecture']}", style="bold")
    write(said_of_run(report))
    console.print(_table(report))
    for mode in modes:
        write(f"{mode}: {MODES[mode]}", style="bold")
        found = report["summary"][mode]
        for kind in ("positional", "symbolic"):
            write(f"  strongest {kind}: {_named(found[kind])}")
        if line := said_of_correlation(found["correlation"]):
            write(f"  {line}")
    if line := said_of_target(report["on_target"]):
        write(line)
    write("Heads as layer.head (centred score, share of the last token's attention on the blocks).")
    write(said_of_exclusion(report))
    write("\nKinds: " + "; ".join(f"{kind}: {meaning}" for kind, meaning in report["kinds"].items()) + ".")
    for note in report["notes"]:
        write(f"• {note}")


def said_of_run(report: Json) -> str:
    """Prompts, sizes and parameters in a sentence or two."""
    run, prompts = report["run"], report["prompts"]
    lengths, blocks = ({prompt[key] for prompt in prompts} for key in ("tokens", "blocks"))
    seed = "" if run["seed"] is None else f", seed {run['seed']}"
    words = [
        f"{run['count']} prompts ({run['prompts']}{seed}) of "
        f"{_span(lengths)} tokens with {_span(blocks)} blocks, temperature {run['temperature']:.3g}."
    ]
    ranks = [prompt["answer_rank"] for prompt in prompts if prompt["answer_rank"] is not None]
    if ranks:
        first = sum(rank == 1 for rank in ranks)
        words.append(f"The model ranks the answer first in {first} of {len(ranks)}.")
    return " ".join(words)


def said_of_correlation(found: Json) -> str:
    """The rank correlation of used frequency and centred score; empty where there is none."""
    if found["spearman_float"] is None:
        return ""
    return (
        f"mean frequency used against centred score: Spearman {found['spearman_float']:+.2f} over "
        f"{found['heads']} heads (a correlation, no cause)"
    )


def said_of_target(heads: list[Json]) -> str:
    """Which heads attend most to the word that answers; empty without such a word."""
    if not heads:
        return ""
    named = ", ".join(f"{h['layer']}.{h['head']} ({h['on_target_float']:.1%})" for h in heads)
    return f"Most attention on the word that answers: {named}."


def said_of_exclusion(report: Json) -> str:
    """How close to S1's bound the variance of the logits comes, over all heads."""
    shares = [
        head["exclusion"]["variance_float"] / head["exclusion"]["bound_float"]
        for layer in report["layers"]
        for head in layer["heads"]
        if head["exclusion"]["bound_float"]
    ]
    if not shares:
        return "S1: no head has a positive bound."
    return (
        f"S1: Var(λ) over its bound is {median(shares):.2f} in the median head, {max(shares):.2f} in the "
        "largest; no head can exceed 1, and purely positional or symbolic ones have ½."
    )


def _span(numbers: set[int]) -> str:
    return "–".join(str(number) for number in sorted({min(numbers), max(numbers)}))


def _named(heads: list[Json]) -> str:
    """Layer.head with its centred score and its attention on the blocks."""
    found = (
        f"{h['layer']}.{h['head']} ({h['centred_float']:+.2f}, {h['on_blocks_float']:.0%})" for h in heads
    )
    return ", ".join(found) or "none"


def _table(report: Json) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="underline")
    modes = report["run"]["modes"]
    table.add_column("\nlayer")
    table.add_column("\nheads", justify="right")
    table.add_column("\nuniform", justify="right")
    for mode in modes:
        for place, kind in enumerate(SHORT):
            table.add_column(f"{'' if place else mode}\n{SHORT[kind]}", justify="right")
    table.add_column("\nentropy/log n", justify="right")
    for layer in report["layers"]:
        heads = layer["heads"]
        kinds = {mode: [head[mode]["kind"] for head in heads] for mode in modes}
        shares = sorted(head["entropy_share_float"] for head in heads)
        cells = (
            str(layer["index"]),
            str(len(heads)),
            str(kinds[modes[0]].count("uniform")),
            *(str(kinds[mode].count(kind)) for mode in modes for kind in SHORT),
            f"{shares[0]:.2f} … {shares[-1]:.2f}",
        )
        table.add_row(*map(Text, cells))
    return table
