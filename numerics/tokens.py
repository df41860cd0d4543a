"""Text to the token ids a model was trained with, by the tokenizer that lies beside its weights.

Beside the SMILES of a reaction mapper, tokenisation is the work of the `tokenizers` package: an extra,
imported where it is used.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numerics import gguf_file
from numerics.errors import InputError

SMILES = re.compile(
    r"\[[^\]]+]|Br?|Cl?|N|O|S|P|F|I|b|c|n|o|s|p|\(|\)|\.|=|#|-|\+|\\|/|:|~|@|\?|>>?|\*|\$|%[0-9]{2}|[0-9]"
)
"""Atoms, bonds and rings of SMILES (Schwaller et al. 2019, doi 10.1021/acscentsci.9b00576), `>>` as one."""
CONTROL, USER_DEFINED = 3, 4
"""Types of GGUF tokens that stand for themselves, whatever the merges say (`llama_token_type`)."""


def encode(path: str | os.PathLike[str], text: str, config: Mapping[str, Any] | None = None) -> list[int]:
    """The ids of `text` for the model at `path`, a folder or file as for `numerics.states.open_model`.

    Special tokens are added as the model expects them ([CLS] and [SEP] for BERT); nothing is cut or padded.
    The tokenizer is a GGUF file's own, read from `config`, its metadata, if given; else `tokenizer.json` or
    `vocab.txt` in the same folder. A `vocab.txt` with pieces that begin with ## is BERT's; one with `>>` is
    of SMILES, which are taken as written, not made canonical, and unknown atoms become [UNK].

    Raises `InputError` if there is no tokenizer, or one of another kind, if it cannot be read, if `text` has
    no tokens or is not SMILES where it should be, or without the package `tokenizers` where it is needed.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    try:
        if path.is_file() and gguf_file.is_gguf(path):
            ids = _encode_by_gguf(path, text, config or gguf_file.contents(path)[1])
        elif (folder / "tokenizer.json").exists():
            ids = _encode_by_json(folder / "tokenizer.json", text)
        elif (folder / "vocab.txt").exists():
            ids = _encode_by_vocabulary(folder / "vocab.txt", text)
        else:
            raise _bad_tokenizer(f"{folder} without tokenizer.json or vocab.txt")
    except (OSError, UnicodeDecodeError) as error:
        raise _bad_tokenizer(f"{path}, whose tokenizer cannot be read ({error})") from error
    if not ids:
        raise _bad_text(text, "text of at least one token")
    return ids


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


def _encode_by_json(path: Path, text: str) -> list[int]:
    tokenizers = _package()
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the package raises nothing narrower
        raise _bad_tokenizer(f"{path} that cannot be read ({error})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer.encode(text).ids


def _encode_by_vocabulary(path: Path, text: str) -> list[int]:
    tokens = path.read_text(encoding="utf-8").splitlines()
    if any(token.startswith("##") for token in tokens):
        lowercase = _settings(path.with_name("tokenizer_config.json")).get("do_lower_case", True)
        wordpiece = _package().BertWordPieceTokenizer(str(path), lowercase=bool(lowercase))
        return wordpiece.encode(text).ids
    if ">>" in tokens and {"[CLS]", "[SEP]", "[UNK]"} <= set(tokens):
        return _encode_smiles({token: number for number, token in enumerate(tokens)}, text)
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


def _encode_by_gguf(path: Path, text: str, config: Mapping[str, Any]) -> list[int]:
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
    return [*start, *tokenizer.encode(text).ids, *end]


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
