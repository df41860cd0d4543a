"""Our own claims with known truth, probed: how many false ones fall, and whether a true one does.

`python -m benchmarks.claims [--time 60] [--jobs 2] [--only WORD]` reads tests/claims_sets, probes each claim
on one core, prints a line for each and a summary, and exits with 1 if fewer than 95 % of the false claims are
refuted, any true one is, or any probe crashes.
"""

import argparse
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

SETS = Path(__file__).parent.parent / "tests" / "claims_sets"
WANTED = 0.95


def outcome(path: Path, seconds: float) -> tuple[Path, str, str, float, int]:
    """The path, the verdict, its grade, the seconds it took and the systems tried."""
    import torch

    from tokendyn.claims import read_claim
    from tokendyn.claims.probing import probe

    torch.set_num_threads(1)
    try:
        report = probe(read_claim(path), seconds)
    except Exception as error:  # one broken claim must not hide how the others end
        return path, f"CRASHED: {error!r}", "", 0.0, 0
    grade = report.found.grade if report.found else ""
    return path, report.verdict, grade, report.seconds, report.tally.tried


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--time", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    paths = [path for path in sorted(SETS.glob("*/*.toml")) if given.only in str(path)]
    counts: dict[str, Counter[str]] = {"true": Counter(), "false": Counter()}
    with ProcessPoolExecutor(given.jobs) as pool:
        for job in as_completed([pool.submit(outcome, path, given.time) for path in paths]):
            path, verdict, grade, seconds, tried = job.result()
            truth = path.parent.name
            counts[truth][grade or verdict] += 1
            wrong = (verdict == "REFUTED") == (truth == "true") or verdict.startswith("CRASHED")
            line = f"{truth:6s}{path.stem:58s}{verdict:13s}{grade:9s}{seconds:6.1f} s{tried:9,d}"
            print(line, "WRONG" if wrong else "", flush=True)
    for truth, found in counts.items():
        print(f"{truth}: {sum(found.values())} claims, " + ", ".join(f"{v} {k}" for k, v in found.items()))
    refuted = {t: sum(v for k, v in found.items() if k.islower()) for t, found in counts.items()}
    enough = refuted["false"] >= WANTED * counts["false"].total()
    crashed = any(word.startswith("CRASHED") for found in counts.values() for word in found)
    return 0 if enough and not refuted["true"] and not crashed else 1


if __name__ == "__main__":
    sys.exit(main())
