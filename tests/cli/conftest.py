"""What the tests of the command line share: a clean place, and ways to call it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from droveway.cli.main import commands

OURS = ("_API_KEY", "_PROXY", "_proxy", "DROVEWAY_")
SECONDS = 60


@pytest.fixture(autouse=True)
def clean_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No keys, no proxies, no settings file; the working directory is the test's own."""
    for name in os.environ:
        if any(part in name for part in OURS):
            monkeypatch.delenv(name)
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # it hides what a buffer does at exit
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def droveway() -> Callable[..., Result]:
    """Call a command in this process."""

    def call(*arguments: object, typed: str | None = None) -> Result:
        return CliRunner().invoke(commands, [str(each) for each in arguments], input=typed)

    return call


@pytest.fixture
def spawned() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Call a command as a process of its own, to its end."""

    def call(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "droveway", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return call
