"""Text to the token ids a model was trained with, by the tokenizer that lies beside its weights.

Beside the SMILES of a reaction mapper, tokenisation is the work of the `tokenizers` package: an extra,
imported where it is used.
"""

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from numerics import gguf_file, llama2c
from numerics.errors import InputError

SMILES = re.compile(
    r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>>?|\*|\$|%[0-9]{2}|[0-9]"
)
"""Atoms, bonds and rings of SMILES (Schwaller et al. 2019, doi 10.1021/acscentsci.9b00576), `>>` as one."""
CONTROL, USER_DEFINED = 3, 4
"""Types of GGUF tokens that stand for themselves, whatever the merges say (`llama_token_type`)."""


def encode(path: str | os.PathLike[str], text: str, config: Mapping[str, Any] | None = None) -> list[int]:
    """The ids of `text` for the model at `path`: `encoder`, used once; it says what is raised."""
    return encoder(path, config)(text)


def encoder(
    path: str | os.PathLike[str], config: Mapping[str, Any] | None = None
) -> Callable[[str], list[int]]:
    """The tokenizer of the model at `path`, a folder or file as for `numerics.states.open_model`.

    Special tokens are added as the model expects them ([CLS] and [SEP] for BERT); nothing is cut or padded.
    The tokenizer is a GGUF file's own, read from `config`, its metadata, if given; that of a llama2.c file,
    behind its weights or `tokenizer.bin` beside it; else `tokenizer.json` or `vocab.txt` in the same folder.
    A `vocab.txt` with pieces that begin with ## is BERT's; one with `>>` is of SMILES, which are taken as
    written, not made canonical, and unknown atoms become [UNK].

    Raises `InputError` if there is no tokenizer, or one of another kind, if it cannot be read, or without the
    package `tokenizers` where it is needed; and, as texts are given, if one has no tokens or is not SMILES
    where it should be.
    """
    path = Path(path)
    try:
        ids_of = _encoder(path, config)
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_tokenizer(f"{path}, whose tokenizer cannot be read ({error})") from error

    def encode(text: str) -> list[int]:
        ids = ids_of(text)
        if not ids:
            raise _bad_text(text, "text of at least one token")
        return ids

    return encode


def _encoder(path: Path, config: Mapping[str, Any] | None) -> Callable[[str], list[int]]:
    folder = path if path.is_dir() else path.parent
    if path.is_file() and gguf_file.is_gguf(path):
        return _encoder_of_gguf(path, config or gguf_file.contents(path)[1])
    if (folder / "tokenizer.json").exists():
        return _encoder_of_json(folder / "tokenizer.json")
    if (folder / "vocab.txt").exists():
        return _encoder_of_vocabulary(folder / "vocab.txt")
    if path.is_file() and (about := llama2c.settings(path)):
        if (vocabulary := llama2c.vocabulary(path, about)) is not None:
            return _encoder_of_llama2c(vocabulary)
        raise _bad_tokenizer(f"{path} of llama2.c without tokenizer.bin beside it")
    raise _bad_tokenizer(f"{folder} without tokenizer.json or vocab.txt")


