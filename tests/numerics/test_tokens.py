"""Text to token ids, by every kind of tokenizer that may lie beside a model."""

import json
import struct
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from numerics.errors import InputError
from numerics.fetch import SOURCES, Source, UnavailableError, fetch
from numerics.states import open_model
from numerics.tokens import encode, encoder, read_ids

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def write_vocabulary(folder: Path, *tokens: str) -> None:
    (folder / "vocab.txt").write_text("\n".join((*SPECIAL, *tokens)) + "\n", encoding="utf-8")


def vocabulary_ids(folder: Path, *tokens: str) -> list[int]:
    """The line numbers of tokens, from 0, between [CLS] and [SEP]."""
    lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return [lines.index(token) for token in ("[CLS]", *tokens, "[SEP]")]


# ---- tokenizer.json


def test_a_tokenizer_file_is_used_without_cutting_and_padding(tmp_path: Path):
    tokenizer = Tokenizer(models.WordLevel({"token": 0, "by": 1, "[UNK]": 2}, "[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.enable_truncation(2)
    tokenizer.enable_padding(length=9)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "model.safetensors").touch()
    for path in (tmp_path, tmp_path / "model.safetensors"):
        assert encode(path, "token by token by night") == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff\xfe"])
def test_a_damaged_tokenizer_file_is_refused(tmp_path: Path, content: bytes):
    (tmp_path / "tokenizer.json").write_bytes(content)
    assert_refused(tmp_path, "tokenizer.json that cannot be read")


# ---- vocab.txt


@pytest.mark.parametrize("settings", [None, {}, {"do_lower_case": True}])
def test_word_pieces_are_lower_case_unless_told_otherwise(tmp_path: Path, settings: object):
    write_vocabulary(tmp_path, "un", "##aff", "##able", "##a", "token", ",")
    if settings is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    pieces = ("un", "##aff", "##able", ",", "token", "[UNK]")
    assert encode(tmp_path, "Unaffable, TOKEN x") == vocabulary_ids(tmp_path, *pieces)


def test_word_pieces_keep_their_case_where_the_settings_say_so(tmp_path: Path):
    write_vocabulary(tmp_path, "Un", "##able", "un")
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}', encoding="utf-8")
    assert encode(tmp_path, "Unable UN") == vocabulary_ids(tmp_path, "Un", "##able", "[UNK]")


def test_smiles_are_cut_into_atoms_bonds_and_rings(tmp_path: Path):
    write_vocabulary(tmp_path, *"CcOlBr%12()=N+.", "Cl", "Br", "[nH]", ">>", "%12")
    pieces = ("Cl", "C", "(", "Br", ")", "=", "O", "%12", "c", "1", "[nH]", ".", "[UNK]", ">>", "C")
    assert encode(tmp_path, "ClC(Br)=O%12c1[nH].[Zz]>>C") == vocabulary_ids(tmp_path, *pieces)


@pytest.mark.parametrize("text", ["CC O>>C", "hello", "C>>[C", "é"])
def test_text_that_is_no_smiles_is_refused(tmp_path: Path, text: str):
    write_vocabulary(tmp_path, "C", ">>")
    assert_refused(tmp_path, "the SMILES of a reaction", repr(text), text=text)


def test_a_vocabulary_of_neither_kind_is_refused(tmp_path: Path):
    write_vocabulary(tmp_path, "a", "b")
    assert_refused(tmp_path, "neither of BERT's word pieces nor of SMILES")


# ---- GGUF


