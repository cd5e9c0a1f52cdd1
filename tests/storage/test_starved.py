"""A store that lacks something: it says what, writes nothing by halves, and works again with it."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw
import pytest

from droveway.errors import StoreUnavailableError
from droveway.storage import Connection, Store
from lab import run

Seal = Callable[[Path], AbstractContextManager[None]]
LARGE = 400_000
SECONDS = 60

pytestmark = pytest.mark.parametrize("durable", [False, True], ids=["soon", "durable"])


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    (tmp_path / "home").mkdir()
    with Store(tmp_path / "home" / "a.db") as made:
        run(made.write(make_tables))
        yield made


def make_tables(db: Connection) -> None:
    for side in ("one_side", "other_side"):
        db.run(f"CREATE TABLE {side} (name TEXT NOT NULL, ballast TEXT NOT NULL) STRICT")


def pair(name: str, size: int = 10) -> Callable[[Connection], str]:
    """Write the two sides of something; the second one may need much room."""

    def work(db: Connection) -> str:
        db.run("INSERT INTO one_side VALUES (?, '')", (name,))
        db.run("INSERT INTO other_side VALUES (?, ?)", (name, "b" * size))
        return name

    return work


def kept(path: Path) -> list[str]:
    """What somebody who comes later finds; never one side alone."""
    with closing(apsw.Connection(str(path))) as driver:
        assert driver.execute("PRAGMA integrity_check").get == "ok"
        left, right = (
            [name for (name,) in driver.execute(f"SELECT name FROM {side} ORDER BY rowid")]
            for side in ("one_side", "other_side")
        )
    assert left == right
    return left


async def refused(work: Any, said: str) -> None:
    """See a write refused in one line that names the store and says what to do."""
    with pytest.raises(StoreUnavailableError, match=said) as told:
        await work
    line = str(told.value)
    assert line.startswith("the store '")
    assert "\n" not in line
    assert line.partition("; ")[2]
    assert told.value.retryable


async def patience(store: Store, milliseconds: int) -> None:
    """Cut the patience of the writer short, so that nobody has to wait for it."""
    await store.write(lambda db: db.rows(f"PRAGMA busy_timeout = {milliseconds}"))


# A full disk.


def test_on_a_full_disk_nothing_is_written_by_halves(*, durable: bool, small_disk: Path) -> None:
    async def work(store: Store) -> None:
        await store.write(pair("before"), durable=durable)
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 4_096)
        for _ in range(3):
            await refused(
                store.write(pair("lost", LARGE), durable=durable), "is full .* free space"
            )
        assert kept(store.path) == ["before"]
        ballast.unlink()
        await store.write(pair("after", LARGE), durable=durable)

    with Store(small_disk / "a.db") as store:
        run(store.write(make_tables))
        run(work(store))
        assert kept(store.path) == ["before", "after"]
    assert kept(small_disk / "a.db") == ["before", "after"]


BOUNDED = """
import asyncio, resource, sys
from pathlib import Path
from droveway.errors import StoreUnavailableError
from droveway.storage import Store

path, durable = Path(sys.argv[1]), sys.argv[2] == "True"

def pair(name, size):
    def work(db):
        db.run("INSERT INTO one_side VALUES (?, '')", (name,))
        db.run("INSERT INTO other_side VALUES (?, ?)", (name, "b" * size))
    return work

