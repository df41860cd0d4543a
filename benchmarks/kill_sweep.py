"""A sweep under kill -9: its process or a worker is killed at random moments and it is started again.

Whatever was finished at a kill must still be there, untouched, at the end; the final table must be that of an
undisturbed run, bit for bit; and no worker may outlive its parent.
"""

import argparse
import hashlib
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from numerics.sweep import make_plan, run_sweep

CONFIG = {
    "seed": 1,
    "run": {"until": 0.5, "chunk": 16},
    "grid": {
        "n": [3, 4],
        "d": [2],
        "encoding": ["none", "rotary"],
        "response_positive": [0, 1],
        "replicas": 40,
    },
}
ORPHAN_SECONDS = 20

Stamps = dict[str, tuple[int, int]]


def start(folder: Path) -> subprocess.Popen:
    """A process that runs the sweep in `folder` with two workers."""
    command = [sys.executable, "-m", "benchmarks.kill_sweep", "--sweep", str(folder)]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def stamps(folder: Path) -> Stamps:
    """Inode and time of writing of all finished chunks: those with a label."""
    labels = (folder / "chunks").glob("*.json")
    tables = [label.with_suffix(".parquet") for label in labels]
    return {table.name: (table.stat().st_ino, table.stat().st_mtime_ns) for table in tables}


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "table.parquet").read_bytes()).hexdigest()


def workers(process: subprocess.Popen) -> list[psutil.Process]:
    children = psutil.Process(process.pid).children()
    return [child for child in children if "spawn_main" in " ".join(child.cmdline())]


def kill(process: subprocess.Popen, choice: random.Random) -> str:
    """Kill the sweep, or one of its workers; which of the two."""
    try:
        family = workers(process)
        if family and choice.random() < 1 / 3:
            choice.choice(family).kill()
            return "worker"
    except psutil.NoSuchProcess:
        family = []
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + ORPHAN_SECONDS
    while alive := [child for child in family if is_alive(child)]:
        if time.monotonic() > deadline:
            raise SystemExit(f"workers outlived their parent: {alive}")
        time.sleep(0.05)
    return "process"


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; an orphan may stay a zombie where nothing reaps it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def rounds(folder: Path, times: int, seed: int) -> None:
    """Interrupt sweeps `times` times, each as often as it takes to finish, and check every one."""
    choice = random.Random(seed)
    start(folder / "warm-up").wait()  # compiles, which would make the time to choose moments from too long
    begin = time.monotonic()
    if start(folder / "undisturbed").wait() != 0:
        raise SystemExit("the undisturbed sweep failed")
    seconds, expected = time.monotonic() - begin, digest(folder / "undisturbed")
    killed = {"process": 0, "worker": 0}
    completed = kept = 0
    while sum(killed.values()) < times or completed == 0:
        target, finished = folder / f"sweep-{completed}", {}
        process = start(target)
        while process.returncode != 0:
            try:
                left = sum(killed.values()) < times
                process.wait(choice.uniform(0, seconds) if left else None)
                if process.returncode:
                    raise SystemExit(f"the sweep failed by itself: {process.returncode}")
            except subprocess.TimeoutExpired:
                finished.update(stamps(target))
                victim = kill(process, choice)
                killed[victim] += 1
                if victim == "process":
                    process = start(target)
        if digest(target) != expected:
            raise SystemExit(f"{target}: another table than the undisturbed run's")
        if finished.items() - stamps(target).items():
            raise SystemExit(f"{target}: finished chunks were lost or written again")
        kept, completed = kept + len(finished), completed + 1
        shutil.rmtree(target)
    print(
        f"killed: {killed['process']} x the sweep, {killed['worker']} x a worker; {completed} sweeps done, "
        f"all bit-identical; {kept} chunks finished before a kill, all kept"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=100, help="kills in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    parser.add_argument("--sweep", metavar="FOLDER", help="run the sweep itself, with two workers")
    options = parser.parse_args()
    if options.sweep:
        run_sweep(make_plan(CONFIG), options.sweep, jobs=2)
    else:
        with tempfile.TemporaryDirectory() as folder:
            rounds(Path(folder), options.times, options.seed)


if __name__ == "__main__":
    main()
