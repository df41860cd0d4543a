"""Plans, their systems, and runs that survive what happens to them."""

import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from numerics import InputError, integrate, sweep, workers
from numerics.observables import antisymmetric_share, pairwise_distance, symmetric_part
from numerics.store import Store, identity, to_parquet
from numerics.sweep import check_memory, compute, draw, estimate, inspect, make_plan, read_plan, run_sweep
from numerics.sweep_plan import SHAPE

SMALL = {"run": {"until": 0.2, "chunk": 5}, "grid": {"n": [2, 3], "d": 2, "replicas": 13}}


def only(plan, number=0):
    """One chunk's columns as arrays."""
    columns = compute(plan, plan.chunk(number))
    return {name: np.asarray(values) for name, values in columns.items()}


# Plans

shapes = st.fixed_dictionaries(
    {},
    optional={
        "n": st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True),
        "d": st.sampled_from([[2], [2, 4]]),
        "causal": st.sampled_from([True, [False, True]]),
        "encoding": st.lists(
            st.sampled_from(["none", "absolute", "rotary", "alibi"]), min_size=1, unique=True
        ),
        "score_positive": st.lists(st.floats(0, 1), min_size=1, max_size=3, unique=True),
        "scale": st.floats(0, 10),
    },
)


@settings(max_examples=50)
@given(
    shapes,
    st.integers(1, 20),
    st.integers(1, 50),
    st.sampled_from(["grid", "random"]),
    st.integers(0, 2**32 - 1),
)
def test_chunks_part_the_systems_by_shape_and_a_plan_survives_json(design, amount, size, kind, seed):
    amounts = {"replicas": amount} if kind == "grid" else {"systems": amount}
    plan = make_plan({"seed": seed, "run": {"chunk": size}, kind: {**design, **amounts}})
    chunks = [plan.chunk(number) for number in range(plan.chunks)]
    assert [c.first for c in chunks] == [sum(b.size for b in chunks[:i]) for i in range(len(chunks))]
    assert sum(c.size for c in chunks) == plan.systems
    assert all(1 <= c.size <= size for c in chunks)
    assert len({c.seed for c in chunks}) == len(chunks)
    lengths = [len(v) for k, v in design.items() if isinstance(v, list) and (kind == "grid" or k in SHAPE)]
    assert plan.systems == (amount * math.prod(lengths) if kind == "grid" else amount)
    assert make_plan(json.loads(json.dumps(plan.config, allow_nan=False))) == plan


def test_a_grid_has_every_combination_as_often_as_replicas_says():
    numbers = {"score_positive": [0, 0.5, 1], "scale": [1, 2], "position_scale": [0.1, 0.2]}
    plan = make_plan(
        {"run": {"chunk": 7}, "grid": {"encoding": ["none", "absolute"], "replicas": 3, **numbers}}
    )
    drawn = [draw(plan, plan.chunk(number)).numbers for number in range(plan.chunks)]
    rows = torch.stack([torch.cat([d[name] for d in drawn]) for name in numbers], 1)
    found, counts = rows.nan_to_num(-1).unique(dim=0, return_counts=True)
    assert len(found) == 3 * 2 * (1 + 2)
    assert (counts == 3).all()


