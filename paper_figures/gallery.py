"""docs/figures.md: every figure with its caption, command and statements.

`make gallery` writes it, with small copies of the images, from the figures that `make figures` left.
"""

import json
import sys
from pathlib import Path

from PIL import Image

from paper_figures.figure import Figure
from paper_figures.registry import FIGURES
from theory.errors import InputError
from theory.registry import statement
from tokendyn.files import write_text

WIDTH = 800
"""Of the copies, in pixels."""

HEAD = """\
# Figures

`make figures`, or `tokendyn figures`, makes all of these into `figures/`: `NAME.pdf` (vector), `NAME.png`,
the data behind each in `NAME.*.csv`, and its caption, parameters, seeds, versions and checksums in
`NAME.json`. `tokendyn figures NAME` makes one, `--quick` a small version of it. A figure whose data
contradict its statement is not drawn. What is computed is kept (in `.cache/tokendyn`, or the folder
`TOKENDYN_CACHE`) until code, parameters, style or library versions change; `--fresh` computes it again.
`make gallery` writes this page.

The figures are our own: they show what the statements of this project say, and how simulations agree. Lines
of a statement are black and dashed; what is simulated has colours. Nothing simulated is a proof.
"""


def page(made: Path) -> str:
    """Markdown, from the manifests in `made`."""
    return "\n".join([HEAD, *(_section(figure, made / f"{figure.name}.json") for figure in FIGURES)])


def _section(figure: Figure, manifest: Path) -> str:
    about = "; ".join(f"**{name}** {statement(name).title}" for name in figure.statements)
    command = f"`tokendyn figures {figure.name}`"
    lines = [f"## {figure.title}", "", f"{command} · {about}" if about else command, ""]
    if manifest.exists():
        lines += [f"![{figure.title}](figures/{figure.name}.{'gif' if figure.animate else 'png'})", ""]
        lines += [markdown(json.loads(manifest.read_text(encoding="utf-8"))["caption"]), ""]
    else:
        lines += [f"Drawn from stored results, `results/{figure.results}`; there are none yet.", ""]
    return "\n".join(lines)


TYPESETTING = {r"\%": "%", r"\,": "\N{NARROW NO-BREAK SPACE}", "--": "–", "~": "\N{NO-BREAK SPACE}"}
"""LaTeX's text outside formulas."""


def markdown(caption: str) -> str:
    r"""A LaTeX caption for GitHub, where $`…`$ keeps a formula's backslashes.

    >>> markdown(r"$n = 3$ tokens, 5--6\% of them.")
    '$`n = 3`$ tokens, 5–6% of them.'
    """
    parts = caption.split("$")
    for i in range(0, len(parts), 2):
        for latex, character in TYPESETTING.items():
            parts[i] = parts[i].replace(latex, character)
    return "".join(f"$`{part}`$" if i % 2 else part for i, part in enumerate(parts))


def main(made: Path, docs: Path) -> None:
    """Write docs/figures.md and docs/figures/*.png (the movie itself, as it is).

    Raises InputError if a figure that needs no stored results is missing.
    """
    missing = [f.name for f in FIGURES if not f.results and not (made / f"{f.name}.json").exists()]
    if missing:
        got, fix = f"{made} without {', '.join(missing)}", "run `tokendyn figures` where there is a network"
        raise InputError("made", got=got, expected="all figures that need no stored results", fix=fix)
    images = docs / "figures"
    images.mkdir(exist_ok=True)
    for figure in FIGURES:
        if figure.animate:
            (images / f"{figure.name}.gif").write_bytes((made / f"{figure.name}.gif").read_bytes())
        elif (made / f"{figure.name}.png").exists():
            _small(made / f"{figure.name}.png", images / f"{figure.name}.png")
    write_text(docs / "figures.md", page(made))


def _small(image: Path, target: Path) -> None:
    with Image.open(image) as whole:
        height = round(whole.height * WIDTH / whole.width)
        whole.convert("RGB").resize((WIDTH, height), Image.Resampling.LANCZOS).save(target, optimize=True)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:] or ("figures", "docs")))
