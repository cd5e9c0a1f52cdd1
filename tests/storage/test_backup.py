"""A copy of a store that is being written to: whole, of one moment, and never over anything."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from pathlib import Path

import apsw
import pytest

from droveway.errors import SettingsError, StoreUnavailableError
from droveway.storage import Connection, Store, backup
from lab import run

ADD = "INSERT INTO thing (name, ballast) VALUES (?, ?)"
Seal = Callable[[Path], AbstractContextManager[None]]
BALLAST = "b" * 2_000
ROWS = 500
SECONDS = 60


def make_table(db: Connection) -> None:
    db.run("CREATE TABLE thing (name TEXT NOT NULL, ballast TEXT NOT NULL) STRICT")
    db.run_many(ADD, ((f"first-{i}", BALLAST) for i in range(ROWS)))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store of about a megabyte, which is copied in many steps."""
    monkeypatch.setattr(backup, "PAGES_PER_STEP", 8)
    (tmp_path / "home").mkdir()
    with Store(tmp_path / "home" / "a.db") as made:
        run(made.write(make_table))
        yield made


@pytest.fixture
def target(tmp_path: Path) -> Path:
    (tmp_path / "copies").mkdir()
    return tmp_path / "copies" / "copy.db"


def names(path: Path) -> list[str]:
    with closing(apsw.Connection(str(path))) as driver:
        assert driver.execute("PRAGMA integrity_check").get == "ok"
        return [name for (name,) in driver.execute("SELECT name FROM thing ORDER BY rowid")]


def neighbours(target: Path) -> list[str]:
    return [each.name for each in target.parent.iterdir()]


# What a copy is.


def test_a_copy_is_a_store_of_its_own_and_its_owners_alone(store: Store, target: Path) -> None:
    store.backup(target)
    assert neighbours(target) == ["copy.db"]
    assert target.stat().st_mode & 0o777 == 0o600
    with Store(target, create=False) as copy:
        assert copy.read("PRAGMA journal_mode") == [("wal",)]
        run(copy.write(lambda db: db.run(ADD, ("more", ""))))
        run(store.write(lambda db: db.run(ADD, ("other", ""))))
    assert neighbours(target) == ["copy.db"]
    first = [f"first-{i}" for i in range(ROWS)]
    assert names(target) == [*first, "more"]
    assert names(store.path) == [*first, "other"]


def test_what_is_committed_amid_the_copy_is_in_the_store_alone(store: Store, target: Path) -> None:
    """ours: one moment, though the store's own writer goes on; the copy does not begin anew."""
    told: list[tuple[int, int]] = []

    def write_more(copied: int, of: int) -> None:
        run(store.write(lambda db: db.run(ADD, (f"amid-{len(told)}", BALLAST))))
        told.append((copied, of))
        assert len(told) < 1_000, "it comes to an end"

    store.backup(target, on_progress=write_more)
    assert len(told) > 20
    assert told == sorted(told)
    assert told[-1][0] == told[-1][1] == told[0][1]
    first = [f"first-{i}" for i in range(ROWS)]
    assert names(target) == first
    assert names(store.path) == first + [f"amid-{i}" for i in range(len(told))]


WRITE_ON = """
import asyncio, sys
from pathlib import Path
from droveway.storage import Store

async def work(store):
    async def one(i):
        await store.write(lambda db: db.run("INSERT INTO thing VALUES (?, ?)", (f"{i}", "b" * 2_000)))
        print(i, flush=True)
    i = 0
    while True:
        await asyncio.gather(*(one(j) for j in range(i, i + 20)))
        i += 20

with Store(Path(sys.argv[1])) as store:
    asyncio.run(work(store))
"""


def test_a_copy_beside_a_process_that_writes_hard_has_all_that_was_told_before(
    store: Store, target: Path
) -> None:
    told: list[str] = []
    more = threading.Condition()

    def wait_for(count: int) -> None:
        with more:
            assert more.wait_for(lambda: len(told) >= count, SECONDS)

    with subprocess.Popen(
        [sys.executable, "-c", WRITE_ON, str(store.path)], stdout=subprocess.PIPE, text=True
    ) as writer:

        def listen() -> None:
            assert writer.stdout is not None
            for line in writer.stdout:
                if line.endswith("\n"):
                    with more:
                        told.append(line.strip())
                        more.notify()

        listener = threading.Thread(target=listen)
        listener.start()
        try:
            wait_for(200)
            before = list(told)
            # Every step sees the other process go on.
            store.backup(target, on_progress=lambda *_: wait_for(len(told) + 1))
            during = len(told) - len(before)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait(SECONDS)
            listener.join(SECONDS)
    assert during > 100
    copied = names(target)
    assert set(before) <= set(copied)
    # Of one moment: the rows stand in the order of their commits.
    assert copied == names(store.path)[: len(copied)]
    assert set(told) <= set(names(store.path))


# Where it must not go, and cannot.


@pytest.mark.parametrize("kind", ["file", "folder", "link to nowhere"])
def test_what_exists_is_never_overwritten(kind: str, store: Store, target: Path) -> None:
    if kind == "file":
        target.write_text("precious")
    elif kind == "folder":
        target.mkdir()
    else:
        target.symlink_to("nowhere")
    with pytest.raises(SettingsError, match="exists and is not overwritten"):
        store.backup(target, on_progress=lambda *_: pytest.fail("nothing is copied in vain"))
    assert neighbours(target) == ["copy.db"]
    assert kind != "file" or target.read_text() == "precious"


