"""The folder of a sweep: chunk files that are whole or absent, one writer, and the final table.

plan.json             the configuration, the versions, and the hash of both: the identity
chunks/000012.parquet one row per system; 000012.json: its identity, rows and SHA-256
table.parquet         the chunks in order; summary.json: counts and quantiles
replaced/1/           what --new moved aside; lock: held by the process that writes
"""

import hashlib
import io
import json
import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from numerics.errors import InputError
from numerics.sweep_plan import Plan
from numerics.sweep_summary import SUMMARISED, summarise

ROW_GROUP = 1 << 16
OUTPUTS = ("table.parquet", "summary.json", "chunks", "plan.json")
"""What is moved aside, in this order: as long as anything is left, plan.json says of which sweep it is."""

CHUNK_PART = re.compile(r"\d{6,}\.(parquet|json)\.part")
Say = Callable[[str], None]


def arrow() -> Any:
    """The package pyarrow with its Parquet module. InputError if it is missing."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "pyarrow", "no such package", "it for sweeps", "pip install 'tokendyn[sweep]'"
        ) from error
    return pyarrow


def to_parquet(columns: Mapping[str, Any]) -> bytes:
    """A Parquet file in memory from columns: tensors or lists of one length."""
    pa, sink = arrow(), io.BytesIO()
    arrays = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in columns.items()}
    pa.parquet.write_table(pa.table(arrays), sink, compression="zstd")
    return sink.getvalue()


def identity(config: Mapping, versions: Mapping) -> str:
    """The hash that every file of a sweep carries."""
    text = json.dumps([config, versions], sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def open_store(
    folder: str | Path, config: Mapping, versions: Mapping, new: bool = False, say: Say = lambda message: None
) -> Iterator["Store"]:
    """The store of a sweep, locked until the block is left or the process dies; makes the folder if need be.

    Raises InputError if the folder cannot be written, holds other files or, unless `new`, another sweep's
    results or results without a readable plan.json, or if another process has it locked.
    """
    arrow()
    store = Store(Path(folder), identity(config, versions))
    try:
        if not store.folder.is_dir():
            store.folder.mkdir(parents=True)
            _sync(store.folder.parent)
        store.check_own(new)  # before a lock file appears in somebody's folder
        lock = _lock(store.folder)
        try:
            store.prepare({"config": config, "versions": versions}, new, say)
            yield store
        finally:
            os.close(lock)
    except OSError as error:
        got = f"{error.filename or folder}: {error.strerror}"
        raise InputError(
            "out", got, "a folder that can be written", "name another one, or make room"
        ) from error


def _lock(folder: Path) -> int:
    """The open lock file. The system frees the lock when this process ends in whatever way."""
    try:
        import fcntl
    except ImportError as error:
        raise InputError("out", "a system without flock", "Linux or macOS", "run the sweep there") from error
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(lock)
        expected = "a folder that no other sweep is writing to"
        raise InputError(
            "out", f"{folder}: in use by {holder}", expected, "wait for it, or stop it"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return lock


class Store:
    """A sweep's folder, and the identity its files must carry. Writing is for `open_store`'s block only."""

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity, self.chunks = folder, identity, folder / "chunks"

    def check_own(self, new: bool) -> None:
        """InputError for a folder without plan.json that holds other files or, unless `new`, results."""
        if (self.folder / "plan.json").exists():
            return
        expected = "an empty folder, or that of a sweep with its plan.json"
        known = (*OUTPUTS, "plan.json.part", "replaced", "lock")
        strange = sorted(p.name for p in self.folder.iterdir() if p.name not in known)
        if strange:
            raise InputError("out", f"{self.folder}: holds {strange[0]}", expected, "name a new folder")
        if not new and (results := self._results()):
            got = f"{self.folder}: holds {results[0]}, but no plan.json"
            fix = "restore it, name a new folder, or start over with --new, which moves these to replaced/"
            raise InputError("out", got, expected, fix)

    def prepare(self, plan: dict[str, Any], new: bool, say: Say) -> None:
        """Make the folder ready for this sweep's chunks."""
        if new:
            self._move_aside(say)
        else:
            self._check_same(plan)
        write_file(self.folder / "plan.json", _json({**plan, "identity": self.identity}))
        self.chunks.mkdir(exist_ok=True)
        _sync(self.folder)
        own = [self.folder / f"{name}.part" for name in OUTPUTS]
        for partial in [*own, *(p for p in self.chunks.iterdir() if CHUNK_PART.fullmatch(p.name))]:
            partial.unlink(missing_ok=True)

    def _results(self) -> list[str]:
        """The names of the results here; an empty folder of chunks is none."""
        files = [name for name in ("table.parquet", "summary.json") if (self.folder / name).exists()]
        return files + (["chunks"] if self.chunks.exists() and any(self.chunks.iterdir()) else [])

    def _check_same(self, plan: dict[str, Any]) -> None:
        """InputError if the folder holds results of another sweep."""
        if not (self.folder / "plan.json").exists():
            return
        former = read_plan_file(self.folder)
        if self._results() and former["identity"] != self.identity:
            changes = _changes(former, plan)
            change = "; ".join(changes[:3]) or "plan.json was edited"
            got = f"{self.folder}: results of another sweep ({change})"
            fix = "name another folder, or start over with --new, which moves these results to replaced/"
            raise InputError("out", got, "the folder's own configuration and versions", fix)

    def _move_aside(self, say: Say) -> None:
        present = [name for name in OUTPUTS if (self.folder / name).exists()]
        if not present:
            return
        count = len(list(self.chunks.glob("*.parquet")))
        place = next(p for k in range(1, 10**6) if not (p := self.folder / "replaced" / str(k)).exists())
        place.mkdir(parents=True)
        for name in present:
            os.replace(self.folder / name, place / name)
        for changed in (place, place.parent, self.folder):
            _sync(changed)
        say(f"starting over: the former result ({count} chunks) is now in {place}")

    def path(self, number: int) -> Path:
        return self.chunks / f"{number:06d}.parquet"

    def missing(self, plan: Plan, say: Say = lambda message: None) -> list[int]:
        """The numbers of the chunks that are not here whole; says which are here but damaged or foreign."""
        numbers = []
        for number in range(plan.chunks):
            problem = self._problem(number)
            if problem is not None:
                numbers.append(number)
            if problem:
                say(f"chunk {number} is {problem}: to be computed again")
        return numbers

    def _problem(self, number: int) -> str | None:
        """What is wrong with a chunk: None if nothing, empty if it is not there."""
        file = self.path(number)
        try:
            data, label = file.read_bytes(), json.loads(file.with_suffix(".json").read_bytes())
            found = (label["identity"], label["chunk"], label["sha256"])
        except FileNotFoundError:
            return ""
        except (ValueError, KeyError, TypeError):
            return "damaged (its label is unreadable)"
        if found[:2] != (self.identity, number):
            return "another sweep's"
        return None if found[2] == _sha256(data) else "damaged (its checksum differs)"

    def write(self, number: int, table: bytes) -> None:
        """Keep a chunk: the table, then its label, each at once."""
        write_file(self.path(number), table)
        label = {"identity": self.identity, "chunk": number, "sha256": _sha256(table)}
        write_file(self.path(number).with_suffix(".json"), _json(label))

    def tables(self, numbers: Iterable[int], columns: list[str] | None = None) -> Iterator[Any]:
        """The chunks as Arrow tables, in the order of `numbers`."""
        pa = arrow()
        for number in numbers:
            yield pa.parquet.ParquetFile(self.path(number)).read(columns, use_threads=False)

    def summary(self, plan: Plan, missing: Iterable[int]) -> dict[str, Any]:
        """Counts and quantiles of the chunks that are here."""
        absent = set(missing)
        tables = self.tables((n for n in range(plan.chunks) if n not in absent), list(SUMMARISED))
        return {"identity": self.identity, "planned": plan.systems, **summarise(tables)}

    def result(self, plan: Plan) -> dict[str, Any] | None:
        """The summary of table.parquet; None if it is not there, or not as this sweep left it."""
        table = self.folder / "table.parquet"
        try:
            written = json.loads((self.folder / "summary.json").read_bytes())
            found = (written["identity"], written["table_sha256"])
            if found != (self.identity, _file_sha256(table)):
                return None
        except (OSError, ValueError, KeyError, TypeError):
            return None
        rows = arrow().parquet.ParquetFile(table).read(list(SUMMARISED), use_threads=False)
        return {"identity": self.identity, "planned": plan.systems, **summarise([rows])}

    def finish(self, plan: Plan) -> dict[str, Any]:
        """Write table.parquet and summary.json from the chunks, all of which must be here; the summary."""
        table = self.folder / "table.parquet"
        part = table.with_name("table.parquet.part")
        writer, waiting = None, []
        for number, rows in enumerate(self.tables(range(plan.chunks)), start=1):
            waiting.append(rows)
            if number == plan.chunks or sum(map(len, waiting)) >= ROW_GROUP:
                writer = writer or arrow().parquet.ParquetWriter(part, rows.schema, compression="zstd")
                writer.write_table(arrow().concat_tables(waiting).combine_chunks())
                waiting = []
        if writer is not None:
            writer.close()
        digest = _file_sha256(part)
        with part.open("r+b") as stream:
            os.fsync(stream.fileno())
        _replace(part, table)
        summary = {**self.summary(plan, ()), "table_sha256": digest}
        write_file(self.folder / "summary.json", _json(summary))
        return summary


