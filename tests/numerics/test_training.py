"""Training grids: what a configuration means, what a run sees, and runs that survive what happens to them."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from numerics import InputError
from numerics.fetch import DATA_SETS
from numerics.training import SIZES, loop, make_grid, read_grid, result, train
from numerics.training.config import ENCODINGS, SCENARIOS
from numerics.training.cost import cost, parameters, require_possible, step_operations
from numerics.training.data import Images, load, step_seed
from numerics.training.loop import CHECKPOINT, DONE, WEIGHTS, learning_rate
from numerics.training.models import build

TEXT = {
    "d_model": 8,
    "heads": 2,
    "layers": 1,
    "context": 8,
    "batch": 4,
    "steps": 12,
    "warmup": 2,
    "evaluate_every": 5,
    "evaluate": 16,
    "checkpoint_every": 3,
    "learning_rate": 1e-2,
}
IMAGES = {**{k: v for k, v in TEXT.items() if k != "context"}, "patch": 4}


def runs(task="synthetic-text", scenarios=("unconstrained",), seeds=(0,), **changes):
    table = {**(TEXT if "text" in task or task == "enwik8" else IMAGES), **changes}
    return make_grid("test", {"scenarios": [*scenarios], "seeds": [*seeds], "tasks": {task: table}}).runs


def measured(done):
    """Everything but how long it took."""
    return {key: value for key, value in done.items() if key != "seconds"}


# Configurations


@pytest.mark.parametrize("name", SIZES)
def test_every_size_has_all_scenarios_and_three_seeds_and_can_be_read_back(name):
    grid = read_grid(name)
    assert {run.scenario for run in grid.runs} == set(SCENARIOS)
    assert {run.encoding for run in grid.runs} == set(ENCODINGS)
    assert len({run.seed for run in grid.runs}) == 3
    assert len({run.name for run in grid.runs}) == len(grid.runs)
    assert make_grid(name, json.loads(json.dumps(grid.config))).runs == grid.runs


@pytest.mark.parametrize(
    ("given", "argument", "message"),
    [
        ({"scenarios": ["pdd"]}, "scenarios", "did you mean 'pd'"),
        ({"seed": [0]}, "config", "did you mean 'seeds'"),
        ({"seeds": [0, 0]}, "seeds", "different"),
        ({"seeds": [-1]}, "seeds", "from 0"),
        ({"tasks": {"enwik9": {}}}, "tasks", "did you mean 'enwik8'"),
        ({"tasks": {}}, "tasks", r"write \[tasks"),
        ({"tasks": {"enwik8": {"encodings": ["rotary+d"]}}}, "tasks.enwik8.encodings", r"'rotary\+D'"),
        ({"tasks": {"enwik8": {"learning_rat": 1}}}, "tasks.enwik8", "did you mean 'learning_rate'"),
        ({"tasks": {"enwik8": {"steps": 0}}}, "tasks.enwik8.steps", "≥ 1"),
        ({"tasks": {"enwik8": {"antisymmetric": "all"}}}, "tasks.enwik8.antisymmetric", "one of none"),
        ({"tasks": {"enwik8": {"d_model": 30}}}, "tasks.enwik8.d_model", "heads × head size"),
        ({"tasks": {"enwik8": {"head_size": 8}}}, "tasks.enwik8.d_model", "64 with 4 heads of size 8"),
        (
            {"tasks": {"enwik8": {"d_model": 12, "encodings": ["rotary"]}}},
            "tasks.enwik8.d_model",
            "even for rotary",
        ),
        ({"tasks": {"enwik8": {"d_model": 15, "heads": 3}}}, "tasks.enwik8.d_model", "hd"),
        ({"tasks": {"text": {}}}, "tasks.text.data", "path"),
    ],
)
def test_what_cannot_be_used_is_named_with_a_way_out(given, argument, message):
    with pytest.raises(InputError, match=message) as caught:
        make_grid("test", {"tasks": {"enwik8": {}}, **given})
    assert caught.value.argument == argument


def test_a_misspelt_size_and_a_missing_file_are_told_apart(tmp_path):
    with pytest.raises(InputError, match="did you mean 'tiny'"):
        read_grid("tinny")
    with pytest.raises(InputError, match="No such file"):
        read_grid(tmp_path / "mine.toml")


# Data


def test_a_step_sees_the_same_data_whenever_it_is_drawn_and_targets_are_the_next_bytes():
    data = load(runs()[0].task)
    inputs, targets = data.draw("train", 4, step_seed(0, 5))
    again, _ = data.draw("train", 4, step_seed(0, 5))
    other, _ = data.draw("train", 4, step_seed(0, 6))
    assert torch.equal(inputs, again)
    assert not torch.equal(inputs, other)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    content = bytes(data.parts["train"].tolist())
    assert all(
        bytes([*row.tolist(), int(last)]) in content for row, last in zip(inputs, targets[:, -1], strict=True)
    )


def test_patches_put_together_are_the_image():
    images, labels = load(runs("synthetic-images")[0].task).parts["valid"]
    patches, _ = Images({"valid": (images[:1], labels[:1])}, 4).draw("valid", 1, 0)
    image = images[0, :, :, 0] / 127.5 - 1
    for number, patch in enumerate(patches[0]):
        row, column = divmod(number, 2)
        assert torch.equal(patch.reshape(4, 4), image[4 * row : 4 * row + 4, 4 * column : 4 * column + 4])


def test_held_out_parts_are_not_learned_from(tmp_path):
    """Each byte of the file is its own number, so that parts can be told apart."""
    (tmp_path / "text").write_bytes(bytes(range(240)))
    data = load(replace(runs()[0].task, name="text", data=str(tmp_path / "text")))
    parts = [set(data.parts[name].tolist()) for name in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [216, 12, 12]
    assert set.union(*parts) == set(range(240))


def test_data_that_is_missing_short_or_uncut_is_refused(tmp_path):
    task = runs()[0].task
    with pytest.raises(InputError, match="a file that exists"):
        load(replace(task, name="text", data=str(tmp_path / "absent")))
    (tmp_path / "short").write_bytes(bytes(100))
    with pytest.raises(InputError, match="100 bytes"):
        load(replace(task, name="text", data=str(tmp_path / "short")))
    with pytest.raises(InputError, match="a folder that exists"):
        load(replace(runs("mnist")[0].task, data=str(tmp_path / "absent")))
    with pytest.raises(InputError, match="a divisor of 8 and 8"):
        load(runs("synthetic-images", patch=3)[0].task)


@pytest.mark.parametrize("name", DATA_SETS)
def test_every_data_set_is_pinned(name):
    source = DATA_SETS[name]
    names = [member.name for member in source.members]
    assert len(set(names)) == len(names)
    for digest in (source.archive_sha256, *(member.sha256 for member in source.members)):
        assert len(bytes.fromhex(digest)) == 32


def test_a_damaged_file_of_mnist_is_refused(tmp_path):
    for name in (member.name for member in DATA_SETS["mnist"].members):
        (tmp_path / name).write_bytes(bytes(1000))
    with pytest.raises(InputError, match="a file of MNIST"):
        load(replace(runs("mnist")[0].task, data=str(tmp_path)))


# Models


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_predictions_do_not_see_what_follows_but_feel_the_order(scenario, encoding):
    run = next(r for r in runs(scenarios=[scenario], encodings=[encoding], layers=2))
    model = build(run, 8, 1, 256)
    x = torch.arange(8)[None] * 3
    changed, swapped = x.clone(), x.clone()
    changed[0, 5] += 1
    swapped[0, :2] = x[0, [1, 0]]
    out = model(x)
    assert torch.equal(model(changed)[:, :5], out[:, :5])
    assert not torch.equal(model(changed)[:, 5], out[:, 5])
    # 1e-4 is far above float32 rounding of logits of size 1, far below what exchanged positions change
    assert (model(swapped)[:, 7] - out[:, 7]).abs().max() > 1e-4


def test_runs_of_a_seed_start_from_the_same_weights_outside_attention():
    models = [
        build(run, 8, 1, 256).state_dict() for run in runs(scenarios=SCENARIOS, encodings=list(ENCODINGS))
    ]
    shared = [k for k in models[0] if "attention" not in k and k != "positions"]
    assert all(torch.equal(model[key], models[0][key]) for model in models for key in shared)


# Runs


def test_learning_rate_rises_then_falls_to_zero():
    rates = [learning_rate(step, 0.1, 10, 100) for step in range(101)]
    assert rates[0] == pytest.approx(0.01)
    assert max(rates) == rates[9] == rates[10] == 0.1
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[100] == pytest.approx(0)


@pytest.mark.parametrize("task", ["synthetic-text", "synthetic-images"])
def test_a_model_learns_and_curves_and_layers_are_complete(task, tmp_path):
    (run,) = runs(task, steps=80, batch=16, evaluate=100, evaluate_every=40, layers=2)
    done = train(run, tmp_path)
    rows = {(step, metric): value for step, metric, value in done["rows"]}
    valid = [rows[step, f"valid {run.task.metric}"] for step in (0, 40, 80)]
    if run.task.is_text:
        assert valid[0] > 7.5  # eight bits are a guess
        assert valid[-1] < 5.5
    else:
        assert valid[-1] > 60  # of four classes
    assert (80, f"test {run.task.metric}") in rows
    places = {(step, state) for step, state, _, _ in done["layers"]}
    assert places == {(step, state) for step in (0, 80) for state in range(3)}
    assert all(math.isfinite(value) for *_, value in done["layers"])


def test_the_saved_plain_weights_score_as_the_refined_model_did(tmp_path):
    (run,) = runs(scenarios=["nd"], layers=2, encodings=["rotary+D"], steps=20)
    done = train(run, tmp_path)
    plain = build(replace(run, scenario="unconstrained"), 8, 1, 256)
    plain.load_state_dict(load_file(tmp_path / WEIGHTS))
    inputs, targets = load(run.task).draw("valid", run.task.evaluate, step_seed(0, 1))
    loss = cross_entropy(plain(inputs).flatten(0, 1), targets.flatten()).item() / math.log(2)
    last = [value for _, metric, value in done["rows"] if metric == "valid bits per byte"][-1]
    assert loss == pytest.approx(last, rel=1e-6)  # float32, the mean over other batches


SCRIPT = """
import resource, sys, torch
from pathlib import Path
from numerics.training import make_grid, train
torch.set_num_threads(1)
run, = make_grid("test", {config}).runs
def full(steps):
    if {limited}: resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
