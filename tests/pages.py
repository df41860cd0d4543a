"""A strict reading of HTML pages: tags must nest, ids be unique; text, links and formulas are collected."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"meta", "wbr", "br", "hr", "img", "link", "input"}
ARITY = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "msubsup": 3, "munderover": 3}
ROWS = {
    "math",
    "mrow",
    "mi",
    "mn",
    "mo",
    "mtext",
    "mspace",
    "msqrt",
    "mtable",
    "mtr",
    "mtd",
    "mstyle",
    "mpadded",
}
MATHML = ARITY.keys() | ROWS


def formula(source: str) -> ElementTree.Element:
    """A `<math>` element; raises ValueError unless it is well-formed MathML Core without remains of LaTeX."""
    root = ElementTree.fromstring(source)
    for part in root.iter():
        if part.tag not in MATHML or len(part) != ARITY.get(part.tag, len(part)):
            raise ValueError(f"<{part.tag}> with {len(part)} parts in {source}")
    if set("\\$&") & set("".join(root.itertext())):
        raise ValueError(f"LaTeX left in {source}")
    return root


class Page(HTMLParser):
    """A page's `text`, its `parts` (id → text inside), `links`, `resources`, `formulas`; or a ValueError."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.open: list[tuple[str, str | None]] = []
        self.parts: dict[str, str] = {}
        self.links: list[tuple[str, str]] = []  # text is not known yet: (nearest id around, target)
        self.resources: list[str] = []
        self.text = ""
        self.feed(source)
        self.close()
        if self.open:
            raise ValueError(f"never closed: {self.open}")
        self.formulas = [
            ElementTree.fromstring(math) for math in re.findall(r"<math.*?</math>", source, re.S)
        ]

    def handle_starttag(self, tag, attrs):
        names = [name for name, _ in attrs]
        if len(names) != len(set(names)):
            raise ValueError(f"an attribute twice in <{tag}>")
        given = dict(attrs)
        if (name := given.get("id")) is not None:
            if name in self.parts:
                raise ValueError(f"id {name} twice")
            self.parts[name] = ""
        if tag == "a" and "href" in given:
            self.links.append((self._around(), given["href"]))
        elif given.keys() & {"src", "href", "srcset", "data", "action", "poster", "background", "style"}:
            self.resources.append(self.get_starttag_text())
        if tag not in VOID:
            self.open.append((tag, name))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open[-1][0] != tag:
            raise ValueError(f"</{tag}> closes {self.open[-1:]}")
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1][0] in ("script", "style"):
            return
        self.text += data
        for _, name in self.open:
            if name is not None:
                self.parts[name] += data

    def _around(self) -> str:
        return next((name for _, name in reversed(self.open) if name is not None), "")

    def links_in(self, name: str) -> set[str]:
        """Targets of the links whose nearest enclosing id is `name`."""
        return {target for around, target in self.links if around == name}


def words(text: str) -> str:
    """The plain words and numbers of a text."""
    return " ".join(re.findall(r"\w+", text))


def outside_formulas(sentence: str) -> list[str]:
    """The words of a sentence before, between and after its formulas."""
    return [words(part) for part in sentence.split("$")[::2] if words(part)]
