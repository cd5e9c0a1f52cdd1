"""What a loss of power may take: which commits wait for the disk, and how soon the others follow."""

import asyncio
import os
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from droveway.clock import StillClock
from droveway.storage import Connection, Store, checkpoints
from lab import run

ADD = "INSERT INTO thing (name) VALUES (?)"
NORMAL, FULL = 1, 2
EVERY_S = 0.1
SECONDS = 20


def make_tables(db: Connection) -> None:
    db.run("CREATE TABLE IF NOT EXISTS thing (name TEXT NOT NULL) STRICT")
    db.run("CREATE TABLE IF NOT EXISTS parent (id INTEGER PRIMARY KEY) STRICT")
    db.run("CREATE TABLE IF NOT EXISTS child (id REFERENCES parent DEFERRABLE INITIALLY DEFERRED)")


def opened(path: Path, clock: StillClock, sync_every_s: float | None) -> Store:
    """A store whose last FULL commit was just now."""
    store = Store(path, clock=clock, sync_every_s=sync_every_s)
    run(store.write(make_tables, durable=True))
    return store


async def mode(store: Store, *, durable: bool = False, changes: bool = True) -> int:
    """Write something, and return how it was committed, as SQLite knows it in the transaction."""

    def work(db: Connection) -> int:
        if changes:
            db.run(ADD, ("x",))
        return int(db.rows("PRAGMA synchronous")[0][0])

    return await store.write(work, durable=durable)


@pytest.fixture
def clock() -> StillClock:
    return StillClock()


@pytest.fixture
def store(tmp_path: Path, clock: StillClock) -> Iterator[Store]:
    with opened(tmp_path / "a.db", clock, EVERY_S) as made:
        yield made


# Which commits wait for the disk.


def test_one_commit_in_each_span_waits_for_the_disk(store: Store, clock: StillClock) -> None:
    async def work() -> None:
        modes = []
        for _ in range(12):
            await clock.advance(0.03)
            modes.append(await mode(store))
        assert modes == [NORMAL, NORMAL, NORMAL, FULL] * 3

    run(work())


def test_the_first_commit_of_a_process_waits_for_the_disk(tmp_path: Path) -> None:
    """ours: nobody knows what another one left in the log."""
    with Store(tmp_path / "a.db", clock=StillClock(), sync_every_s=EVERY_S) as store:

        async def work() -> None:
            assert await store.write(lambda db: db.rows("PRAGMA synchronous")) == [(FULL,)]

        run(work())


def test_without_a_span_only_durable_works_wait(tmp_path: Path, clock: StillClock) -> None:
    async def work(store: Store) -> None:
        modes = []
        for durable in (False, True, False):
            await clock.advance(1_000)
            modes.append(await mode(store, durable=durable))
        assert modes == [NORMAL, FULL, NORMAL]

    with opened(tmp_path / "a.db", clock, None) as made:
        run(work(made))


def test_a_durable_work_waits_always_and_begins_the_span_anew(
    store: Store, clock: StillClock
) -> None:
    async def work() -> None:
        await clock.advance(0.06)
        assert await mode(store, durable=True) == FULL
        assert await mode(store, durable=True) == FULL
        await clock.advance(0.06)
        assert await mode(store) == NORMAL
        await clock.advance(0.06)
        assert await mode(store) == FULL

    run(work())


def test_a_commit_that_has_changed_nothing_does_not_count(store: Store, clock: StillClock) -> None:
    """ours: SQLite syncs nothing where there is nothing to write."""

    async def work() -> None:
        await clock.advance(EVERY_S)
        await store.flush()
        assert await mode(store, durable=True, changes=False) == FULL
        assert await mode(store) == FULL
        assert await mode(store) == NORMAL

    run(work())


def test_a_commit_that_failed_does_not_count(store: Store, clock: StillClock) -> None:
    async def work() -> None:
        await clock.advance(EVERY_S)
        with pytest.raises(apsw.ConstraintError):
            await store.write(lambda db: db.run("INSERT INTO child VALUES (7)"))
        assert await mode(store) == FULL
        assert await mode(store) == NORMAL

    run(work())


