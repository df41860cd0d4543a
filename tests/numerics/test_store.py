"""The folder of a sweep: chunks are whole or computed again, one writer, nothing overwritten in silence."""

import json
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from numerics import InputError
from numerics.store import Store, identity, open_store, to_parquet
from numerics.sweep_plan import make_plan
from numerics.sweep_rows import compute

PLAN = make_plan({"run": {"until": 0.1, "chunk": 3}, "grid": {"n": 2, "d": [1, 2], "replicas": 4}})
OTHER = make_plan(
    {"run": {"until": 0.1, "chunk": 3, "rtol": 1e-6}, "grid": {"n": 2, "d": [1, 2], "replicas": 4}}
)
VERSIONS = {"tokendyn": "1"}
CHUNKS = [to_parquet(compute(PLAN, PLAN.chunk(number))) for number in range(PLAN.chunks)]


def opened(folder, plan=PLAN, versions=VERSIONS, **options):
    return open_store(folder, plan.config, versions, **options)


@pytest.fixture
def full(tmp_path):
    """A folder with all four chunks."""
    with opened(tmp_path) as store:
        for number, table in enumerate(CHUNKS):
            store.write(number, table)
    return tmp_path


def missing(folder):
    said = []
    with opened(folder) as store:
        return store.missing(PLAN, said.append), said


def test_chunks_are_found_again_and_joined_in_order(tmp_path):
    with opened(tmp_path) as store:
        for number in (2, 0, 3):
            store.write(number, CHUNKS[number])
        assert store.missing(PLAN) == [1]
    with opened(tmp_path) as store:
        assert store.missing(PLAN) == [1]
        store.write(1, CHUNKS[1])
        summary = store.finish(PLAN)
    table = pq.read_table(tmp_path / "table.parquet")
    assert table["system"].to_pylist() == list(range(8))
    assert table["d"].to_pylist() == [1] * 4 + [2] * 4
    assert summary["systems"] == summary["planned"] == 8
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert [family["systems"] for family in summary["families"]] == [4, 4]
    first = table.slice(0, 4)["norm_rate"].to_numpy()
    expected = np.quantile(first[np.isfinite(first)], [0.05, 0.5, 0.95])
    np.testing.assert_array_equal(summary["families"][0]["norm_rate"], expected)
    assert not list(tmp_path.rglob("*.part"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from([".parquet", ".json"]),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 255),
    st.booleans(),
)
def test_any_changed_byte_or_truncation_is_noticed(full, suffix, place, byte, cut):
    file = full / "chunks" / f"000001{suffix}"
    whole = file.read_bytes()
    at = int(place * len(whole))
    changed = whole[:at] if cut else whole[:at] + bytes([byte]) + whole[at + 1 :]
    file.write_bytes(changed)
    try:
        numbers, said = missing(full)
        if suffix == ".parquet":
            assert (numbers == [1]) == (changed != whole)
        else:  # a label may be written differently and say the same
            assert numbers in ([], [1])
            assert numbers == [1] or json.loads(changed)["sha256"] == json.loads(whole)["sha256"]
        assert all("chunk 1 " in line and "again" in line for line in said)
        assert len(said) == len(numbers)
    finally:
        file.write_bytes(whole)


