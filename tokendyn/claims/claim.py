"""A claim as data: which systems it speaks about, and what it says of them."""

import re
import tomllib
import unicodedata
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from difflib import get_close_matches
from fractions import Fraction
from functools import cached_property
from keyword import iskeyword
from pathlib import Path
from typing import Any

from theory.errors import InputError
from tokendyn.claims.language import (
    INDICES,
    Comparison,
    Expression,
    LanguageError,
    as_input_error,
    parse,
    parse_comparison,
    require_few,
)
from tokendyn.claims.recipes import Recipe, recipe

ENCODINGS = ("none", "absolute in scores", "absolute in scores and values", "bias", "alibi", "rotary")
QUANTIFIERS = ("every start", "almost every start")
SUGAR = {
    "X tends to 0": "norm(x[i]) tends to 0",
    "X is unbounded": "max(norm(x[i]) for i in tokens) is unbounded",
    "X is bounded": "max(norm(x[i]) for i in tokens) is bounded",
    "each token is unbounded": "norm(x[i]) is unbounded",
    "consensus": "norm(x[i] - x[j]) tends to 0",
    "bipartite consensus": "min(norm(x[i] - x[j]), norm(x[i] + x[j])) tends to 0",
    "directions align": "norm(unit(x[i]) - unit(x[j])) tends to 0",
    "directions align up to sign": (
        "min(norm(unit(x[i]) - unit(x[j])), norm(unit(x[i]) + unit(x[j]))) tends to 0"
    ),
}
"""Conclusions with a name of their own; "at most K clusters" is another."""
GIVEN = ("n", "d", "e", "pi", "t", "h", "x", "x0", "dx", "m", "p", "s", "P", "b", "X", "Cov")
"""Names that every claim has: numbers, states and what attention makes of them."""
TRENDS = ("nondecreasing", "nonincreasing", "increasing", "decreasing", "constant")
KINDS = ("compare", "eventually", "trend", "limit", "unbounded", "bounded", "rate", "power")


@dataclass(frozen=True)
class Conclusion:
    """What a claim says of all different tokens in place of the free indices.

    compare: `left relation right` at every instant. eventually: in the limit superior (inferior for >=).
    trend: `left` is `relation`. limit: `left` tends to `right`. unbounded, bounded: of `left`. rate, power:
    lim log(left)/t or log(left)/log t, `relation` `right`.
    """

    text: str
    kind: str
    left: Expression
    relation: str = ""
    right: Expression | None = None

    @property
    def free(self) -> tuple[str, ...]:
        found = {*self.left.free, *(self.right.free if self.right else ())}
        return tuple(index for index in INDICES if index in found)

    @property
    def asymptotic(self) -> bool:
        return self.kind not in ("compare", "trend")

    def names(self) -> set[str]:
        return self.left.names() | (self.right.names() if self.right else set())


def conclusion(text: str) -> Conclusion:
    """Parse a conclusion. Raises LanguageError."""
    written = _sugared(" ".join(text.split()))
    number = r"(?P<right>.+)"
    patterns = (
        (rf"(?P<left>.+) tends to {number}", "limit"),
        (r"(?P<left>.+) is unbounded", "unbounded"),
        (r"(?P<left>.+) is bounded", "bounded"),
        (rf"(?P<left>.+) is (?P<relation>{'|'.join(TRENDS)})", "trend"),
    )
    for pattern, kind in patterns:
        if found := re.fullmatch(pattern, written):
            parts = found.groupdict()
            right = parse(parts["right"]) if parts.get("right") else None
            return Conclusion(text, kind, parse(parts["left"]), parts.get("relation") or "", right)
    for prefix, kind in (
        ("eventually ", "eventually"),
        ("rate of ", "rate"),
        ("power of ", "power"),
        ("", "compare"),
    ):
        if written.startswith(prefix):
            body = written.removeprefix(prefix).removesuffix(" always")
            compared = parse_comparison(body)
            if len(compared) > 1:
                raise LanguageError(text, "one comparison", "state each part as a claim of its own")
            one = compared[0]
            return Conclusion(text, kind, one.left, one.relation, one.right)
    raise AssertionError("the last prefix is empty")