# What follows the last of them.


async def moved(path: Path, mark: bytes) -> None:
    """Wait until something stands in the file itself, not only in its log."""
    async with asyncio.timeout(SECONDS):
        while mark not in await asyncio.to_thread(path.read_bytes):
            await asyncio.sleep(0.01)


def test_the_last_commits_before_a_silence_follow_within_the_span(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 3_600.0)
    with opened(tmp_path / "a.db", StillClock(), 0.01) as store:

        async def work() -> None:
            mark = "the last one before a silence"
            await store.write(lambda db: db.run(ADD, (mark,)))
            await moved(store.path, mark.encode())

        run(work(), within_s=SECONDS)


def test_a_log_that_a_long_reader_needs_is_synced_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ours: SQLite syncs a log only where it can move something of it."""
    synced: list[str] = []
    enough = threading.Event()
    fsync = os.fsync

    def watched(file: int) -> None:
        fsync(file)
        synced.append(Path(f"/proc/self/fd/{file}").readlink().name)
        enough.set()

    with opened(tmp_path / "a.db", StillClock(), 0.01) as store:
        run(moved(store.path, b"CREATE TABLE parent"))
        with closing(apsw.Connection(str(store.path))) as reader:
            reader.execute("BEGIN; SELECT count(*) FROM thing").fetchall()
            monkeypatch.setattr(checkpoints.os, "fsync", watched)  # type: ignore[attr-defined]
            run(mode(store))
            assert enough.wait(SECONDS)
    assert set(synced) == {"a.db-wal"}


def test_a_long_reader_does_not_hold_the_writers_up_when_the_log_is_long(
    tmp_path: Path, rounds: threading.Semaphore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "LOG_PAGES_MAX", 20)
    monkeypatch.setattr(checkpoints, "LAG_PAGES_MAX", 10)
    with opened(tmp_path / "a.db", StillClock(), 0.001) as store:
        with closing(apsw.Connection(str(store.path))) as reader:
            reader.execute("BEGIN; SELECT count(*) FROM thing").fetchall()

            async def work() -> None:
                # Whoever waits longer than this is refused.
                await store.write(lambda db: db.rows("PRAGMA busy_timeout = 10"))
                while store.path.with_name("a.db-wal").stat().st_size < 40 * 4_096:
                    await mode(store)
                for _ in range(20):
                    assert await asyncio.to_thread(rounds.acquire, timeout=SECONDS)
                    await mode(store)

            run(work(), within_s=SECONDS)


def test_closing_ends_the_thread_also_between_two_of_its_steps(tmp_path: Path) -> None:
    """ours: whoever closes comes between the end of a pause and the clearing of the mark."""
    store = Store(tmp_path / "a.db", sync_every_s=0.0)
    tidying = store._checkpoints
    closer = threading.Thread(target=store.close, daemon=True)
    asked = threading.Event()

    class Pause(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            seen = super().wait(timeout)
            if not seen:
                closer.start()
                assert asked.wait(SECONDS)
            return seen

    class Mark(threading.Event):
        def set(self) -> None:
            super().set()
            if threading.current_thread() is closer:
                asked.set()

    tidying._stop, tidying._dirty = Pause(), Mark()
    run(store.write(make_tables))
    assert asked.wait(SECONDS)
    closer.join(SECONDS)
    assert not closer.is_alive()


def test_closing_moves_what_is_left_also_where_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoints, "EVERY_S", 3_600.0)
    store = opened(tmp_path / "a.db", StillClock(), None)
    with closing(apsw.Connection(str(store.path))) as other:
        other.execute("SELECT count(*) FROM thing").fetchall()
        run(store.write(lambda db: db.run(ADD, ("left by one who closed",))))
        assert b"left by one who closed" not in store.path.read_bytes()
        store.close()
        assert b"left by one who closed" in store.path.read_bytes()