def test_random_numbers_fill_their_ranges():
    ranges = {
        "scale": {"low": 0.01, "high": 100, "log": True},
        "score_antisymmetric": {"low": 0.2, "high": 0.4},
    }
    plan = make_plan(
        {"run": {"chunk": 4000}, "random": {"systems": 4000, "n": 1, "response_positive": [0, 1], **ranges}}
    )
    numbers = draw(plan, plan.chunk(0)).numbers
    decades = numbers["scale"].log10()
    for values, low, high in ((decades, -2, 2), (numbers["score_antisymmetric"], 0.2, 0.4)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        assert abs(values.mean() - (low + high) / 2) < 0.03 * (high - low)  # six standard errors
    assert abs(numbers["response_positive"].mean() - 0.5) < 0.05


def test_seeds_name_the_systems():
    tokens = [draw(make_plan({"seed": s, **SMALL}), make_plan({"seed": s, **SMALL}).chunk(c)).tokens
              for s, c in ((0, 0), (0, 0), (0, 1), (1, 0))]  # fmt: skip
    assert torch.equal(tokens[0], tokens[1])
    assert not any(torch.equal(tokens[0], other) for other in tokens[2:])


BAD = [
    ("config", {"girds": {}}, "did you mean 'grid'"),
    ("config", {}, "no design"),
    ("config", {"grid": {}, "random": {"systems": 1}}, "grid and random"),
    ("grid", {"grid": 3}, "a table"),
    ("seed", {"seed": -1, "grid": {}}, "whole number"),
    ("run", {"run": {"rtoll": 1e-3}, "grid": {}}, "did you mean 'rtol'"),
    ("run.until", {"run": {"until": 0}, "grid": {}}, "positive time"),
    ("run.until", {"run": {"until": math.nan}, "grid": {}}, "nan"),
    ("run.rtol", {"run": {"rtol": 1.5}, "grid": {}}, "rtol < 1"),
    ("run.atol", {"run": {"atol": "small"}, "grid": {}}, "positive"),
    ("run.max_steps", {"run": {"max_steps": 2.5}, "grid": {}}, "whole"),
    ("run.chunk", {"run": {"chunk": 0}, "grid": {}}, "whole"),
    ("run.chunk", {"run": {"chunk": 1}, "grid": {"replicas": 10**7}}, "1,000,000 chunks"),
    ("run.method", {"run": {"method": "rk4"}, "grid": {}}, "dormand-prince, auto"),
    ("grid", {"grid": {"encodings": ["none"]}}, "did you mean 'encoding'"),
    ("grid.n", {"grid": {"n": []}}, "empty"),
    ("grid.n", {"grid": {"n": [4, 4]}}, "different"),
    ("grid.n", {"grid": {"n": [4, True]}}, "True"),
    ("grid.encoding", {"grid": {"encoding": "rotory"}}, "rotary"),
    ("grid.scale", {"grid": {"scale": [1, math.nan]}}, "nan"),
    ("grid.scale", {"grid": {"scale": {"low": 1, "high": 2}}}, "range"),
    ("grid.score_positive", {"grid": {"score_positive": 4}}, "0 to 1"),
    ("grid.score_antisymmetric", {"grid": {"score_antisymmetric": 1.0}}, "0, 1"),
    ("grid.score_antisymmetric", {"grid": {"d": [2, 1], "score_antisymmetric": 0.5}}, "d = 1"),
    ("grid.score_smallest", {"grid": {"score_smallest": [0.1, 3]}}, "score_largest"),
    ("grid.d", {"grid": {"d": [2, 3], "encoding": "rotary"}}, "even"),
    ("grid.position_scale", {"grid": {"position_scale": 2}}, "absolute"),
    ("grid.replicas", {"grid": {"replicas": 0}}, "whole"),
    ("grid", {"grid": {"replicas": 10**10}}, "systems"),
    ("grid", {"grid": {"n": list(range(1, 20000))}}, "shapes"),
    ("grid.scale", {"grid": {"sphere": [False, True], "scale": [1, 0]}}, "> 0 with sphere"),
    ("random.scale", {"random": {"systems": 1, "sphere": True, "scale": {"low": 0, "high": 1}}}, "> 0 with"),
    ("random.systems", {"random": {}}, "missing"),
    ("random.scale", {"random": {"systems": 1, "scale": {"low": 2, "high": 1}}}, "low < high"),
    ("random.scale", {"random": {"systems": 1, "scale": {"low": 0, "high": 1, "log": True}}}, "logarithmic"),
    ("random.scale", {"random": {"systems": 1, "scale": {"low": 0, "hi": 1}}}, "'high'\\?$"),
    ("random.scale.high", {"random": {"systems": 1, "scale": {"low": 0}}}, "missing"),
    ("random.n", {"random": {"systems": 1, "n": {"low": 2, "high": 8}}}, "range"),
]  # fmt: skip


@pytest.mark.parametrize(("argument", "config", "message"), BAD)
def test_entries_that_cannot_be_used(argument, config, message):
    with pytest.raises(InputError, match=message) as error:
        make_plan(config)
    assert error.value.argument == argument


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="No such file"):
        read_plan(tmp_path / "absent.toml")
    (tmp_path / "broken.toml").write_text("[grid\n")
    with pytest.raises(InputError, match="line 1"):
        read_plan(tmp_path / "broken.toml")


