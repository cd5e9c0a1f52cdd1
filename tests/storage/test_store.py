"""The store: groups, isolation, several processes, and a disk that fails."""

import asyncio
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from droveway.errors import SettingsError, StoreUnavailableError
from droveway.storage import Connection, Store
from droveway.storage.connection import unavailable
from droveway.storage.migrating import steps
from lab import run

ADD = "INSERT INTO thing (name) VALUES (?)"
SECONDS = 60


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "a.db") as made:
        run(made.write(make_table))
        yield made


def make_table(db: Connection) -> None:
    db.run("CREATE TABLE IF NOT EXISTS thing (name TEXT NOT NULL) STRICT")


def names(store: Store) -> list[str]:
    return [name for (name,) in store.read("SELECT name FROM thing ORDER BY rowid")]


async def blocked(store: Store) -> tuple[threading.Event, asyncio.Task[None]]:
    """Hold the writer thread up in a work, so that what comes then waits together."""
    begun, gate = threading.Event(), threading.Event()

    def hold(_: Connection) -> None:
        begun.set()
        assert gate.wait(SECONDS)

    task = asyncio.create_task(store.write(hold))
    await asyncio.to_thread(begun.wait, SECONDS)
    return gate, task


# Groups.


def test_what_waits_is_committed_together(store: Store) -> None:
    async def work() -> None:
        gate, first = await blocked(store)
        waiting = [
            asyncio.create_task(store.write(lambda db, i=i: db.run(ADD, (f"{i}",))))  # type: ignore[misc]
            for i in range(100)
        ]
        await asyncio.sleep(0)
        before = store.commits
        gate.set()
        await asyncio.gather(first, *waiting)
        assert store.commits == before + 2

    run(work())
    assert names(store) == [str(i) for i in range(100)]


def test_a_group_is_bounded(store: Store) -> None:
    async def work() -> None:
        gate, first = await blocked(store)
        before = store.commits
        for _ in range(1_000):
            store.write_soon(lambda db: db.run(ADD, ("x",)))
        last = asyncio.create_task(store.flush())
        await asyncio.sleep(0)
        gate.set()
        await asyncio.gather(first, last)
        # The one that held the thread up, 512, and the rest with the flush.
        assert store.commits == before + 3

    run(work())


def test_nobody_is_told_before_the_commit(store: Store) -> None:
    async def work() -> None:
        await store.write(lambda db: db.run(ADD, ("kept",)))
        with Store(store.path) as other:
            assert names(other) == ["kept"]

    run(work())


def test_a_work_returns_what_it_found(store: Store) -> None:
    assert run(store.write(lambda db: db.run(ADD, ("x",)))) == 1
    assert run(store.write(lambda db: db.rows("SELECT count(*) FROM thing"))) == [(1,)]