print("go", flush=True)
try:
    train(run, Path({folder!r}), progress=full)
except Exception as error:
    print(type(error).__name__, error)
"""


def started(run, folder, limited=False):
    grid = {"scenarios": [run.scenario], "seeds": [run.seed], "tasks": {}}
    settings = {k: v for k, v in run.config["task"].items() if k != "name"}
    grid["tasks"][run.task.name] = {**settings, "encodings": [run.encoding]}
    script = SCRIPT.format(config=grid, folder=str(folder), limited=limited)
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)


def test_a_run_killed_at_a_random_moment_ends_with_the_same_bits(tmp_path):
    (run,) = runs(scenarios=["hd"], steps=250, checkpoint_every=5, evaluate_every=50, dropout=0.1)
    whole = train(run, tmp_path / "whole")
    checkpoint = tmp_path / "killed" / CHECKPOINT
    process = started(run, tmp_path / "killed")
    while not checkpoint.exists():
        assert process.poll() is None
        time.sleep(0.005)
    time.sleep(random.uniform(0, 0.4))
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed" / DONE).exists()
    assert 0 < torch.load(checkpoint, weights_only=True)["course"]["step"] < 250
    assert result(run, tmp_path / "killed") is None
    resumed = train(run, tmp_path / "killed")
    assert measured(resumed) == measured(whole)
    assert (tmp_path / "killed" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


def test_a_resumed_run_does_not_start_anew(tmp_path, monkeypatch):
    """Equal bits alone would not tell: a run from the start ends with the same."""
    (run,), steps, step = runs(), [], loop._Training._step

    def watched(self, number):
        if number == 8 and not steps.count("stopped"):
            steps.append("stopped")
            raise KeyboardInterrupt
        steps.append(number)
        step(self, number)

    monkeypatch.setattr(loop._Training, "_step", watched)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "run")
    train(run, tmp_path / "run")
    assert steps == [*range(8), "stopped", *range(6, 12)]  # the last checkpoint is that after six steps


def test_a_run_that_diverges_keeps_its_last_good_checkpoint(tmp_path, monkeypatch):
    (run,), step = runs(), loop._Training._step

    def diverging(self, number):
        step(self, number)
        if number >= 7:
            self.course.loss = math.nan

    monkeypatch.setattr(loop._Training, "_step", diverging)
    with pytest.raises(InputError, match="finite loss"):
        train(run, tmp_path / "run")
    saved = torch.load(tmp_path / "run" / CHECKPOINT, weights_only=False)
    assert all(tensor.isfinite().all() for tensor in saved["model"].values())


def test_a_full_disk_is_said_and_leaves_the_last_checkpoint_to_go_on_from(tmp_path):
    """No file may grow beyond 2 kB after the evaluation at step 5; there is a checkpoint of step 3."""
    (run,) = runs(scenarios=["pd"])
    process = started(run, tmp_path / "full", limited=True)
    printed = process.communicate()[0]
    assert "InputError out" in printed
    assert "File too large" in printed
    assert "make room" in printed
    assert torch.load(tmp_path / "full" / CHECKPOINT, weights_only=True)["course"]["step"] == 3
    assert measured(train(run, tmp_path / "full")) == measured(train(run, tmp_path / "whole"))


def test_a_folder_that_cannot_be_used_is_refused(tmp_path):
    (run,) = runs()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a folder that can be written"):
        train(run, tmp_path / "file" / "run")
    train(run, tmp_path / "run")
    (other,) = runs(learning_rate=2e-2)
    with pytest.raises(InputError, match="a run of another configuration"):
        train(other, tmp_path / "run")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / CHECKPOINT).write_bytes(b"PK")
    with pytest.raises(InputError, match="a damaged file"):
        train(run, tmp_path / "damaged")


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    (run,) = runs()
    wild = replace(run, task=replace(run.task, learning_rate=1e30))  # no configuration may say so
    with pytest.raises(InputError, match="a finite loss"):
        train(wild, tmp_path)


DISTRIBUTED = """
import json, sys, torch
from pathlib import Path
from torch import distributed as dist
from numerics.training import World, make_grid, train
torch.set_num_threads(1)
dist.init_process_group("gloo")
run, = make_grid("test", json.loads(sys.argv[1])).runs
done = train(run, Path(sys.argv[2]), world=World(dist.get_rank(), dist.get_world_size()))
Path(sys.argv[2], f"rank{dist.get_rank()}").write_text(json.dumps(done))
dist.destroy_process_group()
"""


def test_two_processes_share_every_batch_and_keep_equal_parameters(tmp_path):
    config = {"scenarios": ["nd"], "seeds": [0], "tasks": {"synthetic-text": {**TEXT, "batch": 8}}}
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(script),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, json.dumps(config), str(tmp_path / "two")], capture_output=True, text=True, env=environment
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    ranks = [json.loads((tmp_path / "two" / f"rank{rank}").read_text()) for rank in range(2)]
    assert ranks[0]["weights_sha256"] == ranks[1]["weights_sha256"]
    assert ranks[0]["rows"] == ranks[1]["rows"]
    (run,) = make_grid("test", config).runs
    alone = train(run, tmp_path / "one")
    for shared, own in zip(ranks[0]["rows"], alone["rows"], strict=True):
        # the same sums in another order: float32 rounding over 12 steps of Adam; another split of the data,
        # or a rank left out, changes the training loss in the third digit
        assert shared[2] == pytest.approx(own[2], rel=1e-4), own[1]


# Cost


@pytest.mark.parametrize("task", ["synthetic-text", "synthetic-images"])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_parameters_and_operations_are_those_of_the_model(task, encoding):
    (run,) = runs(task, d_model=32, layers=2, encodings=[encoding])
    data = load(run.task)
    model = build(run, *data.shape)
    assert parameters(run) == sum(p.numel() for p in model.parameters())
    inputs, targets = data.draw("train", run.task.batch, 0)
    with FlopCounterMode(display=False) as counter:
        logits = model(inputs)
        cross_entropy(logits.flatten(0, -2), targets.flatten()).backward()
    # torch counts no product for gradients of the input, and attention on CPUs as none or in full
    assert step_operations(run) == pytest.approx(counter.get_total_flops(), rel=0.35)


def test_what_takes_days_or_does_not_fit_is_refused_politely():
    grid = read_grid("paper")
    found = cost(grid)
    with pytest.raises(InputError, match="hours here"):
        require_possible(grid, found, "cpu", 1, long=False)
    require_possible(grid, replace(found, memory=1e6), "cpu", 1, long=True)
    with pytest.raises(InputError, match="what fits into"):
        require_possible(grid, replace(found, memory=1e18), "cpu", 1, long=True)
