"""Canonical tasks: what a configuration means, what contexts hold, what a head sees, what is learned."""

import itertools
import json
import math
from collections import Counter
from fractions import Fraction

import pytest
import torch

from numerics import InputError
from numerics.training import make_canonical, read_canonical, train_group
from numerics.training.canonical import TASKS, draw, held_out, is_canonical, symbolic_ceiling
from numerics.training.canonical_loop import group_result, initial, outputs
from numerics.training.config import read_config
from numerics.training.cost import canonical_cost, group_parameters
from numerics.training.loop import DONE

SMALL = {
    "positions": 4,
    "symbols": 4,
    "attributes": 4,
    "d_model": 16,
    "bound": 30.0,
    "batch": 32,
    "steps": 300,
    "warmup": 20,
    "learning_rate": 0.02,
    "evaluate": 400,
}


def groups(task, frequencies, seeds=(0,), **changes):
    table = {**SMALL, **changes, "frequencies": [*frequencies]}
    return make_canonical("test", {"seeds": [*seeds], "tasks": {task: table}}).groups


def measured(done):
    """Everything but how long it took."""
    return {key: value for key, value in done.items() if key != "seconds"}


def accuracies(done):
    """Over all positions, by set of frequencies and removed pair."""
    found = {}
    for name, removed, _, accuracy in done["rows"]:
        found.setdefault((name, removed), []).append(accuracy)
    return {key: sum(values) / len(values) for key, values in found.items()}


# Configurations


def test_the_grid_that_comes_with_the_package_has_three_tasks_and_five_seeds_and_can_be_read_back():
    grid = read_canonical("canonical")
    assert [*grid.config["tasks"]] == [*TASKS]
    assert len(grid.config["seeds"]) >= 5
    for table in grid.config["tasks"].values():
        alone = {chosen[0] for chosen in table["frequencies"] if len(chosen) == 1}
        assert len(alone) >= 5
        assert {
            theta for zero, theta in (c for c in table["frequencies"] if len(c) == 2) if not zero
        } == alone
    assert len({group.name for group in grid.groups}) == len(grid.groups)
    assert make_canonical("canonical", json.loads(json.dumps(grid.config))).groups == grid.groups
    assert is_canonical(read_config("canonical")[1])
    assert not is_canonical(read_config("tiny")[1])


def test_runs_of_one_size_of_head_and_one_seed_are_a_group_and_frequencies_are_sorted():
    one, two, other_one, other_two = sorted(
        groups("index", [0, 0.5, [0.3, 0], [0.1, 0.1]], (3, 4)), key=lambda g: (g.seed, g.pairs)
    )
    assert (one.frequencies, two.frequencies) == (((0.0,), (0.5,)), ((0.0, 0.3), (0.1, 0.1)))
    assert (one.name, other_two.name) == ("index-1-3", "index-2-4")
    assert other_one.frequencies == one.frequencies


@pytest.mark.parametrize(
    ("given", "argument", "message"),
    [
        ({"tasks": {"retreival": {"frequencies": [0]}}}, "tasks", "did you mean 'retrieval'"),
        ({"tasks": {}}, "tasks", r"write \[tasks"),
        ({"seed": [0]}, "config", "did you mean 'seeds'"),
        ({"scenarios": ["pd"]}, "config", "one of 'seeds', 'tasks'"),
        ({"seeds": [0, 0]}, "seeds", "different"),
        ({"tasks": {"index": 3}}, "tasks.index", "a table"),
        ({"tasks": {"index": {}}}, "tasks.index.frequencies", "a list"),
        ({"tasks": {"index": {"frequencies": []}}}, "tasks.index.frequencies", "a list"),
        ({"tasks": {"index": {"frequencies": [[]]}}}, "tasks.index.frequencies", "1 to 16"),
        ({"tasks": {"index": {"frequencies": [-0.1]}}}, "tasks.index.frequencies", "from 0"),
        ({"tasks": {"index": {"frequencies": [math.nan]}}}, "tasks.index.frequencies", "from 0"),
        ({"tasks": {"index": {"frequencies": ["low"]}}}, "tasks.index.frequencies", "radians"),
        ({"tasks": {"index": {"frequencies": [[0, 1], [1, -0.0]]}}}, "tasks.index.frequencies", r"0\+1 more"),
        ({"tasks": {"index": {"frequency": [0]}}}, "tasks.index", "did you mean 'frequencies'"),
        ({"tasks": {"index": {"frequencies": [0], "bound": 0}}}, "tasks.index.bound", "positive"),
        ({"tasks": {"index": {"frequencies": [0], "steps": 1.5}}}, "tasks.index.steps", "whole"),
        (
            {"tasks": {"retrieval": {"frequencies": [0], "symbols": 5, "positions": 6}}},
            "tasks.retrieval.symbols",
            "at least the 6",
        ),
    ],
)
def test_what_cannot_be_used_is_named_with_a_way_out(given, argument, message):
    with pytest.raises(InputError, match=message) as caught:
        make_canonical("test", {"tasks": {"index": {"frequencies": [0]}}, **given})
    assert caught.value.argument == argument
    assert caught.value.fix