def read_plan_file(folder: Path) -> dict[str, Any]:
    """The content of a sweep folder's plan.json. InputError if there is none, or it is not one."""
    file = folder / "plan.json"
    try:
        plan = json.loads(file.read_bytes())
    except OSError as error:
        got = f"{file}: {error.strerror}"
        raise InputError("folder", got, "the folder of a sweep", "pass what --out named") from error
    except ValueError as error:
        raise _no_plan(file, f"damaged JSON ({error})") from error
    kinds = {"config": dict, "versions": dict, "identity": str}
    if not isinstance(plan, dict):
        raise _no_plan(file, f"a JSON {type(plan).__name__}")
    for name, kind in kinds.items():
        if not isinstance(plan.get(name), kind):
            raise _no_plan(file, f"{name} = {json.dumps(plan[name])}" if name in plan else f"no {name}")
    return plan


def _no_plan(file: Path, got: str) -> InputError:
    expected = "what the sweep wrote there: its configuration, versions and identity"
    fix = "restore it, or start over with --new, which moves the results to replaced/"
    return InputError(str(file), got, expected, fix)


def write_file(target: Path, data: bytes) -> None:
    """Write all of the data or nothing, and have it on the disk before returning."""
    part = target.with_name(f"{target.name}.part")
    with part.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    _replace(part, target)


def _replace(part: Path, target: Path) -> None:
    os.replace(part, target)
    _sync(target.parent)


def _sync(folder: Path) -> None:
    """Have on the disk which files the folder holds."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _json(data: Any) -> bytes:
    return (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _file_sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _changes(former: Any, present: Any, name: str = "") -> list[str]:
    """What differs between two plans, entry by entry."""
    if isinstance(former, Mapping) and isinstance(present, Mapping):
        keys = [key for key in {**former, **present} if key != "identity"]
        pairs = [(k, former.get(k, "missing"), present.get(k, "missing")) for k in keys]
        return [c for k, was, now in pairs for c in _changes(was, now, f"{name}.{k}" if name else k)]
    return [] if former == present else [f"{name} was {former}, is {present}"]
