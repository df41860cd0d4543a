"""Prompts cut into blocks of equal length, for the swaps of ``numerics.positional_symbolic``."""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from numerics.errors import InputError

Encode = Callable[[str], list[int]]
"""Text to the ids a model reads, as ``numerics.tokens.encoder`` gives it."""

_NAMES = """Alice Bob Tom Lily Sam Ben Mary Anna Jack Lucy Max Emma John Sara Peter Jane Paul Kate David Mark
James Sarah Adam Lisa"""
_COLOURS = "red blue green black white yellow pink brown orange purple gray gold silver"
NAMES, COLOURS = tuple(_NAMES.split()), tuple(_COLOURS.split())
OPENING = "Here is what they like."
BINDING = " {name} likes {colour}."
QUESTION = " What colour does {name} like? {name} likes"


@dataclass(frozen=True)
class Prompt:
    """Token ids of a text whose last token asks, and the part of it that is cut into blocks.

    Tokens ``span`` = (start, stop) are ``blocks`` blocks of equal length; the last token, the query, is not
    among them. ``target`` is the position of the token that the answer repeats, ``answer`` its id; None where
    the prompt asks nothing.
    """

    ids: tuple[int, ...]
    span: tuple[int, int]
    blocks: int
    target: int | None
    answer: int | None
    text: str


def binding_prompts(encode: Encode, bindings: int = 6, count: int = 8, seed: int = 0) -> list[Prompt]:
    """``count`` prompts of ``bindings`` sentences "Alice likes red." and a question about one of them.

    "Here is what they like. Alice likes red. Bob likes blue. … What colour does Bob like? Bob likes". Each
    sentence is a block. Names and colours are drawn without repetition from those that give sentences of one
    length, the commonest, and answers of one token under this tokenizer. Prompt p asks about sentence p mod
    ``bindings``, so that the answer stands everywhere about equally often. What ``encode`` puts behind every
    text (BERT's [SEP]) stays, and is then the token that asks.

    Raises InputError if there are fewer than 2 sentences or 1 prompt, too few such names or colours, or the
    tokenizer joins tokens across sentences.
    """
    _check_count("bindings", bindings, 2)
    _check_count("count", count, 1)
    tokens = _Tokens(encode)
    names = _commonest(NAMES, lambda name: len(tokens.sentence(name, COLOURS[0])))
    colours = _commonest(
        [colour for colour in COLOURS if tokens.answers_in_one(names[0], colour)],
        lambda colour: len(tokens.sentence(names[0], colour)),
    )
    most = min(len(names), len(colours))
    if bindings > most:
        words = f"{len(names)} names and {len(colours)} colours make sentences of equally many tokens"
        fix = "ask for fewer, or write prompts of your own into a file"
        raise InputError("bindings", bindings, f"at most {most}: under this tokenizer {words}", fix)
    random = Random(seed)
    drawn = [(random.sample(names, bindings), random.sample(colours, bindings)) for _ in range(count)]
    return [_binding_prompt(tokens, encode, *words, number % bindings) for number, words in enumerate(drawn)]


class _Tokens:
    """What the tokenizer makes of parts of a prompt, without the `tail` ids that stand behind every text."""

    def __init__(self, encode: Encode) -> None:
        self._encode, self.tail = encode, 0
        one, two = (self(f"{OPENING} {name}")[::-1] for name in NAMES[:2])
        self.tail = next((n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), 0)
        self.opening = self(OPENING)

    def __call__(self, text: str) -> list[int]:
        ids = self._encode(text)
        return ids[: len(ids) - self.tail]

    def sentence(self, name: str, colour: str) -> list[int]:
        """Of one binding, behind the opening."""
        return self(OPENING + BINDING.format(name=name, colour=colour))[len(self.opening) :]

    def before_colour(self, name: str) -> int:
        """How many tokens of a binding stand before its colour."""
        return len(self(OPENING + BINDING.removesuffix(" {colour}.").format(name=name))) - len(self.opening)

    def answers_in_one(self, name: str, colour: str) -> bool:
        """Whether the colour is one token."""
        ids = self(OPENING + BINDING.removesuffix(".").format(name=name, colour=colour))
        return len(ids) == len(self.opening) + self.before_colour(name) + 1


def _commonest(words: Sequence[str], length: Callable[[str], int]) -> list[str]:
    """The words of the length that most of them have."""
    lengths = [length(word) for word in words]
    usual = Counter(lengths).most_common(1)[0][0] if words else 0
    return [word for word, found in zip(words, lengths, strict=True) if found == usual]


def _binding_prompt(
    tokens: _Tokens, encode: Encode, names: Sequence[str], colours: Sequence[str], asked: int
) -> Prompt:
    words = list(zip(names, colours, strict=True))
    facts = OPENING + "".join(BINDING.format(name=name, colour=colour) for name, colour in words)
    text = facts + QUESTION.format(name=names[asked])
    ids, sentences = encode(text), [tokens.sentence(*pair) for pair in words]
    start, size = len(tokens.opening), len(sentences[0])
    stop = start + size * len(words)
    if ids[:stop] != sum(sentences, tokens.opening):
        fix = "write prompts of your own into a file"
        raise InputError("prompts", f"{text!r} cut across sentences", "tokens that end with sentences", fix)
    target = start + asked * size + tokens.before_colour(names[asked])
    return Prompt(tuple(ids), (start, stop), len(words), target, ids[target], text)


def read_prompts(path: str | os.PathLike[str], encode: Encode, blocks: int = 6) -> list[Prompt]:
    """One prompt from each line of a UTF-8 file; blank lines and those that begin with ``#`` are skipped.

    The keys before the last token are cut into ``blocks`` of equal length, as long as can be; the fewer than
    ``blocks`` keys left over at the front, with any special token there, stay outside: ``span`` says which.
    There is no target and no answer. Raises InputError if the file cannot be read or has no prompt, a line
    has too few tokens, or as ``encode`` does.
    """
    _check_count("blocks", blocks, 2)
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        fix = "write one prompt per line, in UTF-8"
        raise InputError("prompts", f"{path}, which cannot be read ({error})", "a text file", fix) from error
    found = []
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        ids = encode(line)
        size = (len(ids) - 1) // blocks
        if size == 0:
            got, fix = f"line {number} of {path}, of {len(ids)} tokens", "write longer lines, or fewer blocks"
            raise InputError("prompts", got, f"more than {blocks} tokens, for {blocks} blocks", fix)
        span = (len(ids) - 1 - size * blocks, len(ids) - 1)
        found.append(Prompt(tuple(ids), span, blocks, None, None, line))
    if not found:
        raise InputError("prompts", f"{path} without a prompt", "one prompt per line", "write one")
    return found


def _check_count(argument: str, count: object, least: int) -> None:
    if type(count) is not int or count < least:
        raise InputError(argument, count, f"a whole number of at least {least}", f"use {least} or more")