# Examples


def drawn(task):
    """Contexts of many examples as numbers: symbols, attributes (if any), question, answer."""
    problem = groups(task, [0], positions=6, symbols=7, attributes=3, batch=4000)[0].problem
    found = draw(problem, 1)
    symbols = found.tokens[..., :7]
    assert (symbols.sum(-1) == 1).all()
    attributes = []
    if task != "index":
        assert (found.tokens[..., 7:].sum(-1) == 1).all()
        attributes = found.tokens[..., 7:].argmax(-1).tolist()
    return symbols.argmax(-1).tolist(), attributes, found.question.tolist(), found.answer.tolist()


def uniform(counts, values):
    """Whether each value came up about equally often: within 5 standard deviations of the binomial."""
    total = sum(counts.values())
    share = 1 / len(values)
    room = 5 * math.sqrt(total * share * (1 - share))
    return set(counts) == set(values) and all(abs(n - total * share) < room for n in counts.values())


def test_index_asks_for_the_symbol_at_a_position():
    symbols, attributes, questions, answers = drawn("index")
    assert attributes == []
    assert all(row[q] == a for row, q, a in zip(symbols, questions, answers, strict=True))
    assert uniform(Counter(questions), range(6))
    assert uniform(Counter(s for row in symbols for s in row), range(7))


def test_retrieval_asks_for_the_attribute_of_a_symbol_that_occurs_once():
    symbols, attributes, questions, answers = drawn("retrieval")
    assert all(len(set(row)) == 6 for row in symbols)
    places = [row.index(q) for row, q in zip(symbols, questions, strict=True)]
    assert [row[at] for row, at in zip(attributes, places, strict=True)] == answers
    assert uniform(Counter(places), range(6))
    assert uniform(Counter(a for row in attributes for a in row), range(3))


def test_partial_induction_asks_for_the_later_of_two_different_attributes():
    symbols, attributes, questions, answers = drawn("partial induction")
    both = [[at for at in range(6) if row[at] == q] for row, q in zip(symbols, questions, strict=True)]
    assert all(len(places) == 2 for places in both)
    assert [row[last] for row, (_, last) in zip(attributes, both, strict=True)] == answers
    assert all(row[first] != row[last] for row, (first, last) in zip(attributes, both, strict=True))
    assert uniform(Counter(last for _, last in both), range(1, 6))
    assert uniform(Counter(first for first, last in both if last == 5), range(5))
    assert uniform(Counter(answers), range(3))


@pytest.mark.parametrize("task", TASKS)
def test_test_examples_have_the_answer_where_they_should_and_differ_from_those_of_training(task):
    problem = groups(task, [0])[0].problem
    for position in problem.asked:
        found = held_out(problem, position)
        chosen = found.tokens[:, position - 1]
        read = chosen[:, :4] if task == "index" else chosen[:, 4:]
        assert torch.equal(read.argmax(-1), found.answer)
    assert not torch.equal(draw(problem, 0).tokens, draw(problem, 1).tokens)
    assert torch.equal(draw(problem, 1).tokens, draw(problem, 1).tokens)


@pytest.mark.parametrize(("positions", "symbols"), [(2, 2), (3, 2), (4, 3), (3, 5)])
def test_the_ceiling_of_index_is_the_mean_share_of_the_most_frequent_symbol(positions, symbols):
    problem = groups("index", [0], positions=positions, symbols=symbols)[0].problem
    words = [*itertools.product(range(symbols), repeat=positions)]
    most = sum(max(Counter(word).values()) for word in words)
    assert symbolic_ceiling(problem) == Fraction(most, positions * len(words))


# The model


def directly(weights, frequencies, tokens, question, bound, removed):
    """Token by token, pair by pair, with rotations as matrices, as the module's docstring has it."""
    get = {name: value.double() for name, value in weights.items()}

    def short(vector):
        return vector * min(1.0, math.sqrt(bound) / float(vector.norm()))

    y = get["questions"][question]
    query = short(get["query"] @ y)
    scores, states = [], []
    for j, token in enumerate(tokens.double(), 1):
        x = get["tokens"].T @ token
        key, r, score = short(get["key"] @ x), len(tokens) + 1 - j, 0.0
        for pair, theta in enumerate(frequencies, 1):
            c, s = math.cos(-r * theta), math.sin(-r * theta)
            turn = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
            part = slice(2 * pair - 2, 2 * pair)
            score += 0.0 if pair == removed else float(query[part] @ turn @ key[part])
        scores.append(score)
        states.append(x)
    attention = torch.tensor(scores, dtype=torch.float64).softmax(0)
    assert max(map(abs, scores)) <= bound * (1 + 1e-12)
    mean = sum(p * x for p, x in zip(attention, states, strict=True))
    return get["output"] @ (y + get["value"] @ mean)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("removed", [0, 1, 2])