def test_works_of_several_loops_are_told_each_in_its_own(store: Store) -> None:
    def one(name: str) -> None:
        for _ in range(20):
            run(store.write(lambda db: db.run(ADD, (name,))))

    threads = [threading.Thread(target=one, args=(f"{i}",)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS)
    assert sorted(names(store)) == sorted(f"{i}" for i in range(4) for _ in range(20))


# One that fails.


def test_a_work_that_fails_takes_back_its_own_changes_only(store: Store) -> None:
    def fail(db: Connection) -> None:
        db.run(ADD, ("half",))
        raise ValueError("no")

    async def work() -> list[Any]:
        gate, first = await blocked(store)
        waiting = [
            asyncio.create_task(store.write(each))
            for each in (
                lambda db: db.run(ADD, ("before",)),
                fail,
                lambda db: db.run("INSERT INTO thing (name) VALUES (NULL)"),
                lambda db: db.run(ADD, ("after",)),
            )
        ]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(first, *waiting, return_exceptions=True)

    _, before, failed, refused, after = run(work())
    assert isinstance(failed, ValueError)
    assert isinstance(refused, apsw.ConstraintError)
    assert (before, after) == (1, 1)
    assert names(store) == ["before", "after"]


def test_a_work_that_breaks_the_transaction_does_not_break_its_neighbours(store: Store) -> None:
    """Ours: SQLite may take the whole transaction back, as a work does here by itself."""

    def destroy(db: Connection) -> None:
        db.run(ADD, ("lost",))
        db.run("ROLLBACK")
        raise apsw.FullError("a disk that is full")

    async def work() -> list[Any]:
        gate, first = await blocked(store)
        waiting = [
            asyncio.create_task(store.write(each))
            for each in (
                lambda db: db.run(ADD, ("before",)),
                destroy,
                lambda db: db.run(ADD, ("after",)),
            )
        ]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(first, *waiting, return_exceptions=True)

    _, before, broken, after = run(work())
    assert (before, after) == (1, 1)
    assert isinstance(broken, StoreUnavailableError)
    assert names(store) == ["before", "after"]


def test_a_failure_that_nobody_waits_for_is_logged(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.write_soon(lambda db: db.run("INSERT INTO nowhere VALUES (1)"))
    run(store.flush())
    assert "a write that nobody waited for failed" in caplog.text


def test_a_caller_who_leaves_does_not_stop_the_work(store: Store) -> None:
    async def work() -> None:
        gate, first = await blocked(store)
        leaving = asyncio.create_task(store.write(lambda db: db.run(ADD, ("done",))))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        gate.set()
        await first
        await store.flush()

    run(work())
    assert names(store) == ["done"]


def test_a_loop_that_is_gone_does_not_stop_the_others(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    gate = threading.Event()

    async def leave() -> None:
        store.write_soon(lambda _: gate.wait(SECONDS))
        task = asyncio.create_task(store.write(lambda db: db.run(ADD, ("orphan",))))
        await asyncio.sleep(0)
        del task

    run(leave())
    gate.set()
    run(store.flush())
    assert names(store) == ["orphan"]
    assert "event loop that is closed" in caplog.text


# Closing.


def test_closing_writes_down_what_waits_and_ends_the_threads(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    store = Store(tmp_path / "a.db")
    run(store.write(make_table))
    for i in range(2_000):
        store.write_soon(lambda db, i=i: db.run(ADD, (f"{i}",)))  # type: ignore[misc]
    store.close()
    store.close()
    assert set(threading.enumerate()) <= before
    assert [each.name for each in tmp_path.iterdir()] == ["a.db"]
    with Store(tmp_path / "a.db") as again:
        assert len(names(again)) == 2_000


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "a.db")
    store.read("SELECT 1")
    run(store.aclose())
    for use in (
        lambda: store.read("SELECT 1"),
        store.data_version,
        lambda: run(store.flush()),
        lambda: asyncio.run(asyncio.to_thread(store.read, "SELECT 1")),
    ):
        with pytest.raises(StoreUnavailableError, match="is closed"):
            use()


def test_a_reader_cannot_write(store: Store) -> None:
    with pytest.raises(StoreUnavailableError, match="cannot be written"):
        store.read("DELETE FROM thing")


def test_a_wrong_statement_is_a_fault_of_ours(store: Store) -> None:
    with pytest.raises(apsw.SQLError):
        store.read("SELECT nothing FROM nowhere")
    with pytest.raises(apsw.SQLError):
        run(store.write(lambda db: db.rows("SELECT nothing FROM nowhere")))


# The version that every commit changes.


def test_the_version_changes_with_every_commit_of_anybody_and_only_then(store: Store) -> None:
    seen = store.data_version()
    assert store.data_version() == seen
    run(store.write(lambda db: db.run(ADD, ("own",))))
    own = store.data_version()
    assert own != seen
    with Store(store.path) as other:
        run(other.write(lambda db: db.run(ADD, ("foreign",))))
    assert store.data_version() != own


def test_two_threads_never_see_the_same_version(store: Store) -> None:
    here = store.data_version()
    assert run(asyncio.to_thread(store.data_version)) != here


# Several processes.

WRITE_MANY = """
import asyncio, sys
from pathlib import Path
from droveway.storage import Store

async def work(store, name):
    async def one(i):
        await store.write(lambda db: db.run("INSERT INTO thing (name) VALUES (?)", (f"{name}-{i}",)))
        print(f"{name}-{i}", flush=True)
    for start in range(0, int(sys.argv[3]), 20):
        await asyncio.gather(*(one(i) for i in range(start, start + 20)))

with Store(Path(sys.argv[1])) as store:
    asyncio.run(work(store, sys.argv[2]))
"""


def writer(path: Path, name: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", WRITE_MANY, str(path), name, str(count)],
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_write_one_file(store: Store) -> None:
    with writer(store.path, "a", 400) as one, writer(store.path, "b", 400) as other:
        assert one.stdout is not None
        told = one.communicate(timeout=SECONDS)[0] + other.communicate(timeout=SECONDS)[0]
        assert (one.returncode, other.returncode) == (0, 0)
    assert sorted(names(store)) == sorted(told.split())
    assert len(names(store)) == 800


@pytest.mark.parametrize("lines", [1, 37, 160, 611])
def test_a_killed_writer_loses_nothing_that_it_was_told(lines: int, store: Store) -> None:
    with writer(store.path, "a", 1_000_000) as killed:
        assert killed.stdout is not None
        told = [killed.stdout.readline().strip() for _ in range(lines)]
        killed.send_signal(signal.SIGKILL)
        told += [line for line in killed.stdout.read().split("\n")[:-1] if line]
        killed.wait(SECONDS)
    assert len(told) >= lines
    assert set(told) <= set(names(store))
    assert store.read("PRAGMA integrity_check") == [("ok",)]
    run(store.write(lambda db: db.run(ADD, ("next",))))


def test_several_processes_make_one_store_at_once(tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from droveway.storage import Store; input(); Store(Path(sys.argv[1])).close()"
    path = tmp_path / "a.db"
    started = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path)],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for each in started:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    ended = [each.communicate(timeout=SECONDS)[1] for each in started]
    assert [each.returncode for each in started] == [0] * 6, ended
    with Store(path) as store:
        applied = store.read("SELECT number FROM migration ORDER BY number")
        assert applied == [(step.number,) for step in steps()]


def test_a_store_that_another_process_holds_is_said_to_be_locked(store: Store) -> None:
    async def work() -> None:
        # The patience of the writer is cut short, not waited for.
        await store.write(lambda db: db.rows("PRAGMA busy_timeout = 10"))
        holder = apsw.Connection(str(store.path))
        try:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreUnavailableError, match="locked by another process"):
                await store.write(lambda db: db.run(ADD, ("x",)))
            holder.execute("ROLLBACK")
        finally:
            holder.close()
        await store.write(lambda db: db.run(ADD, ("x",)))

    run(work())
    assert names(store) == ["x"]


# A place that fails.


def test_a_full_disk_is_said_and_what_fits_gets_in(store: Store) -> None:
    async def work() -> list[Any]:
        ((pages,),) = await store.write(lambda db: db.rows("PRAGMA page_count"))
        await store.write(lambda db: db.rows(f"PRAGMA max_page_count = {pages + 2}"))
        gate, first = await blocked(store)
        waiting = [
            asyncio.create_task(store.write(lambda db, text=text: db.run(ADD, (text,))))  # type: ignore[misc]
            for text in ("small", "large" * 100_000, "little")
        ]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(first, *waiting, return_exceptions=True)

    _, small, large, little = run(work())
    assert (small, little) == (1, 1)
    assert isinstance(large, StoreUnavailableError)
    assert "is full" in str(large)
    assert str(store.path) in str(large)
    assert names(store) == ["small", "little"]


def test_a_commit_that_fails_is_tried_work_by_work(store: Store) -> None:
    """Ours: a foreign key that is checked late makes the commit of the whole group fail."""

    def tables(db: Connection) -> None:
        db.run("CREATE TABLE parent (id INTEGER PRIMARY KEY) STRICT")
        db.run("CREATE TABLE child (id INTEGER REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")

    async def work() -> list[Any]:
        await store.write(tables)
        gate, first = await blocked(store)
        waiting = [
            asyncio.create_task(store.write(each))
            for each in (
                lambda db: db.run(ADD, ("before",)),
                lambda db: db.run("INSERT INTO child VALUES (7)"),
                lambda db: db.run(ADD, ("after",)),
            )
        ]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(first, *waiting, return_exceptions=True)

    _, before, orphan, after = run(work())
    assert (before, after) == (1, 1)
    assert isinstance(orphan, apsw.ConstraintError)
    assert names(store) == ["before", "after"]
    assert store.read("SELECT * FROM child") == []


def test_a_file_that_cannot_be_written_is_refused_in_one_line(tmp_path: Path) -> None:
    """Nobody's process, because root may write anything."""
    path = tmp_path / "a.db"
    Store(path).close()
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    told: multiprocessing.Queue[str] = multiprocessing.get_context("fork").Queue()

    def child() -> None:
        os.chdir(tmp_path)
        if os.geteuid() == 0:
            os.setegid(65534)
            os.seteuid(65534)
        try:
            Store(Path("a.db")).close()
            told.put("opened")
        except SettingsError as error:
            told.put(str(error))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    said = told.get(timeout=SECONDS)
    process.join(SECONDS)
    tmp_path.chmod(0o755)
    assert said.startswith("the store 'a.db' cannot be ")
    assert "\n" not in said


@pytest.mark.parametrize(
    ("content", "said"), [(b"no database " * 100, "is no database"), (b"", None)]
)
def test_a_file_of_something_else_is_refused(
    content: bytes, said: str | None, tmp_path: Path
) -> None:
    path = tmp_path / "a.db"
    path.write_bytes(content)
    if said is None:
        Store(path).close()
        return
    with pytest.raises(SettingsError, match=said):
        Store(path)
    assert path.read_bytes() == content


def test_a_damaged_file_is_said_to_be_damaged() -> None:
    said = unavailable(apsw.CorruptError("malformed"), "a.db")
    assert said is not None
    assert str(said) == "the store 'a.db' is damaged (malformed); restore it from a backup"
    assert said.retryable
    assert (said.status, said.code) == (503, "unavailable")
    assert unavailable(ValueError("x"), "a.db") is None


# Where it lies.


def test_a_url_names_a_file_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Store("sqlite:here.db").close()
    assert (tmp_path / "here.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "url", ["here.db", "sqlite:", "sqlite::memory:", "sqlite://here.db", "postgresql://x/y"]
)
def test_a_url_that_names_no_file_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="names no file"):
        Store(url)


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is a folder"):
        Store(tmp_path)
    with pytest.raises(SettingsError, match="make its folder"):
        Store(tmp_path / "nowhere" / "a.db")


def test_a_store_that_must_be_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no store"):
        Store(tmp_path / "a.db", create=False)
    assert [each.name for each in tmp_path.iterdir()] == []


def test_a_store_that_is_gone_is_not_made_anew_by_who_reads(tmp_path: Path) -> None:
    """ours: an empty file would be taken for the store by the next one."""
    with Store(tmp_path / "a.db") as store:
        store.path.unlink()
        with pytest.raises(StoreUnavailableError, match="cannot be opened"):
            store.read("SELECT 1 FROM migration")
        assert list(tmp_path.iterdir()) == []


def test_the_log_is_moved_into_the_file_beside_the_writer(store: Store) -> None:
    """Oracle: SQLite's own count of pages; polled, because a thread does it in its own time."""

    async def work() -> None:
        await store.write(lambda db: db.run(ADD, ("x" * 100_000,)))
        async with asyncio.timeout(SECONDS):
            while b"x" * 1_000 not in await asyncio.to_thread(store.path.read_bytes):
                await asyncio.sleep(0.02)

    run(work(), within_s=SECONDS)


def test_the_library_is_not_the_one_that_loses_data() -> None:
    """SQLite 3.7.0 to 3.51.2 may lose a commit in WAL mode (sqlite.org/wal.html, 2026-03)."""
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)