def read_ids(path: str | os.PathLike[str], vocabulary: int | None = None) -> list[int]:
    """The token ids in the file at `path`: whole numbers between commas or white space, or a JSON array.

    Raises `InputError`, naming the file and the place, if it cannot be read or is empty, or an entry is not a
    whole number from 0 to `vocabulary` - 1, or from 0 on where no `vocabulary` is given.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8").strip()
        found = json.loads(text) if text.startswith("[") else re.split(r"\s*,\s*|\s+", text) if text else []
    except (OSError, ValueError) as error:
        raise _bad_ids(path, f"a file that cannot be read ({error})", vocabulary) from error
    if not found:
        raise _bad_ids(path, "no numbers", vocabulary)
    for place, entry in enumerate(found, 1):
        whole = type(entry) is int or (isinstance(entry, str) and re.fullmatch(r"[0-9]{1,18}", entry))
        if not whole or not 0 <= int(entry) < (vocabulary or math.inf):
            raise _bad_ids(path, f"{entry!r} as entry {place}", vocabulary)
    return [int(entry) for entry in found]


def _encoder_of_json(path: Path) -> Callable[[str], list[int]]:
    tokenizers = _package()
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise _bad_tokenizer(f"{path} that cannot be read ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return lambda text: tokenizer.encode(text).ids


def _encoder_of_vocabulary(path: Path) -> Callable[[str], list[int]]:
    tokens = path.read_text(encoding="utf-8").splitlines()
    if any(token.startswith("##") for token in tokens):
        lowercase = _settings(path.with_name("tokenizer_config.json")).get("do_lower_case", True)
        wordpiece = _package().BertWordPieceTokenizer(str(path), lowercase=bool(lowercase))
        return lambda text: wordpiece.encode(text).ids
    if ">>" in tokens and {"[CLS]", "[SEP]", "[UNK]"} <= set(tokens):
        numbers = {token: number for number, token in enumerate(tokens)}
        return lambda text: _encode_smiles(numbers, text)
    raise _bad_tokenizer(f"{path} that is neither of BERT's word pieces nor of SMILES")


def _encode_smiles(numbers: Mapping[str, int], text: str) -> list[int]:
    found = SMILES.findall(text)
    if "".join(found) != text:
        raise _bad_text(text, "the SMILES of a reaction, like CCO>>CC=O, without spaces")
    if not found:
        return []
    return [numbers.get(token, numbers["[UNK]"]) for token in ("[CLS]", *found, "[SEP]")]


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    except ValueError as error:
        raise _bad_tokenizer(f"{path} that cannot be read as JSON") from error
    return found if isinstance(found, dict) else {}


def _encoder_of_gguf(path: Path, config: Mapping[str, Any]) -> Callable[[str], list[int]]:
    """By the byte-level merges in the metadata `config`, cut beforehand as its `tokenizer.ggml.pre` says."""
    tokenizers = _package()
    about = {name.removeprefix("tokenizer.ggml."): value for name, value in config.items()}
    cuts = [tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if about.get("pre") == "smollm":
        cuts.insert(0, tokenizers.pre_tokenizers.Digits(individual_digits=True))
    if (about.get("model"), about.get("pre")) not in {("gpt2", "smollm"), ("gpt2", "gpt-2")}:
        kind = f"tokenizer.ggml.model {about.get('model')!r} and pre {about.get('pre')!r}"
        raise _bad_tokenizer(f"{path} with {kind}, of which only 'gpt2' with 'smollm' or 'gpt-2' is known")
    try:
        numbers = {token: number for number, token in enumerate(about["tokens"])}
        merges = [tuple(merge.split(" ", 1)) for merge in about["merges"]]
        tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(numbers, merges))
    except Exception as error:  # the package raises nothing narrower
        raise _bad_tokenizer(f"{path} with tokens and merges that contradict each other ({error})") from error
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(cuts)
    kinds = zip(about["tokens"], about.get("token_type", ()), strict=False)
    tokenizer.add_special_tokens([token for token, kind in kinds if kind in (CONTROL, USER_DEFINED)])
    start = [about["bos_token_id"]] if about.get("add_bos_token") else []
    end = [about["eos_token_id"]] if about.get("add_eos_token") else []
    return lambda text: [*start, *tokenizer.encode(text).ids, *end]


def _encoder_of_llama2c(vocabulary: list[tuple[float, bytes]]) -> Callable[[str], list[int]]:
    """Sentencepiece's byte-pair encoding: of the pairs that are tokens, that of the highest score first.

    As `tokenizers` wants it: a rank for each way to make a token out of two. The text gets a space in front
    and a first token <s> (`bpe_encode` in llama2.c's `run.c`); characters that are no token are bytes.
    """
    tokenizers = _package()
    specials = ("<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)))
    pieces = {name: number for number, name in enumerate(specials)}
    scores: dict[str, float] = {}
    for number, (score, spelling) in enumerate(vocabulary[len(specials) :], len(specials)):
        piece = spelling.decode(errors="replace")
        pieces.setdefault(piece, number)
        scores.setdefault(piece, score)
    merges = [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=lambda piece: -scores[piece])
        for cut in range(1, len(piece))
        if piece[:cut] in scores and piece[cut:] in scores
    ]
    model = tokenizers.models.BPE(pieces, merges, unk_token="<unk>", byte_fallback=True)
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = tokenizers.normalizers.Prepend(" ")
    return lambda text: [pieces["<s>"], *tokenizer.encode(text).ids] if text else []


def _package() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise InputError(
            argument="text",
            got="text, without the package that cuts it into tokens",
            expected="the extra `text`, or token ids",
            fix="pip install 'tokendyn[text]'",
        ) from error
    return tokenizers


def _bad_tokenizer(got: str) -> InputError:
    return InputError(
        argument="text",
        got=f"a model without a usable tokenizer: {got}",
        expected="a tokenizer beside the weights",
        fix="pass a file of token ids instead of text",
    )


def _bad_text(text: str, expected: str) -> InputError:
    shown = text if len(text) <= 80 else text[:80] + "…"
    return InputError(argument="text", got=repr(shown), expected=expected, fix="pass another text")


def _bad_ids(path: Path, got: str, vocabulary: int | None) -> InputError:
    largest = "on" if vocabulary is None else f"to {vocabulary - 1}"
    return InputError(
        argument="tokens",
        got=f"{path}: {got}",
        expected=f"token ids: whole numbers from 0 {largest}, at least one",
        fix="write the ids between commas or white space, or as a JSON array",
    )