def _sugared(text: str) -> str:
    if found := re.fullmatch(r"at most (\d) clusters?", text):
        indices = ("i", "j", "k", "l")[: int(found[1]) + 1]
        if len(indices) <= int(found[1]):
            raise LanguageError(text, "at most 3 clusters", "more than four tokens cannot be named")
        pairs = [f"norm(x[{a}] - x[{b}])" for s, a in enumerate(indices) for b in indices[s + 1 :]]
        return f"min({', '.join(pairs)}) tends to 0" if len(pairs) > 1 else f"{pairs[0]} tends to 0"
    return SUGAR.get(text, text)


@dataclass(frozen=True)
class Claim:
    """Systems with these properties do what `conclude` says. docs/claims.md explains every entry.

    `tokens` and `dimension` are (least, most). Everything else is text: `matrices` name: properties;
    `scalars` name: range; `vectors` name: "any"; `define` name: expression; `where` comparisons. Raises
    InputError for anything that cannot be read, naming the entry.
    """

    conclude: str
    title: str = ""
    source: str = ""
    note: str = ""
    tokens: tuple[int, int] = (2, 5)
    dimension: tuple[int, int] = (1, 3)
    heads: int = 1
    causal: bool = False
    sphere: bool = False
    attention: str = "softmax"
    encoding: str = "none"
    step: str = ""
    matrices: Mapping[str, str] = field(default_factory=dict)
    scalars: Mapping[str, str] = field(default_factory=dict)
    vectors: Mapping[str, str] = field(default_factory=dict)
    define: Mapping[str, str] = field(default_factory=dict)
    where: tuple[str, ...] = ()
    quantifier: str = "every start"

    def __post_init__(self) -> None:
        object.__setattr__(self, "tokens", _range("tokens", self.tokens, 1, 16))
        object.__setattr__(self, "dimension", _range("dimension", self.dimension, 1, 8))
        object.__setattr__(self, "where", _texts("where", self.where))
        for entry in TABLES:
            object.__setattr__(self, entry, _table(entry, getattr(self, entry)))
        for entry in ("conclude", "title", "source", "note"):
            if not isinstance(getattr(self, entry), str):
                raise InputError(
                    entry, got=repr(getattr(self, entry)), expected="text", fix="write it in quotes"
                )
        if type(self.step) in (int, float):
            object.__setattr__(self, "step", str(self.step))
        for name, known in (
            ("attention", ("softmax", "hardmax")),
            ("encoding", ENCODINGS),
            ("quantifier", QUANTIFIERS),
        ):
            _choice(name, getattr(self, name), known)
        if type(self.heads) is not int or not 1 <= self.heads <= 4:
            raise InputError("heads", got=repr(self.heads), expected="1 to 4", fix="state it for few heads")
        for name in ("causal", "sphere"):
            if type(getattr(self, name)) is not bool:
                raise InputError(
                    name,
                    got=repr(getattr(self, name)),
                    expected="true or false",
                    fix="write it without quotes",
                )
        if self.encoding == "rotary" and self.heads > 1:
            raise InputError(
                "encoding", got="rotary with several heads", expected="one head", fix="state it for one head"
            )
        if self.sphere and self.step:
            raise InputError(
                "step", got="residual steps on the sphere", expected="one of the two", fix="leave one out"
            )
        self._check_names()

    def _check_names(self) -> None:
        for name, text in self.vectors.items():
            if text != "any":
                raise InputError(
                    f"vectors.{name}",
                    got=repr(text),
                    expected='"any"',
                    fix="write unit(v) for its direction, or a condition under `where`",
                )
        for entry in ("parsed", "conditions", "definitions", "recipes", "step_size"):
            getattr(self, entry)  # which parses it, and raises
        self._check_sizes()
        declared = [*self.matrices, *self.scalars, *self.vectors, *self.define]
        twice = {name for name in declared if declared.count(name) > 1}
        if twice:
            raise InputError(
                "define",
                got=f"{', '.join(twice)} twice",
                expected="one declaration of each name",
                fix="drop one",
            )
        unused = {name for name in declared if re.fullmatch(r"[WV]\d?", name)} - {
            *self.weight_names,
            *self._mentioned,
        }
        if unused or (self.encoding == "rotary" and "W" in declared):
            raise InputError(
                "matrices",
                got=", ".join(sorted(unused or {"W"})),
                expected=f"the weights of this system, {', '.join(self.weight_names)}",
                fix="with rotary encoding W is Q.T @ K" if self.encoding == "rotary" else "check `heads`",
            )
        reserved = {*GIVEN, *INDICES, "tokens"} & set(declared)
        if reserved:
            raise InputError(
                "define", got=", ".join(sorted(reserved)), expected="names that are not taken", fix="rename"
            )
        known = {*self.names, *GIVEN}
        users = [("conclude", self.parsed), *self.sourced]
        users += [(f"define.{name}", used) for name, used in self.definitions.items()]
        if self.step_size:
            users.append(("step", self.step_size))
        for where, used in users:
            for name in sorted(used.names() - known):
                close = get_close_matches(name, known, 1)
                hint = (
                    f"did you mean {close[0]}?"
                    if close
                    else "declare it; but tokens are x[i], and eye(d) is the identity"
                )
                raise InputError(where, got=name, expected="a declared name", fix=hint)

    def _check_sizes(self) -> None:
        """The conclusion speaks of something, and no text takes too long at the largest number of tokens."""
        n, said = self.tokens[1], self.parsed
        if len(said.free) > n:
            raise InputError(
                "conclude",
                got=f"{self.conclude!r} with at most {n} token{'s' * (n > 1)}",
                expected=f"at least {len(said.free)} tokens, for {', '.join(said.free)} differ",
                fix=f"ask for tokens = {len(said.free)} or more",
            )
        texts = [("conclude", said.text, [said.left, *([said.right] if said.right else [])], said.free)]
        texts += [(entry, one.text, [one.left, one.right], one.free) for entry, one in self.sourced]
        texts += [(f"define.{name}", one.text, [one], ()) for name, one in self.definitions.items()]
        texts += [("step", one.text, [one], ()) for one in (self.step_size,) if one]
        for entry, text, sides, free in texts:
            try:
                require_few(text, sides, free, n)
            except LanguageError as error:
                raise as_input_error(entry, error) from error

    @property
    def weight_names(self) -> list[str]:
        """What the system needs: W and V, numbered if there are several heads; Q, K for rotary."""
        marks = [""] if self.heads == 1 else [str(k + 1) for k in range(self.heads)]
        kinds = ("Q", "K", "V") if self.encoding == "rotary" else ("W", "V")
        return [kind + mark for mark in marks for kind in kinds]

    @property
    def _mentioned(self) -> set[str]:
        """Names that definitions use."""
        return {name for formula in self.definitions.values() for name in formula.names()}

    @property
    def free_matrices(self) -> dict[str, str]:
        """All matrices with free entries: those declared, and weights that nobody mentions."""
        taken = {*self.define, *self.matrices}
        return {**self.matrices, **{name: "any" for name in self.weight_names if name not in taken}}

    @property
    def names(self) -> list[str]:
        rotary = ["W"] if self.encoding == "rotary" and "W" not in self.define else []
        return [*self.free_matrices, *self.scalars, *self.vectors, *self.define, *rotary]

    @cached_property
    def parsed(self) -> Conclusion:
        return self._read("conclude", self.conclude, conclusion)

    @cached_property
    def sourced(self) -> list[tuple[str, Comparison]]:
        """`where`, and what the formulas of matrices and scalars do not make certain; each with its entry."""
        texts = [("where", text) for text in self.where]
        texts += [(f"matrices.{name}", text) for name, r in self.recipes.items() for text in r.conditions]
        texts += [(f"scalars.{name}", text) for name, (_, text) in self.ranges.items() if text]
        return [(entry, one) for entry, text in texts for one in self._read(entry, text, parse_comparison)]

    @cached_property
    def conditions(self) -> list[Comparison]:
        """All that weights and start must satisfy."""
        return [one for _, one in self.sourced]

    @cached_property
    def definitions(self) -> dict[str, Expression]:
        return {name: self._read(f"define.{name}", text, parse) for name, text in self.define.items()}

    @cached_property
    def step_size(self) -> Expression | None:
        return None if self.step == "" else self._read("step", self.step, parse)

    @cached_property
    def recipes(self) -> dict[str, Recipe]:
        return {name: recipe(name, text) for name, text in self.free_matrices.items()}

    @cached_property
    def ranges(self) -> dict[str, tuple[Expression, str]]:
        """For each scalar its formula over the raw number and its condition."""
        found = {name: _scalar(name, text) for name, text in self.scalars.items()}
        return {
            name: (self._read(f"scalars.{name}", formula, parse), condition)
            for name, (formula, condition) in found.items()
        }

    def _read(self, entry: str, text: Any, reader: Any) -> Any:
        if not isinstance(text, (str, int, float)) or isinstance(text, bool):
            raise InputError(entry, got=repr(text), expected="text", fix="write it in quotes")
        try:
            return reader(str(text))
        except LanguageError as error:
            raise as_input_error(entry, error) from error

    def describe(self) -> dict[str, Any]:
        """As plain data, without what is left at its default; `make_claim` takes it back."""
        found = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            default = entry.default if entry.default_factory is MISSING else entry.default_factory()
            if value != default:  # `conclude` has none
                plain = list(value) if isinstance(value, tuple) else value
                found[entry.name] = dict(plain) if isinstance(plain, Mapping) else plain
        return found


