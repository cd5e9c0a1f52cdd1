"""What the tests of the store share: places that fail, as far as this machine has them."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from droveway.storage.checkpoints import Checkpoints

Seal = Callable[[Path], AbstractContextManager[None]]
SMALL_DISK_BYTES = 4_000_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of four megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    options = ("-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "none")
    said = _try("mount", *options, str(folder))
    if said is not None:
        pytest.skip(f"this machine mounts no small disk for us: {said}")
    yield folder
    assert _try("umount", "--lazy", str(folder)) is None


@pytest.fixture
def sealed() -> Seal:
    """Take the right to write a file, or into a folder, from everybody, and give it back.

    Also from who has the file open for writing already.
    """

    @contextmanager
    def sealed(path: Path) -> Iterator[None]:
        if os.geteuid() != 0 and path.is_dir():
            path.chmod(0o500)
            try:
                yield
            finally:
                path.chmod(0o700)
            return
        # No mode binds root, nor anybody who has a file open already.
        said = _try("chattr", "+i", str(path))
        if said is not None:
            pytest.skip(f"this machine seals no file for us: {said}")
        try:
            yield
        finally:
            assert _try("chattr", "-i", str(path)) is None

    return sealed


@pytest.fixture
def rounds(monkeypatch: pytest.MonkeyPatch) -> threading.Semaphore:
    """Can be taken once for each round of the thread that syncs and moves logs."""
    ended = threading.Semaphore(0)
    tidy = Checkpoints._tidy

    def counted(self: Checkpoints) -> None:
        tidy(self)
        ended.release()

    monkeypatch.setattr(Checkpoints, "_tidy", counted)
    return ended


def _try(*words: str) -> str | None:
    """Run a command of the system; why it did not work, or None."""
    if shutil.which(words[0]) is None:
        return f"there is no {words[0]}"
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    return None if done.returncode == 0 else done.stderr.strip() or f"exit {done.returncode}"
