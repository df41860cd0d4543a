"""docs/models.md: which statements speak about which pretrained model, from audits of all of them.

Run it with `make models`. A model that cannot be fetched is left out, and the page says so.
"""

from pathlib import Path
from typing import Any

from numerics.fetch import SOURCES, UnavailableError
from tokendyn.audit import HEAD, audit
from tokendyn.audit_text import margins_text
from tokendyn.files import write_text

PAGE = Path("docs", "models.md")

Json = dict[str, Any]

INTRODUCTION = """# What the theory says about pretrained models

Made by `make models` from `tokendyn audit` of each model; the full reports have every layer and head.
A cell says on how many layers (or heads) a statement's hypotheses on the weights are *proved*, with the
smallest and largest margin of its first hypothesis. *silent* names the hypothesis that is missing most often
and its margins: it leaves the conclusion open and refutes nothing. Every verdict is about the attention-only
dynamics of the stored weights, not about the model: what the theory ignores stands below.
"""


def page(reports: dict[str, Json], missing: dict[str, str]) -> str:
    """The page for reports by the model's name; `missing` says why others are left out."""
    wholes = _table("statement on whole layers", reports, lambda row: row["about"] != HEAD)
    heads = _table("statement on single heads", reports, lambda row: row["about"] == HEAD)
    left_out = [f"*{name} is left out: {reason}.*\n" for name, reason in missing.items()]
    parts = [INTRODUCTION, _models(reports), *left_out, _share(reports), wholes, heads, _ignored(reports)]
    return "\n".join(parts)


def _models(reports: dict[str, Json]) -> str:
    head = ("model", "package", "architecture", "stored as", "layers", "d", "heads", "attention")
    rows = [_row(head), _row(["---"] * len(head))]
    for name, report in reports.items():
        source, setting = report["source"], report["setting"]
        mask = "causal" if setting["causal"] else "full"
        rotary = f", rotary ({setting['rotary']})" if setting["rotary"] else ""
        grouped = setting["kv_heads"] < setting["heads"]
        shared = f" ({setting['kv_heads']} of keys and values)" if grouped else ""
        depth = f" used {report['shared_layers']} times" if report["shared_layers"] else ""
        cells = (
            name,
            f"{source['package']} {source['version']}, {source['licence']}",
            report["architecture"],
            ", ".join(dict.fromkeys(layer["stored_dtype"] for layer in report["layers"])),
            f"{setting['layers']}{depth}",
            setting["d"],
            f"{setting['heads']} × {setting['head_dim']}{shared}",
            mask + rotary,
        )
        rows.append(_row(cells))
    return "\n".join(rows) + "\n"


def _share(reports: dict[str, Json]) -> str:
    """On what share of all layers T6b, the statement made for such layers, speaks."""
    rows = [row for report in reports.values() for row in report["summary"] if row["id"] == "T6b"]
    whole = [row for row in rows if row["about"] != HEAD]
    speaks, total = (sum(row[key] for row in whole) for key in ("speaks", "of"))
    return (
        "**T6b** (almost no start converges to zero, whatever the scores, with all heads) speaks on "
        f"{speaks} of {total} layers of these models.\n"
    )


def _table(title: str, reports: dict[str, Json], wanted) -> str:
    found: dict[str, dict[str, Json]] = {}
    for name, report in reports.items():
        for row in filter(wanted, report["summary"]):
            found.setdefault(row["id"], {})[name] = row
    lines = [_row((title, "concludes", *reports)), _row(["---"] * (len(reports) + 2))]
    for identifier, by_model in found.items():
        concludes = next(iter(by_model.values()))["concludes"]
        lines.append(_row((identifier, concludes, *(_cell(by_model.get(name)) for name in reports))))
    return "\n".join(lines) + "\n"


def _cell(row: Json | None) -> str:
    if row is None:
        return "–"
    margins = margins_text(row)
    if row["speaks"]:
        about = f", {row['about']}" if row["about"] != HEAD else ""
        return f"**{row['speaks']}/{row['of']}** {margins} ({row['grade']}{about})"
    return f"silent: {row['silent_because']} ({margins or row['silent_reason']})"


def _ignored(reports: dict[str, Json]) -> str:
    lines = [f"- **{name}**: {'; '.join(report['ignores'])}." for name, report in reports.items()]
    return "\n".join(["## What the theory ignores in them\n", *lines]) + "\n"


def _row(cells) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"


def main() -> None:
    """Audit every model that can be fetched, and write the page."""
    reports: dict[str, Json] = {}
    missing: dict[str, str] = {}
    for name in SOURCES:
        try:
            reports[name] = audit(name, progress=lambda stage: None)
        except UnavailableError as error:
            missing[name] = error.got
        print(f"{name}: {'audited' if name in reports else 'could not be fetched'}")
    write_text(PAGE, page(reports, missing))
    print(f"written: {PAGE}")


if __name__ == "__main__":
    main()