TABLES = ("matrices", "scalars", "vectors", "define")


def raw_scalar(name: str) -> str:
    """Of its raw number: no name that is declared, or of another raw part, starts with two underscores."""
    return f"__{name}"


def _texts(entry: str, value: Any) -> tuple[str, ...]:
    texts = (value,) if isinstance(value, str) else value
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise InputError(
            entry, got=repr(value), expected="texts, in quotes", fix=f'e.g. {entry} = ["norm(x[i]) <= 1"]'
        )
    return tuple(texts)


def _table(entry: str, value: Any) -> dict[str, Any]:
    """Names as Python reads them (NFKC), and what stands for them."""
    if not isinstance(value, Mapping):
        raise InputError(
            entry, got=repr(value), expected="a table of names and texts", fix=f"write [{entry}]"
        )
    found: dict[str, Any] = {}
    for given, text in value.items():
        name = unicodedata.normalize("NFKC", str(given))
        if iskeyword(name) or not name.isidentifier() or name.startswith("_"):
            raise InputError(
                f"{entry}.{given}",
                got=f"the name {str(given)!r}",
                expected="a name of letters and digits, with a letter first, that is no word of Python",
                fix="write lam" if name == "lambda" else "rename",
            )
        if name in found:
            raise InputError(
                entry, got=f"{name} twice", expected="one declaration of each name", fix="drop one"
            )
        found[name] = text
    return found