def test_sizes_beyond_memory_are_refused_before_anything_runs():
    plan = make_plan({"grid": {"n": 100_000, "replicas": 8192}})
    with pytest.raises(InputError, match="GB") as error:
        check_memory(plan, 1)
    assert error.value.argument == "run.chunk"


# Chunks


@pytest.mark.parametrize("encoding", ["none", "absolute", "rotary", "alibi"])
@pytest.mark.parametrize("heads", [1, 3])
def test_systems_have_the_design_they_are_labelled_with(encoding, heads):
    numbers = {
        "score_positive": 0.75,
        "response_positive": 0,
        "score_antisymmetric": 0.3,
        "score_smallest": 1.5,
    }
    design = {"n": 3, "heads": heads, "encoding": encoding, "causal": True, "replicas": 6, **numbers}
    plan = make_plan({"grid": design})
    drawn = draw(plan, plan.chunk(0))
    system = drawn.system
    W = system.score.reshape(-1, 4, 4)
    A = drawn.response.reshape(-1, 4, 4)
    sizes = torch.linalg.eigvalsh(symmetric_part(W))
    assert ((sizes > 0).sum(1) == 3).all()
    assert (torch.linalg.eigvalsh(symmetric_part(A)) < 0).all()
    assert (sizes.abs() > 1.5 - 1e-12).all()
    torch.testing.assert_close(antisymmetric_share(W), torch.full_like(sizes[:, 0], 0.3))
    torch.testing.assert_close(A @ system.value.reshape(-1, 4, 4), W, rtol=0, atol=1e-12)
    assert system.causal
    assert (system.positions is not None, system.rotary is not None, system.bias is not None) == (
        encoding == "absolute", encoding == "rotary", encoding == "alibi")  # fmt: skip
    if system.rotary is not None:  # equal positions see W itself
        x = drawn.tokens
        plain = torch.einsum("bid,b...de,bie->b...i", x, system.score, x)
        torch.testing.assert_close(system.scores(x).diagonal(dim1=-2, dim2=-1), plain)


def test_a_chunk_is_a_function_of_its_number_alone():
    plan = make_plan(
        {**SMALL, "grid": {**SMALL["grid"], "encoding": ["rotary"], "response_antisymmetric": 0.2}}
    )
    first = to_parquet(compute(plan, plan.chunk(2)))
    for number in (5, 0):
        compute(plan, plan.chunk(number))
    assert to_parquet(compute(plan, plan.chunk(2))) == first


def test_one_token_grows_at_the_rate_of_its_value():
    """n = d = 1 is ẋ = vx with v = W/A, so all rates are v; the diameter of one token is 0."""
    plan = make_plan(
        {"run": {"until": 3.0}, "grid": {"n": 1, "d": 1, "score_positive": [0, 1], "replicas": 20}}
    )
    row = only(plan)
    v = row["value_abscissa"]
    np.testing.assert_allclose(row["norm_rate"], v, rtol=1e-6)
    np.testing.assert_allclose(row["log_norm"] - row["log_norm_start"], 3 * v, rtol=1e-6)
    assert ((v > 0) == (row["score_positive"] == 1)).all()
    assert (row["log_diameter"] == -np.inf).all()
    assert np.isnan(row["diameter_rate"]).all()
    assert (row["entropy"] == 0).all()
    np.testing.assert_allclose(row["pencil_minimum"], v)  # W/A
    assert (row["start_margin"][v > 0] > 0).all()  # log 1 = 0: every start is beyond the threshold