def write_gguf(folder: Path, pre: str = "smollm", model: str = "gpt2", bos: bool = False) -> Path:
    """A file whose vocabulary is the bytes, some merged pairs and one special token; returns the path."""
    merges = ["Ġ t", "o k", "Ġt ok", "1 2"]
    tokens = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *(m.replace(" ", "") for m in merges)]
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([3] + [1] * (len(tokens) - 1))
    writer.add_token_merges(merges)
    writer.add_bos_token_id(0)
    writer.add_add_bos_token(bos)
    writer.add_tensor("output_norm.weight", np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


def named(path: Path, ids: list[int]) -> list[str]:
    return [open_model(path)[1]["tokenizer.ggml.tokens"][number] for number in ids]


@pytest.mark.parametrize(("pre", "digits"), [("smollm", ["1", "2"]), ("gpt-2", ["12"])])
def test_a_gguf_files_merges_are_applied_after_its_cuts(tmp_path: Path, pre: str, digits: list[str]):
    path = write_gguf(tmp_path, pre)
    pieces = ["a", "Ġtok", "Ġ", *digits, "Ã", "©", "<|end|>", "ok", "Ċ"]
    assert named(path, encode(path, "a tok 12é<|end|>ok\n")) == pieces


def test_the_metadata_may_be_handed_over(tmp_path: Path):
    path = write_gguf(tmp_path)
    config = open_model(path)[1]
    assert encode(path, "a tok", config) == encode(path, "a tok")


def test_the_first_token_is_added_where_the_file_says_so(tmp_path: Path):
    path = write_gguf(tmp_path, bos=True)
    assert named(path, encode(path, "ok")) == ["<|end|>", "ok"]


@pytest.mark.parametrize("changed", [{"model": "llama"}, {"pre": "qwen2"}])
def test_another_kind_of_gguf_tokenizer_is_refused(tmp_path: Path, changed: dict[str, str]):
    assert_refused(write_gguf(tmp_path, **changed), repr(*changed.values()), "token ids")


# ---- no tokenizer, no package, no tokens


def assert_refused(path: Path, *said: str, text: str = "some text") -> None:
    with pytest.raises(InputError) as caught:
        encode(path, text)
    assert caught.value.argument == "text"
    for words in said:
        assert words in str(caught.value)


def test_a_model_without_tokenizer_wants_token_ids(tmp_path: Path):
    (tmp_path / "model.bin").write_bytes(b"")
    assert_refused(tmp_path / "model.bin", "without tokenizer.json or vocab.txt", "pass a file of token ids")


def test_text_without_tokens_is_refused(tmp_path: Path):
    write_vocabulary(tmp_path, "C", ">>")
    assert_refused(tmp_path, "at least one token", text="")


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_vocabulary(tmp_path, "un", "##able")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert_refused(tmp_path, "pip install 'tokendyn[text]'")


def test_smiles_need_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_vocabulary(tmp_path, "C", ">>")
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    assert encode(tmp_path, "CC>>C") == vocabulary_ids(tmp_path, "C", "C", ">>", "C")


# ---- ids in a file


@pytest.mark.parametrize("content", ["3 1 4", "3,1,4", " 3,\n1\t4\n", "[3, 1, 4]", "3 , 1 , 4"])
def test_ids_are_read_in_order(tmp_path: Path, content: str):
    (tmp_path / "ids.txt").write_text(content, encoding="utf-8")
    assert read_ids(tmp_path / "ids.txt", 5) == [3, 1, 4]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "no numbers"),
        ("[]", "no numbers"),
        ("3 1 5", "'5' as entry 3"),
        ("[3, 5]", "5 as entry 2"),
        ("-1", "'-1' as entry 1"),
        ("[-1]", "-1 as entry 1"),
        ("1.0", "'1.0' as entry 1"),
        ("[1.0]", "1.0 as entry 1"),
        ("[true]", "True as entry 1"),
        ("[[1]]", "[1] as entry 1"),
        ("1,,2", "'' as entry 2"),
        ("9" * 5000, "as entry 1"),
        ("²", "'²' as entry 1"),
        ("[1", "cannot be read"),
    ],
)
def test_anything_but_ids_is_refused(tmp_path: Path, content: str, said: str):
    (tmp_path / "ids.txt").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match="from 0 to 4") as caught:
        read_ids(tmp_path / "ids.txt", 5)
    assert caught.value.argument == "tokens"
    assert "ids.txt" in str(caught.value)
    assert said in str(caught.value)


def test_without_a_vocabulary_any_number_from_0_is_an_id(tmp_path: Path):
    (tmp_path / "ids.txt").write_text("0 123456", encoding="utf-8")
    assert read_ids(tmp_path / "ids.txt") == [0, 123456]
    (tmp_path / "ids.txt").write_text("0 -1", encoding="utf-8")
    with pytest.raises(InputError, match="'-1' as entry 2; expected token ids: whole numbers from 0 on"):
        read_ids(tmp_path / "ids.txt")


def test_a_missing_file_of_ids_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="No such file"):
        read_ids(tmp_path / "ids.txt", 5)


# ---- llama2.c

PIECES = {" ": -9.0, "a": -9.0, "b": -9.0, "ab": -1.0, " a": -2.0, "abab": -3.0, "ba": -4.0}


