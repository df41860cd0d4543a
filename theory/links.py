"""Links inside a document: anchors of statements, steps, hypotheses and references, and their mentions."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from theory.derivation import Evidence, references


def step_anchor(statement: str, number: int) -> str:
    return f"{statement}-{number}"


def hypothesis_anchor(key: str) -> str:
    return "hypothesis-" + re.sub(r"\W+", "-", key)


def reference_anchor(key: str) -> str:
    return "reference-" + re.sub(r"[\W_]+", "-", key)


@dataclass(frozen=True)
class Links:
    """Words in a document with the given anchors; a mention of something without an anchor stays plain.

    `plain` escapes words for the document's format, `link` makes escaped words lead to an anchor.
    """

    anchors: Collection[str]
    plain: Callable[[str], str]
    link: Callable[[str, str], str]

    def prose(self, words: str, besides: str = "") -> str:
        """Words in which every statement's id is a link, `besides` excepted."""
        return self._linked(words, {}, besides)

    def hypothesis(self, key: str) -> str:
        return self._linked(key, {key: hypothesis_anchor(key)})

    def label(self, evidence: Evidence, statement: str) -> str:
        """The label of evidence in a derivation of `statement`; what it names becomes links."""
        keys = (*getattr(evidence, "hypotheses", ()), *getattr(evidence, "needs", ()))
        named = {key: hypothesis_anchor(key) for key in keys}
        named |= {words: reference_anchor(key) for key, words in references().items()}
        steps = {str(used): step_anchor(statement, used) for used in getattr(evidence, "uses", ())}
        before, of, after = evidence.label.partition("from step")
        after = self._linked(after, named | steps, statement)
        return self._linked(before, named, statement) + self.plain(of) + after

    def _linked(self, words: str, named: Mapping[str, str], besides: str = "") -> str:
        """The words with links on ids of statements and on what is named, whole words, the longest first."""
        longest = map(re.escape, sorted(named, key=len, reverse=True))
        mention = "|".join([*longest, r"[A-Z]\d+[a-z]?"])
        shown = self.plain("")
        for odd, part in enumerate(re.split(rf"(?<!\w)({mention})(?!\w)", words)):
            anchor = named.get(part, part) if odd % 2 else ""
            known = anchor in self.anchors and anchor != besides
            shown += self.link(self.plain(part), anchor) if known else self.plain(part)
        return shown
