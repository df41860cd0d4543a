"""Prompts: equal blocks under any tokenizer, the target where the answer stands, and files of prompts."""

import re
from pathlib import Path

import pytest
import torch

from numerics.errors import InputError
from numerics.positional_symbolic import swap_blocks
from numerics.prompts import COLOURS, NAMES, binding_prompts, read_prompts


class Words:
    """A tokenizer of words and full stops with `special` ids around; words in `long` become two tokens."""

    def __init__(self, first=(), last=(), long=()):
        self.first, self.last, self.long, self.numbers = list(first), list(last), set(long), {}

    def __call__(self, text):
        words = []
        for word in re.findall(r"\w+|[^\w\s]", text):
            words += [word[:1] + "-", word[1:]] if word in self.long else [word]
        numbers = [self.numbers.setdefault(word, 10 + len(self.numbers)) for word in words]
        return [*self.first, *numbers, *self.last]

    def words(self, ids):
        spelling = {number: word for word, number in self.numbers.items()}
        return [spelling.get(number, "") for number in ids]


@pytest.mark.parametrize(("first", "last"), [((), ()), ((1,), ()), ((1,), (2,)), ((), (2, 3))])
@pytest.mark.parametrize("bindings", [2, 5])
def test_each_block_is_one_sentence_and_the_target_its_colour(first, last, bindings):
    encode = Words(first, last)
    prompts = binding_prompts(encode, bindings, 2 * bindings)
    assert len({prompt.text for prompt in prompts}) == 2 * bindings
    for number, prompt in enumerate(prompts):
        assert list(prompt.ids) == encode(prompt.text)
        start, stop = prompt.span
        sentences = [
            " ".join(encode.words(block))
            for block in torch.tensor(prompt.ids[start:stop]).view(bindings, -1).tolist()
        ]
        assert all(re.fullmatch(r"[A-Z]\w+ likes \w+ \.", sentence) for sentence in sentences)
        name, _, colour, _ = sentences[number % bindings].split()
        assert prompt.text.endswith(f"What colour does {name} like? {name} likes")
        assert encode.words([prompt.answer, prompt.ids[prompt.target or 0]]) == [colour, colour]
        assert prompt.target == start + 4 * (number % bindings) + 2
        assert prompt.blocks == bindings
        for words in (sentence.split() for sentence in sentences):
            assert words[0] in NAMES
            assert words[2] in COLOURS
        for column in (0, 2):
            assert len({sentence.split()[column] for sentence in sentences}) == bindings


def test_swapped_blocks_are_the_same_text_with_two_sentences_swapped():
    encode = Words((1,), (2,))
    prompt = binding_prompts(encode, 3, 1)[0]
    swapped = swap_blocks(torch.tensor(prompt.ids), 0, 2, 3, prompt.span).tolist()
    opening, first, second, third, rest = prompt.text.split(".")
    assert swapped == encode(".".join((opening, third, second, first, rest)))


def test_names_and_colours_of_another_length_are_left_out():
    encode = Words(long=(*NAMES[:5], COLOURS[0], COLOURS[3]))
    prompts = binding_prompts(encode, 6, 20)
    used = {word for prompt in prompts for word in re.findall(r"\w+", prompt.text)}
    assert used.isdisjoint({*NAMES[:5], COLOURS[0], COLOURS[3]})
    assert {prompt.span[1] - prompt.span[0] for prompt in prompts} == {24}


def test_the_commonest_length_of_names_is_taken_and_colours_stay_single_tokens():
    encode = Words(long=NAMES[:20])
    prompts = binding_prompts(encode, 6, 5)
    assert {prompt.span[1] - prompt.span[0] for prompt in prompts} == {30}
    assert {word for prompt in prompts for word in re.findall(r"\w+", prompt.text)}.isdisjoint(NAMES[20:])
    for prompt in prompts:
        name = prompt.text.split()[-2]
        (colour,) = re.findall(rf"{name} likes (\w+)\.", prompt.text)
        assert encode.words([prompt.answer, prompt.ids[prompt.target or 0]]) == [colour, colour]


def test_a_seed_gives_the_same_prompts_again_and_another_others():
    one, again, other = (binding_prompts(Words(), 4, 3, seed) for seed in (0, 0, 1))
    assert one == again
    assert [prompt.text for prompt in one] != [prompt.text for prompt in other]


def test_too_few_words_of_one_length_are_said():
    with pytest.raises(InputError, match=r"at most 4: .* 24 names and 4 colours"):
        binding_prompts(Words(long=COLOURS[4:]), 5)


def test_a_tokenizer_that_joins_sentences_is_refused():
    def joined(text):
        ids = plain(text)
        likes, stop = plain.numbers.get("likes"), plain.numbers.get(".")
        return ids if ids.count(likes) < 3 else [number for number in ids if number != stop]

    plain = Words()
    with pytest.raises(InputError, match="cut across sentences"):
        binding_prompts(joined, 3)


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("bindings", {"bindings": 1}),
        ("bindings", {"bindings": 14}),
        ("bindings", {"bindings": 2.0}),
        ("count", {"count": 0}),
    ],
)
def test_bad_counts(argument, call):
    with pytest.raises(InputError) as raised:
        binding_prompts(Words(), **call)
    assert raised.value.argument == argument


# ---- files


def written(folder: Path, text: str) -> Path:
    path = folder / "prompts.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_lines_are_cut_into_blocks_before_the_last_token(tmp_path: Path):
    path = written(tmp_path, "# a comment\n\na b c d e f g h\n   \n a b c d\n")
    first, second = read_prompts(path, Words((1,)), 3)
    assert first.text == "a b c d e f g h"
    assert (len(first.ids), first.span, first.blocks) == (9, (2, 8), 3)
    assert (second.text, len(second.ids), second.span) == ("a b c d", 5, (1, 4))
    assert first.target is first.answer is None


def test_a_special_token_behind_the_text_is_the_query(tmp_path: Path):
    (prompt,) = read_prompts(written(tmp_path, "a b c d"), Words((1,), (2,)), 2)
    assert (prompt.ids[-1], prompt.span) == (2, (1, 5))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a b c\na b\n", "line 2 of .* 2 tokens"),
        ("# nothing\n\n", "without a prompt"),
        ("", "without a prompt"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, text, said):
    with pytest.raises(InputError, match=said):
        read_prompts(written(tmp_path, text), Words(), 2)


def test_a_file_that_is_not_text_or_not_there_is_named(tmp_path: Path):
    (tmp_path / "prompts.bin").write_bytes(b"\xff\xfe")
    for name in ("prompts.bin", "absent.txt"):
        with pytest.raises(InputError, match=f"{name}, which cannot be read"):
            read_prompts(tmp_path / name, Words(), 2)