def save_llama2c(folder: Path, behind: bool, cut: int = 0) -> Path:
    """A model of one layer with all weights 0, and the tokenizer behind it or beside it."""
    tokens = [
        (0.0, b"<unk>"),
        (0.0, b"\n<s>\n"),
        (0.0, b"\n</s>\n"),
        *((0.0, bytes([n])) for n in range(256)),
    ]
    tokens += [(score, piece.encode()) for piece, score in PIECES.items()]
    content = struct.pack("<i", 7)
    for score, spelling in tokens:
        content += struct.pack("<fi", score, len(spelling)) + spelling
    content = content[: len(content) - cut]
    count = 2 * len(tokens) + 4 * 4 + 3 * 2 * 2 + 3 * 2 + 2 * 4  # with 4 rotary angles, twice
    weights = struct.pack("<7i", 2, 2, 1, 1, 1, len(tokens), 4) + bytes(4 * count)
    (folder / "model.bin").write_bytes(weights + content * behind)
    if not behind:
        (folder / "tokenizer.bin").write_bytes(content)
    return folder / "model.bin"


@pytest.mark.parametrize("behind", [True, False])
def test_a_llama2c_file_brings_its_tokenizer(tmp_path: Path, behind: bool):
    """Pairs join in the order of their scores: "ab" before " a" and "ba", "abab" behind both."""
    found = encoder(save_llama2c(tmp_path, behind))
    number = {piece: 259 + place for place, piece in enumerate(PIECES)}
    expected = {
        "a": [number[" a"]],
        "ab": [number[" "], number["ab"]],
        "abab": [number[" "], number["abab"]],
        "ba": [number[" "], number["ba"]],
        "aab": [number[" a"], number["ab"]],
        "éa": [number[" "], *(3 + byte for byte in "é".encode()), number["a"]],
        "a a": [number[" a"], number[" a"]],
    }
    assert {text: found(text) for text in expected} == {text: [1, *ids] for text, ids in expected.items()}
    with pytest.raises(InputError, match="at least one token"):
        found("")


def test_a_llama2c_file_without_or_with_half_a_tokenizer_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="breaks off at token 265"):
        encoder(save_llama2c(tmp_path, True, cut=1))
    path = save_llama2c(tmp_path, False)
    path.with_name("tokenizer.bin").unlink()
    assert_refused(path, "without tokenizer.bin beside it")


# ---- the real ones


def cached(name: str) -> Path:
    def absent(source: Source, folder: Path) -> Path:
        raise UnavailableError(tried="the cache", got="no files", fix=f"`tokendyn audit {name}`")

    try:
        return fetch(SOURCES[name], download=absent)
    except UnavailableError:
        pytest.skip(f"{name} is not in the cache; `tokendyn audit {name}` downloads it")


def test_the_cached_reaction_mapper_reads_reactions():
    path = cached("albert")
    reaction = "CC(=O)Cl.OCC>>CC(=O)OCC"
    pieces = ["C", "C", "(", "=", "O", ")", "Cl", ".", "O", "C", "C", ">>", *"CC(=O)OCC"]
    assert encode(path, reaction) == vocabulary_ids(path.parent, *pieces)


def test_the_cached_minilm_reads_text():
    path = cached("minilm")
    tokenizer = json.loads(path.with_name("tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    pieces = ["[CLS]", "token", "##s", "cluster", "[SEP]"]
    assert encode(path, "Tokens cluster") == [vocabulary[piece] for piece in pieces]
    assert len(encode(path, "word " * 300)) == 302  # its file asks for a cut at 128


def test_the_cached_smollm2_agrees_with_transformers():
    path = cached("smollm2")
    from transformers import AutoTokenizer  # seconds to import, for this test alone

    theirs = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    config = open_model(path)[1]
    for text in ("Don't stop: 3.14, ünïcödé 漢字\n\n\tx = f(12)  ", "<|im_start|>user\nHi<|im_end|>"):
        assert encode(path, text, config) == theirs(text).input_ids


def test_the_cached_stories15m_brings_llamas_tokenizer():
    """Ids of sentencepiece with Llama's model, as in llama2.c's own tests (`test.c`)."""
    found = encoder(cached("stories15m"))
    assert found("I believe the meaning of life is") == [1, 306, 4658, 278, 6593, 310, 2834, 338]
    ids = [1, 3439, 17632, 1925, 29892, 278, 6368, 310, 14215, 537, 5922, 393, 29871]
    assert found("Simply put, the theory of relativity states that ") == ids