def _choice(name: str, value: object, known: tuple[str, ...]) -> None:
    if value not in known:
        close = get_close_matches(str(value), known, 1)
        raise InputError(
            name,
            got=repr(value),
            expected=", ".join(known),
            fix=f"did you mean {close[0]!r}?" if close else "use one of these",
        )


def _range(name: str, value: Any, least: int, most: int) -> tuple[int, int]:
    ends: Any = value
    if type(value) is int:
        ends = (value, value)
    elif isinstance(value, str) and (
        found := re.fullmatch(r"(\d+)(?:\s*(?:\.\.|-|to)\s*(\d+))?", value.strip())
    ):
        ends = (int(found[1]), int(found[2] or found[1]))
    good = isinstance(ends, (tuple, list)) and len(ends) == 2 and all(type(v) is int for v in ends)
    if not good or not least <= ends[0] <= ends[1] <= most:
        raise InputError(
            name,
            got=repr(value),
            expected=f"a number or a range within {least} … {most}",
            fix='e.g. 3, [2, 5] or "2..5"',
        )
    return ends[0], ends[1]


NUMBER = r"[-+]?(?:[0-9]+/0*[1-9][0-9]*|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:e[-+]?[0-9]{1,3})?)"


def _scalar(name: str, text: Any) -> tuple[str, str]:
    """ "any", "> 0", "<= 1", "0..1" (ends excluded), or a number."""
    text, raw = str(text).strip(), raw_scalar(name)
    if text in ("any", ""):
        return raw, ""
    if found := re.fullmatch(rf"(>=?|<=?)\s*({NUMBER})", text):
        sign = "+" if found[1][0] == ">" else "-"
        return f"{found[2]} {sign} {raw}*{raw}", f"{name} {found[1]} {found[2]}"
    found = re.fullmatch(rf"({NUMBER})\s*\.\.\s*({NUMBER})", text)
    if found and "..." not in text and Fraction(found[1]) < Fraction(found[2]):
        low, high = found[1], found[2]
        return f"({low}) + (({high}) - ({low}))*{raw}*{raw}/(1 + {raw}*{raw})", f"{name} > {low}"
    if re.fullmatch(NUMBER, text):
        return text, ""
    raise InputError(
        f"scalars.{name}",
        got=repr(text),
        expected='"any", "> 0", "<= 1", "0..1" (the smaller number first) or a number',
        fix="other conditions go into `where`",
    )


