"""A page in headless Chromium, without a network."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, (os.environ.get("CHROME", ""), *NAMES))), None)
IN_A_BROWSER = pytest.mark.skipif(
    BROWSER is None,
    reason="no Chromium on the PATH or in CHROME; with one (apt-get install chromium) this runs",
)


def browse(document: Path, *options: str) -> subprocess.CompletedProcess:
    """Run headless Chromium on a page; what it writes to its console is in stderr, in lines with CONSOLE."""
    command = [
        str(BROWSER),
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        "--v=0",
    ]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={document.parent / 'profile'}"]
    return subprocess.run([*command, *options, document.as_uri()], capture_output=True, text=True, check=True)