async def work(store):
    await store.write(pair("before", 10), durable=durable)
    largest = max(each.stat().st_size for each in path.parent.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 40_000, resource.RLIM_INFINITY))
    for _ in range(3):
        try:
            await store.write(pair("lost", 4_000_000), durable=durable)
        except StoreUnavailableError as error:
            print(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    await store.write(pair("after", 4_000_000), durable=durable)

with Store(path) as store:
    asyncio.run(work(store))
"""


def test_at_the_bound_of_a_files_size_nothing_is_written_by_halves(
    *,
    durable: bool,
    store: Store,
) -> None:
    words = [sys.executable, "-c", BOUNDED, str(store.path), str(durable)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert all(line.endswith("look at its disk") for line in lines)
    assert kept(store.path) == ["before", "after"]


# Another process.

HOLD = """
import sys, apsw
driver = apsw.Connection(sys.argv[1])
driver.execute("BEGIN IMMEDIATE; INSERT INTO one_side VALUES ('half', '')")
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Another process holds the write lock, until it is killed amid its transaction."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        try:
            yield
        finally:
            holder.kill()


def test_beyond_the_patience_everybody_who_waits_is_told_of_the_lock(
    *,
    durable: bool,
    store: Store,
) -> None:
    async def work() -> None:
        await patience(store, 10)
        with held(store.path):
            async with asyncio.TaskGroup() as group:
                for i in range(20):
                    writing = store.write(pair(f"lost-{i}"), durable=durable)
                    group.create_task(refused(writing, "is locked by another process .* try again"))
            assert store.read("SELECT count(*) FROM one_side") == [(0,)]
        await patience(store, 5_000)
        await store.write(pair("after"), durable=durable)

    run(work())
    assert kept(store.path) == ["after"]


# Rights.


def test_a_file_that_lost_its_rights_before_the_first_write_gets_them_back(
    *,
    durable: bool,
    store: Store,
    sealed: Seal,
) -> None:
    """ours: SQLite opens such a file for reading, and would never try again."""

    async def work(late: Store) -> None:
        with sealed(late.path):
            for _ in range(3):
                await refused(
                    late.write(pair("lost"), durable=durable),
                    "cannot be written .* make the file and its folder writable",
                )
        await late.write(pair("after"), durable=durable)

    store.close()
    with Store(store.path) as late:
        run(work(late))
        assert kept(store.path) == ["after"]


def test_a_log_that_cannot_be_written_any_more_refuses_and_goes_on_later(
    *,
    durable: bool,
    store: Store,
    sealed: Seal,
) -> None:
    async def work() -> None:
        await store.write(pair("before"), durable=durable)
        with sealed(store.path.with_name("a.db-wal")):
            for _ in range(3):
                await refused(
                    store.write(pair("lost"), durable=durable), "cannot be read or written"
                )
            assert store.read("SELECT name FROM one_side") == [("before",)]
        await store.write(pair("after"), durable=durable)

    run(work())
    assert kept(store.path) == ["before", "after"]


def test_a_file_that_cannot_be_written_keeps_what_is_told_in_its_log(
    *,
    durable: bool,
    tmp_path: Path,
    sealed: Seal,
    rounds: threading.Semaphore,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "a.db"

    async def into_the_file(mark: bytes) -> None:
        async with asyncio.timeout(SECONDS):
            while mark not in path.read_bytes():
                await asyncio.sleep(0.01)

    async def work(store: Store) -> None:
        await store.write(make_tables)
        await into_the_file(b"CREATE TABLE other_side")
        with sealed(path):
            for i in range(20):
                await store.write(pair(f"kept-{i}"), durable=durable)
            for _ in range(5):
                assert await asyncio.to_thread(rounds.acquire, timeout=SECONDS)
        # Nobody has to write once more for it.
        await into_the_file(b"kept-19")

    with Store(path, sync_every_s=0.005) as store:
        run(work(store))
        assert kept(path) == [f"kept-{i}" for i in range(20)]
    assert caplog.text.count("could not be moved") == 1, "said once, however often it is tried"


# A folder that is gone.


@pytest.mark.parametrize("connected", [True, False], ids=["in use", "not yet in use"])
def test_what_would_go_into_a_file_without_a_name_is_refused(
    *,
    durable: bool,
    connected: bool,
    store: Store,
    tmp_path: Path,
) -> None:
    """ours: who has a file open could write on, and nobody would ever find it."""

    async def work(used: Store) -> None:
        if connected:
            await used.write(pair("before"), durable=durable)
        used.path.parent.rename(tmp_path / "elsewhere")
        for _ in range(3):
            await refused(
                used.write(pair("lost"), durable=durable), r"is gone \(No such .* put its file back"
            )
        assert not used.path.parent.exists()
        (tmp_path / "elsewhere").rename(used.path.parent)
        await used.write(pair("after"), durable=durable)

    store.close()
    with Store(store.path) as used:
        run(work(used))
        assert kept(used.path) == (["before"] if connected else []) + ["after"]


def test_a_file_in_the_place_of_the_first_one_is_left_alone(
    *,
    durable: bool,
    store: Store,
) -> None:
    async def work() -> None:
        await store.write(pair("before"), durable=durable)
        for each in store.path.parent.iterdir():
            each.rename(each.with_name(f"first-{each.name}"))
        with Store(store.path) as second:
            await second.write(make_tables)
            await second.write(pair("second"))
            await refused(
                store.write(pair("lost"), durable=durable), "was replaced .* put the first one back"
            )
        assert kept(store.path) == ["second"]
        store.path.unlink()
        for each in store.path.parent.iterdir():
            each.rename(each.with_name(each.name.removeprefix("first-")))
        await store.write(pair("after"), durable=durable)

    run(work())
    assert kept(store.path) == ["before", "after"]


# The process itself.


def test_without_a_thread_to_write_with_nothing_is_queued(
    *,
    durable: bool,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def scarce(self: threading.Thread) -> None:
        if self.name == "droveway-writer":
            raise RuntimeError("can't start new thread")
        start(self)

    async def work(late: Store) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", scarce)
            await refused(late.write(pair("lost"), durable=durable), "gets no thread .* have more")
        await late.write(pair("after"), durable=durable)

    store.close()
    with Store(store.path) as late:
        run(work(late))
        assert kept(store.path) == ["after"]


def test_without_a_thread_for_the_log_what_is_committed_is_told(
    *,
    durable: bool,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = threading.Thread.start

    def scarce(self: threading.Thread) -> None:
        if self.name == "droveway-checkpoints":
            raise RuntimeError("can't start new thread")
        start(self)

    async def work(late: Store) -> None:
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", scarce)
            assert await late.write(pair("first"), durable=durable) == "first"
        await late.write(pair("second"), durable=durable)
        async with asyncio.timeout(SECONDS):
            while b"second" not in late.path.read_bytes():
                await asyncio.sleep(0.01)

    store.close()
    with Store(store.path) as late:
        run(work(late))
        assert kept(store.path) == ["first", "second"]


@pytest.mark.parametrize("how", ["closed", "stuck"])
def test_a_connection_that_is_broken_is_made_anew(*, durable: bool, how: str, store: Store) -> None:
    """ours: whatever broke it; a stuck one can neither commit nor go back."""

    def spoil(db: Connection) -> None:
        pair("lost")(db)
        if how == "closed":
            db._driver.close()
        else:
            db._driver.authorizer = lambda *_: apsw.SQLITE_DENY

    async def work() -> None:
        await store.write(pair("before"), durable=durable)
        with pytest.raises(StoreUnavailableError if how == "closed" else apsw.AuthError):
            await store.write(spoil, durable=durable)
        await store.write(pair("after"), durable=durable)

    run(work())
    assert kept(store.path) == ["before", "after"]