@pytest.mark.parametrize("bound", [0.5, 50.0])
def test_a_model_computes_what_its_definition_says(task, removed, bound):
    """To 1e-4: sums of some 20 float32 terms, of scores up to 50. The smaller bound shortens every vector."""
    (group,) = groups(task, [[0.3, 0.7], [0, 1.1]], positions=5, symbols=6)
    weights = initial(group)
    for name in ("query", "key"):
        weights[name] = weights[name] * 6
    weights["tokens"] = weights["tokens"] * torch.tensor([1.0, 0.7])[:, None, None]  # runs differ
    examples = draw(group.problem, 0)
    frequencies = torch.tensor(group.frequencies)
    found = outputs(weights, frequencies, examples, bound, removed)
    for run, chosen in enumerate(group.frequencies):
        own = {name: value[run] for name, value in weights.items()}
        for at in range(3):
            wanted = directly(own, chosen, examples.tokens[at], examples.question[at], bound, removed)
            torch.testing.assert_close(found[run, at].double(), wanted, rtol=1e-4, atol=1e-4)


def test_runs_of_a_group_start_alike_and_other_seeds_otherwise():
    first, second = groups("index", [0, 1], (0, 1))
    weights, other = initial(first), initial(second)
    assert all(torch.equal(value[0], value[1]) for value in weights.values())
    assert not torch.equal(weights["tokens"], other["tokens"])
    assert group_parameters(first) == sum(value[0].numel() for value in weights.values())


def test_a_plan_counts_its_runs():
    grid = make_canonical(
        "t", {"seeds": [0, 1], "tasks": {"index": {**SMALL, "frequencies": [0, 1, [0, 1]]}}}
    )
    assert (grid.count, grid.steps) == (6, 6 * SMALL["steps"])
    small = canonical_cost(grid)
    double = {**SMALL, "steps": 2 * SMALL["steps"], "frequencies": [0, 1, [0, 1]]}
    large = canonical_cost(make_canonical("t", {"seeds": [0, 1], "tasks": {"index": double}}))
    assert (large.operations, large.seconds) == (2 * small.operations, 2 * small.seconds)
    assert large.parameters == small.parameters


# What is learned


def test_index_is_learned_with_a_high_frequency_and_no_better_than_guessing_without(tmp_path):
    (group,) = groups("index", [0, 1.5])
    found = accuracies(train_group(group, tmp_path))
    ceiling = float(symbolic_ceiling(group.problem))
    sampling = math.sqrt(ceiling * (1 - ceiling) / (400 * 4))
    assert found["1.5", 0] > 0.98
    assert found["0", 0] < ceiling + 5 * sampling


def test_retrieval_is_learned_with_a_low_frequency_and_not_with_a_high_one(tmp_path):
    (group,) = groups("retrieval", [0, 1.5])
    found = accuracies(train_group(group, tmp_path))
    assert found["0", 0] > 0.98
    assert found["1.5", 0] < 0.8


def test_partial_induction_takes_both_and_removing_either_pair_undoes_it(tmp_path):
    """1/2 is the ceiling without positions; the sampling of 2800 examples has a deviation of 0.0095."""
    one, two = groups("partial induction", [0, [0, 0.2]], positions=8, symbols=8, bound=50.0)
    assert accuracies(train_group(one, tmp_path / "one"))["0", 0] < 0.5 + 5 * 0.0095
    found = accuracies(train_group(two, tmp_path / "two"))
    assert found["0+0.2", 0] > 0.95
    assert found["0+0.2", 1] < 0.75
    assert found["0+0.2", 2] < 0.75


# Runs that resume


def test_a_group_ends_alike_whenever_it_is_trained_and_a_finished_one_is_left_alone(tmp_path):
    (group,) = groups("retrieval", [0, 0.5], steps=20, evaluate=20)
    first = train_group(group, tmp_path / "a")
    assert measured(first) == measured(train_group(group, tmp_path / "b"))
    before = (tmp_path / "a" / DONE).read_bytes()
    assert train_group(group, tmp_path / "a") == first
    assert (tmp_path / "a" / DONE).read_bytes() == before
    assert group_result(group, tmp_path / "a") == first
    assert group_result(group, tmp_path / "c") is None


def test_runs_of_a_group_do_not_influence_each_other(tmp_path):
    """To float32 rounding, which 20 steps do not amplify to a change of 1e-4 in the loss."""
    (both,) = groups("retrieval", [0, 0.5], steps=20, evaluate=20)
    (alone,) = groups("retrieval", [0.5], steps=20, evaluate=20)
    together, single = train_group(both, tmp_path / "a"), train_group(alone, tmp_path / "b")
    assert together["losses"]["0.5"] == pytest.approx(single["losses"]["0.5"], abs=1e-4)
    assert together["losses"]["0"] != pytest.approx(single["losses"]["0.5"], abs=1e-4)


@pytest.mark.parametrize("content", ["{", "[]", '{"identity": "other"}'])
def test_a_folder_with_something_else_is_refused(content, tmp_path):
    (group,) = groups("index", [0], steps=1, evaluate=1)
    (tmp_path / DONE).write_text(content)
    with pytest.raises(InputError, match="name another folder") as caught:
        train_group(group, tmp_path)
    assert caught.value.argument == "out"
    assert (tmp_path / DONE).read_text() == content


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (group,) = groups("index", [0], steps=1, evaluate=1)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder that can be written"):
        train_group(group, tmp_path / "file" / "below")