@pytest.mark.parametrize("second_names", ["has", "lacks"])
def test_what_comes_into_being_amid_the_copy_is_not_overwritten_either(
    second_names: str, *, store: Store, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ours: on a file system that has second names for a file, and on one that lacks them."""

    def appear(_copied: int, _of: int) -> None:
        target.write_text("precious")

    if second_names == "lacks":
        monkeypatch.setattr(backup.os, "link", no_second_names)  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match="exists and is not overwritten"):
        store.backup(target, on_progress=appear)
    assert neighbours(target) == ["copy.db"]
    assert target.read_text() == "precious"


def no_second_names(*_: object) -> None:
    raise PermissionError(1, "Operation not permitted")


def test_a_file_system_without_second_names_will_do(
    store: Store, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backup.os, "link", no_second_names)  # type: ignore[attr-defined]
    store.backup(target)
    assert neighbours(target) == ["copy.db"]
    assert len(names(target)) == ROWS


def test_a_missing_folder_is_refused(store: Store, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"'.*copy.db' cannot be written \(No such file"):
        store.backup(tmp_path / "nowhere" / "copy.db")
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_that_cannot_be_written_is_refused(
    store: Store, target: Path, sealed: Seal
) -> None:
    with sealed(target.parent), pytest.raises(SettingsError, match="cannot be written") as refused:
        store.backup(target)
    assert "\n" not in str(refused.value)
    assert neighbours(target) == []
    store.backup(target)
    assert len(names(target)) == ROWS


def test_a_disk_that_is_too_small_is_the_targets_fault(store: Store, small_disk: Path) -> None:
    target = small_disk / "copy.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 3_500_000)
    with pytest.raises(SettingsError, match=r"copy.db' cannot be written .*free space"):
        store.backup(target)
    assert neighbours(target) == ["ballast"]
    ballast.unlink()
    store.backup(target)
    assert len(names(target)) == ROWS


@pytest.mark.parametrize("of", ["file", "folder"])
def test_a_copy_that_cannot_be_synced_is_none(
    of: str, *, store: Store, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ours: a disk that breaks."""
    fsync = os.fsync

    def broken(file: int) -> None:
        path = Path(f"/proc/self/fd/{file}").readlink()
        if path.parent == target.parent if of == "file" else path == target.parent:
            raise OSError(5, "Input/output error")
        fsync(file)

    monkeypatch.setattr(backup.os, "fsync", broken)  # type: ignore[attr-defined]
    with pytest.raises(SettingsError, match="Input/output error"):
        store.backup(target)
    assert neighbours(target) == []


# What happens to the store, and to us.


def test_a_closed_store_is_not_copied(store: Store, target: Path) -> None:
    store.close()
    with pytest.raises(StoreUnavailableError, match="is closed"):
        store.backup(target)
    assert neighbours(target) == []


def test_a_store_that_is_gone_is_not_copied(store: Store, target: Path, tmp_path: Path) -> None:
    store.path.parent.rename(tmp_path / "elsewhere")
    with pytest.raises(StoreUnavailableError, match="is gone"):
        store.backup(target)
    assert neighbours(target) == []
    (tmp_path / "elsewhere").rename(store.path.parent)
    store.backup(target)
    assert len(names(target)) == ROWS


def test_a_store_that_is_no_database_any_more_is_not_copied(store: Store, target: Path) -> None:
    store.close()
    Store(store.path).close()
    with Store(store.path) as again:
        with store.path.open("r+b") as file:
            file.write(b"no database at all")
        with pytest.raises(StoreUnavailableError, match="is no database"):
            again.backup(target)
    assert neighbours(target) == []


def test_whoever_watches_may_stop_it(store: Store, target: Path) -> None:
    def interrupt(copied: int, of: int) -> None:
        if copied > of // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.backup(target, on_progress=interrupt)
    assert neighbours(target) == []


KILLED = """
import os, signal, sys
from pathlib import Path
from droveway.storage import Store, backup

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

def amid(copied, of):
    if copied >= of * part:
        die()

backup.PAGES_PER_STEP = 8
part = 2.0
where = sys.argv[3]
if where in {"fsync", "link"}:
    setattr(os, where, die)
elif where == "unlink":
    Path.unlink = die
else:
    part = float(where)
Store(Path(sys.argv[1])).backup(Path(sys.argv[2]), on_progress=amid)
"""


@pytest.mark.parametrize("where", ["0", "0.5", "1", "fsync", "link", "unlink"])
def test_a_copy_that_is_killed_has_no_name_unless_it_is_whole(
    where: str, store: Store, target: Path
) -> None:
    words = [sys.executable, "-c", KILLED, str(store.path), str(target), where]
    done = subprocess.run(words, timeout=SECONDS, check=False)
    assert done.returncode == -signal.SIGKILL
    left = [each for each in neighbours(target) if each != target.name]
    assert all(each.startswith(".copy.db.") and each.endswith(".part") for each in left)
    if where == "unlink":
        assert len(names(target)) == ROWS
    else:
        assert not target.exists()
        store.backup(target)
        assert len(names(target)) == ROWS
    run(store.write(lambda db: db.run(ADD, ("next", ""))))