def test_chunks_of_another_sweep_or_another_number_are_not_taken(full, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    with opened(other, OTHER) as store:
        store.write(1, to_parquet(compute(OTHER, OTHER.chunk(1))))
    for suffix in (".parquet", ".json"):
        (full / "chunks" / f"000001{suffix}").write_bytes((other / "chunks" / f"000001{suffix}").read_bytes())
        (full / "chunks" / f"000003{suffix}").write_bytes((full / "chunks" / f"000002{suffix}").read_bytes())
    numbers, said = missing(full)
    assert numbers == [1, 3]
    assert all("another sweep's" in line for line in said)


def test_a_chunk_without_label_does_not_count(full):
    (full / "chunks" / "000002.json").unlink()
    assert missing(full) == ([2], [])


def test_an_interrupted_write_leaves_what_was_there(full, monkeypatch):
    with opened(full) as store:
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            store.write(0, b"something else")
        monkeypatch.undo()
        assert list(full.rglob("*.part"))
    assert missing(full) == ([], [])
    assert not list(full.rglob("*.part"))


@pytest.mark.parametrize(
    ("plan", "versions", "change"),
    [
        (OTHER, VERSIONS, "config.run.rtol was 1e-08, is 1e-06"),
        (PLAN, {"tokendyn": "2"}, "versions.tokendyn was 1, is 2"),
        (PLAN, {"tokendyn": "1", "torch": "9"}, "versions.torch was missing, is 9"),
    ],
)
def test_another_sweep_is_refused_unless_new_which_keeps_the_old_result(full, plan, versions, change):
    with pytest.raises(InputError, match=change) as error, opened(full, plan, versions):
        pass
    assert "--new" in error.value.fix
    assert missing(full) == ([], [])
    for count in (1, 2):
        said = []
        with opened(full, plan, versions, new=True, say=said.append) as store:
            assert store.missing(plan) == [0, 1, 2, 3]
        assert "former result" in said[0]
        assert f"replaced/{count}" in said[0]
    kept = Store(full / "replaced" / "1", identity(PLAN.config, VERSIONS))
    assert kept.missing(PLAN) == []


def test_a_changed_configuration_is_fine_before_there_are_chunks(tmp_path):
    with opened(tmp_path):
        pass
    with opened(tmp_path, OTHER) as store:
        assert store.missing(OTHER) == [0, 1, 2, 3]


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(folder, match, plan=PLAN, **options):
    """The error's fix; checks that no file was touched but the lock."""
    before = contents(folder)
    with pytest.raises(InputError, match=match) as error, opened(folder, plan, **options):
        pass
    assert {name: data for name, data in contents(folder).items() if name != "lock"} == {
        name: data for name, data in before.items() if name != "lock"
    }
    return error.value.fix


def test_a_table_without_its_chunks_is_not_overwritten(full):
    with opened(full) as store:
        store.finish(PLAN)
    shutil.rmtree(full / "chunks")
    assert "--new" in refused(full, "config.run.rtol was 1e-08, is 1e-06", OTHER)
    table = (full / "table.parquet").read_bytes()
    with opened(full, OTHER, new=True):
        pass
    assert (full / "replaced" / "1" / "table.parquet").read_bytes() == table
    assert missing(full.parent / full.name / "replaced" / "1") == ([0, 1, 2, 3], [])


@pytest.mark.parametrize("lost", ["summary.json", "table.parquet", "chunks"])
def test_results_without_plan_are_refused_but_moved_by_new(full, lost):
    with opened(full) as store:
        store.finish(PLAN)
    (full / "plan.json").unlink()
    shutil.rmtree(full / lost) if lost == "chunks" else (full / lost).unlink()
    left = contents(full)
    assert "--new" in refused(full, r"no plan\.json")
    with opened(full, new=True):
        pass
    moved = contents(full / "replaced" / "1")
    assert moved == {name: data for name, data in left.items() if name != "lock"}


@pytest.mark.parametrize("renames", range(5))
def test_new_killed_between_renames_destroys_nothing(full, monkeypatch, renames):
    """plan.json goes last, so what is still there is known as the former sweep's until all is moved."""
    with opened(full) as store:
        store.finish(PLAN)
    before = contents(full)
    left, rename = [renames], os.replace

    def dying(source, target):
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        rename(source, target)

    monkeypatch.setattr(os, "replace", dying)
    with pytest.raises(KeyboardInterrupt), opened(full, OTHER, new=True):
        pass
    monkeypatch.undo()
    if renames < 3:  # results are left
        refused(full, "another sweep", OTHER)
    with opened(full, OTHER, new=True):
        pass
    kept = {}
    for place in (full / "replaced").iterdir():
        kept |= contents(place)
    assert kept == {name: data for name, data in before.items() if name != "lock"}


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("thesis.tex", False),
        ("thesis.tex", True),
        ("precious.part", False),
        ("precious.part", True),
        ("table.parquet.part", False),
        ("table.parquet", False),
        ("summary.json", False),
        ("chunks/000000.parquet", False),
    ],
)
def test_folders_that_hold_something_else(tmp_path, name, new):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    refused(tmp_path, name.split("/")[0], new=new)
    assert not (tmp_path / "lock").exists()
    with pytest.raises(InputError, match="Not a directory"), opened(tmp_path / name / "sub"):
        pass


def test_only_leftovers_of_its_own_writes_are_removed(full):
    own = ("plan.json.part", "table.parquet.part", "chunks/000001.parquet.part", "chunks/000001.json.part")
    foreign = ("precious.part", "chunks/precious.part")
    for name in (*own, *foreign):
        (full / name).write_text("x")
    assert missing(full) == ([], [])
    assert {str(p.relative_to(full)) for p in full.rglob("*.part")} == set(foreign)


def test_a_kill_during_the_very_first_write_can_be_resumed(tmp_path):
    (tmp_path / "lock").touch()
    (tmp_path / "plan.json.part").write_text("{")
    assert missing(tmp_path) == ([0, 1, 2, 3], [])


NO_PLANS = ["[]", '{"config', '{"config": [1]}', '{"config": {}, "versions": {}}', "3", "\xff"]


@pytest.mark.parametrize("text", NO_PLANS)
def test_a_plan_file_that_is_none(full, text):
    (full / "plan.json").write_text(text, encoding="latin-1")
    assert "--new" in refused(full, r"plan\.json: got")
    with opened(full, new=True) as store:
        assert store.missing(PLAN) == [0, 1, 2, 3]
    assert (full / "replaced" / "1" / "plan.json").read_text(encoding="latin-1") == text


def test_pyarrow_is_asked_for_by_the_extra_that_brings_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"tokendyn\[sweep\]"), opened(tmp_path):
        pass


HOLD = """
import subprocess, sys, time
from numerics.store import open_store
with open_store(sys.argv[1], {}, {}):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    print(child.pid, flush=True)
    time.sleep(600)
"""


def test_one_writer_whose_lock_dies_with_it_alone(tmp_path):
    """The holder's child outlives it here, and must not keep the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        child = int(holder.stdout.readline())
        try:
            with pytest.raises(InputError, match=f"in use by process {holder.pid} on "), opened(tmp_path):
                pass
            holder.kill()
            holder.wait()
            os.kill(child, 0)  # still alive
            with opened(tmp_path) as store:
                assert store.missing(PLAN) == [0, 1, 2, 3]
        finally:
            os.kill(child, signal.SIGKILL)