def test_rows_are_what_integrating_their_systems_gives():
    plan = make_plan(
        {"run": {"until": 2.0}, "grid": {"n": 4, "d": 3, "sphere": [False, True], "replicas": 10}}
    )
    for number in range(2):
        drawn, row = draw(plan, plan.chunk(number)), only(plan, number)
        times = torch.tensor([0, 1.5, 2.0]).double()
        states = integrate(drawn.system, drawn.tokens, times).states
        end = torch.linalg.vector_norm(states[:, 2], dim=-1)
        if number == 1:
            torch.testing.assert_close(end, torch.ones_like(end))
        sizes = states.abs().amax((2, 3)).log().numpy()
        np.testing.assert_allclose(row["log_norm"], sizes[:, 2], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(row["norm_rate"], (sizes[:, 2] - sizes[:, 1]) / 0.5, rtol=1e-5, atol=1e-5)
        spread = torch.stack([pairwise_distance(states[:, k]).amax(1).log() for k in (1, 2)]).numpy()
        np.testing.assert_allclose(row["log_diameter"], spread[1], rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(row["diameter_rate"], (spread[1] - spread[0]) / 0.5, rtol=1e-4, atol=1e-4)
        P = drawn.system.attention(states[:, 2])
        np.testing.assert_allclose(
            row["entropy"], -torch.special.xlogy(P, P).sum(-1).mean(1).numpy(), atol=1e-6
        )
        assert (row["outcome"] == "REACHED").all()
        assert (row["time"] == 2).all()


def test_margins_agree_with_what_theorems_say_about_the_runs():
    """W_s ≻ 0 and A symmetric: T2 lets A ≺ 0 shrink; T4 lets a token grow above its margin for A ≻ 0."""
    plan = make_plan(
        {"run": {"until": 6.0}, "grid": {"n": 3, "d": 2, "response_positive": [0, 1], "replicas": 60}}
    )
    row = only(plan)
    growing = row["response_positive"] == 1
    assert (row["pencil_minimum"] > 0).all()
    assert ((row["value_abscissa"] > 0) == growing).all()  # L5
    assert (row["log_norm"] < row["log_norm_start"])[~growing].all()
    above = growing & (row["start_margin"] > 0)
    assert above.sum() > 10
    assert (row["norm_rate"] > 0)[above].all()


def test_systems_that_escape_or_have_no_such_margin():
    plan = make_plan(
        {"run": {"until": 10.0, "escape": 1e3}, "grid": {"n": 3, "heads": [1, 2], "replicas": 10}}
    )
    escaped = only(plan)
    assert (escaped["outcome"] == "ESCAPED").any()
    gone = escaped["outcome"] == "ESCAPED"
    assert (escaped["time"] <= escaped["last_time"]).all()
    before = gone & (escaped["time"] < escaped["last_time"])  # it may escape on an output time
    assert (escaped["log_norm"][before] < math.log(1e3)).all()
    assert np.isnan(only(plan, 1)["pencil_minimum"]).all()
    assert np.isnan(only(plan, 1)["start_margin"]).all()


def test_norms_beyond_floats_are_followed():
    plan = make_plan({"run": {"until": 800.0, "escape": math.inf}, "grid": {"n": 2, "d": 1, "replicas": 3}})
    row = only(plan)
    assert (row["outcome"] == "REACHED").all()
    grown = row["log_norm"] > 0
    assert (row["log_norm"] > math.log(1e308)).any()
    np.testing.assert_allclose(row["norm_rate"][grown], row["value_abscissa"][grown], rtol=1e-6)
    assert np.isfinite(row["log_diameter"]).all()


# Runs


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """SMALL, run by one process."""
    folder = tmp_path_factory.mktemp("reference")
    run_sweep(make_plan(SMALL), folder, jobs=1)
    return folder


def table(folder):
    return (folder / "table.parquet").read_bytes()


def test_results_do_not_depend_on_processes_or_interruptions(reference, tmp_path):
    plan, steps, said = make_plan(SMALL), [], []
    copy = tmp_path / "chunks"
    copy.mkdir()
    for name in ("000000.parquet", "000000.json", "000004.parquet", "000004.json"):
        (copy / name).write_bytes((reference / "chunks" / name).read_bytes())
    (copy / "000004.parquet").write_bytes(b"PAR1 nonsense")
    (tmp_path / "plan.json").write_bytes((reference / "plan.json").read_bytes())
    summary, absent = inspect(tmp_path)
    assert (summary["systems"], absent) == (5, [1, 2, 3, 4, 5])
    run_sweep(plan, tmp_path, jobs=2, progress=lambda *counts: steps.append(counts), say=said.append)
    assert table(tmp_path) == table(reference)
    assert (tmp_path / "summary.json").read_bytes() == (reference / "summary.json").read_bytes()
    assert steps[0] == (5, 26)
    assert steps[-1] == (26, 26)
    assert len(said) == 2
    assert "chunk 4 is damaged" in said[0]
    assert said[1] == "computing 21 systems in 5 chunks"
    rows = pq.read_table(reference / "table.parquet")
    expected = [compute(plan, plan.chunk(number))["log_norm"] for number in range(plan.chunks)]
    np.testing.assert_array_equal(rows["log_norm"].to_numpy(), np.concatenate(expected))
    written = json.loads((tmp_path / "summary.json").read_text())
    del written["table_sha256"]
    assert inspect(tmp_path) == (written, [])


@pytest.mark.parametrize("jobs", [0, -1, 1.5])
def test_numbers_of_processes_that_make_no_sense(jobs, tmp_path):
    with pytest.raises(InputError, match="jobs"):
        run_sweep(make_plan(SMALL), tmp_path, jobs=jobs)


def test_inspecting_another_folder(tmp_path):
    plan = {"config": {"grid": {"n": 0}}, "versions": {}, "identity": "x"}
    for text in (None, "[]", "{", json.dumps(plan)):
        if text is not None:
            (tmp_path / "plan.json").write_text(text)
        with pytest.raises(InputError, match=r"plan\.json: "):
            inspect(tmp_path)


def test_a_complete_table_is_summarised_without_its_chunks(reference, tmp_path):
    whole = inspect(reference)
    for name in ("plan.json", "table.parquet", "summary.json"):
        (tmp_path / name).write_bytes((reference / name).read_bytes())
    assert inspect(tmp_path) == whole
    data = bytearray(table(tmp_path))
    data[100] ^= 1
    (tmp_path / "table.parquet").write_bytes(data)
    summary, absent = inspect(tmp_path)
    assert (summary["systems"], absent) == (0, [0, 1, 2, 3, 4, 5])


def test_a_plan_from_before_a_setting_existed_is_still_read(reference, tmp_path):
    """The hash is that of the configuration as it was written, not as defaults fill it in today."""
    written = json.loads((reference / "plan.json").read_text())
    del written["config"]["run"]["method"]
    written["identity"] = identity(written["config"], written["versions"])
    (tmp_path / "plan.json").write_text(json.dumps(written))
    Store(tmp_path, written["identity"]).chunks.mkdir()
    Store(tmp_path, written["identity"]).write(3, (reference / "chunks" / "000003.parquet").read_bytes())
    assert inspect(tmp_path)[1] == [0, 1, 2, 4, 5]


def test_an_error_in_a_chunk_names_it(tmp_path):
    """At this scale, tokens are too short to be put on the sphere."""
    config = {"run": {"chunk": 3}, "grid": {"sphere": True, "scale": [1, 1e-200], "replicas": 3}}
    with pytest.raises(InputError) as error:
        run_sweep(make_plan(config), tmp_path, jobs=1)
    assert error.value.argument == "chunk 1, x0"


@pytest.mark.parametrize(("method", "outcome"), [("dormand-prince", "STALLED"), ("auto", "REACHED")])
def test_the_method_decides_what_becomes_of_a_stiff_row(method, outcome):
    """ẋ = vx with v < −1e4: stability keeps explicit steps below 3.4e-4, and 2000 of them below time 1."""
    numbers = {"response_positive": 0, "score_smallest": 1e4, "score_largest": 1e5, "response_smallest": 1}
    design = {"n": 1, "d": 1, **numbers, "response_largest": 1, "replicas": 5}
    plan = make_plan({"run": {"until": 3.0, "max_steps": 2000, "method": method}, "grid": design})
    row = only(plan)
    assert (row["value_abscissa"] <= -1e4).all()
    assert (row["outcome"] == outcome).all()
    assert ((row["stiff_steps"] > 0) == (method == "auto")).all()


def test_an_estimate_speaks_of_the_whole_grid_and_not_of_its_first_corner(monkeypatch):
    """The clock counts steps; a grid begins with its cheapest systems, here tokens that hardly move."""
    clock = [0.0]

    def steps(plan, number):
        return float(only(plan, number)["steps"].sum())

    def counted(plan, chunk):
        columns = compute(plan, chunk)
        clock[0] += float(np.asarray(columns["steps"]).sum())
        return columns

    design = {"n": 3, "d": 2, "response_positive": 0, "scale": [1e-6, 30], "replicas": 128}
    plan = make_plan({"run": {"until": 2.0, "chunk": 16}, "grid": design})
    actual = sum(steps(plan, number) for number in range(plan.chunks))
    assert steps(plan, 0) * plan.chunks < actual / 1.5
    monkeypatch.setattr(sweep, "compute", counted)
    monkeypatch.setattr(sweep.time, "perf_counter", lambda: clock[0])
    assert abs(estimate(plan, sample=64).seconds / actual - 1) < 0.3


def test_an_estimate_grows_with_the_sweep():
    small, large = (make_plan({**SMALL, "grid": {"n": 2, "d": 2, "replicas": r}}) for r in (50, 5000))
    cost = estimate(large, sample=20)
    assert 10 < cost.size / estimate(small, sample=20).size < 1000  # 100 times the systems
    assert cost.seconds > 0


# Workers


def test_a_deadly_item_is_named_and_an_error_is_raised_here(monkeypatch):
    monkeypatch.setattr(workers, "MOST_DEATHS", 2)
    with pytest.raises(InputError, match=r"plan\.chunk\(7\)") as error:
        list(workers.on_cores(os._exit, [7], 1))
    assert error.value.argument == "chunk 7"
    with pytest.raises(TypeError):
        list(workers.on_cores(len, [3], 1))  # type: ignore[arg-type]
    assert not multiprocessing.active_children()


def test_a_killed_worker_loses_nothing():
    """One worker is killed while idle or busy; its item is computed again."""
    results = {}
    for item, value in workers.on_cores(abs, list(range(-8, 0)), 2):
        results[item] = value
        if len(results) == 3:
            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
    assert results == {item: -item for item in range(-8, 0)}


def test_dask_workers_give_the_same_table_though_one_is_killed(reference, tmp_path):
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
    with distributed.LocalCluster(**options) as cluster:
        with distributed.Client(cluster, set_as_default=False) as client:
            pids = sorted(client.run(os.getpid).values())

        def kill(done, total):
            if done and pids:
                os.kill(pids.pop(), signal.SIGKILL)
                pids.clear()

        run_sweep(make_plan(SMALL), tmp_path, scheduler=cluster.scheduler_address, progress=kill)
    assert not pids
    assert table(tmp_path) == table(reference)


def test_no_scheduler_there(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "CONNECT_SECONDS", 1)
    with pytest.raises(InputError, match="dask scheduler"):
        run_sweep(make_plan(SMALL), tmp_path, scheduler="tcp://127.0.0.1:9")


def test_kill_9_at_random_moments_loses_nothing():
    """See benchmarks/kill_sweep.py, which does this a hundred times."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks.kill_sweep", "--times", "4"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all bit-identical" in done.stdout
