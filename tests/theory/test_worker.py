"""Jobs in a child process: results, time limits, crashes and failures."""

import io
import os
import pickle
import time

import pytest

from theory.errors import DerivationError, InputError
from theory.worker import Outcome, messages, run, serve


def work(context, job):
    """What the tests ask of the child."""
    yield f"{context} {job} started"
    if job == "sleep":
        time.sleep(60)
    if job == "crash":
        os._exit(1)
    if job == "print":
        print("noise")
    if job == "fail":
        raise ZeroDivisionError("by zero")
    if job == "input":
        raise InputError("a", got="b", expected="c", fix="d")
    if job == "wrong":
        raise DerivationError("contradiction")
    yield f"{context} {job} done"


def test_every_job_has_the_last_item_it_yielded():
    """Jobs that crash or fail stop alone; what prints does not disturb the results."""
    found = run(work, "c", ["print", "crash", "fail", "last"], timeout=120)
    assert found[0] == Outcome("c print done")
    assert found[1] == Outcome("c crash started", "the computation ran out of memory or crashed")
    assert found[2] == Outcome("c fail started", "the computation failed (ZeroDivisionError: by zero)")
    assert found[3] == Outcome("c last done")


def test_a_job_that_runs_too_long_is_stopped():
    (found,) = run(work, "c", ["sleep"], timeout=2)
    assert found.stopped == "the time limit of 2 s was reached"
    assert found.item in (None, "c sleep started")  # None where starting the child took that long


@pytest.mark.parametrize(("job", "error"), [("input", InputError), ("wrong", DerivationError)])
def test_typed_errors_are_raised_here(job, error):
    with pytest.raises(error) as caught:
        run(work, "c", [job], timeout=30)
    if job == "input":
        assert (caught.value.argument, caught.value.fix) == ("a", "d")


def test_the_child_writes_what_every_job_says():
    source, target = io.BytesIO(pickle.dumps((work, "c", ["one", "input", "wrong"]))), io.BytesIO()
    serve(source, target)
    target.seek(0)
    said = [pickle.load(target) for _ in range(7)]
    assert said == [m for job in ("one", "input", "wrong") for m in messages(work, "c", job)]
    assert [kind for kind, _ in said] == ["item", "item", "done", "item", "input", "item", "wrong"]