def make_claim(given: Mapping[str, Any]) -> Claim:
    """A claim from plain data, as TOML, YAML or JSON give it. InputError for entries that are not known."""
    known = {entry.name for entry in fields(Claim)}
    for key in given:
        if key not in known:
            close = get_close_matches(str(key), known, 1)
            fix = f"did you mean {close[0]!r}?" if close else "use one of these: " + ", ".join(sorted(known))
            raise InputError("claim", got=f"the entry {key!r}", expected="an entry of a claim", fix=fix)
    if not isinstance(given.get("conclude"), str):
        tables = [name for name, table in given.items() if isinstance(table, Mapping) and "conclude" in table]
        raise InputError(
            "conclude",
            got=f"an entry of {tables[0]}" if tables else repr(given.get("conclude")),
            expected="what the claim says",
            fix='write it before the first [table], e.g. conclude = "X tends to 0"',
        )
    entries: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return Claim(**entries)


def read_claim(path: str | Path) -> Claim:
    """The claim in a TOML or YAML file. InputError if the file cannot be used."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        given = _yaml(text) if path.suffix in (".yaml", ".yml") else tomllib.loads(text)
    except OSError as error:
        raise InputError(
            "claim",
            got=f"{path}: {error.strerror}",
            expected="a claim's file",
            fix="check the path; `tokendyn claims` lists the library",
        ) from error
    except (ValueError, RecursionError) as error:
        fix = "see docs/claims.md; texts need quotes, and `tokendyn replay` reads counterexamples"
        raise InputError("claim", got=f"{path}: {error}", expected="TOML or YAML", fix=fix) from error
    if not isinstance(given, Mapping):
        raise InputError(
            "claim",
            got=f"{path}: {type(given).__name__}",
            expected="a table of entries",
            fix="see docs/claims.md",
        )
    return make_claim({"title": path.stem, **given})


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError as error:
        raise InputError(
            "claim",
            got="a YAML file without PyYAML",
            expected="PyYAML",
            fix="pip install 'tokendyn[yaml]', or write TOML",
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
