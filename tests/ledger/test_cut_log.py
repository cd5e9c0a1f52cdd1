"""The log of a ledger is cut anywhere: what is left is a moment that was, and no top-up is lost.

What can be shown here: which bytes of the log the store had asked to be put on the disk when it
acknowledged a top-up, and that those bytes alone are enough for it. Whether a disk does what it is
asked, no test can see. A loss of power is shown as a log that ends at some byte, or goes on with
zeros; not as pages that come in another order, which the checksums of the log are for.
"""

import asyncio
import random
import shutil
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Final

import apsw
import msgspec
import pytest

from books import usd
from droveway.chat import Usage
from droveway.clock import SystemClock
from droveway.engine.billing import billing_of
from droveway.engine.records import Row
from droveway.engine.settling import Bill, Bound
from droveway.engine.till import Till, Tills
from droveway.ledger import Book, Epoch, faults
from droveway.money import PICO_PER_NANO, Money
from droveway.settings import BillingSettings
from droveway.storage import Store
from lab import run

REQUESTS: Final = 300
TOP_UP_EVERY: Final = 10
# So many requests at once, now and then: several transfers are in one commit then.
AT_ONCE: Final = 4
HEADER: Final = 32
FRAME_HEADER: Final = 24
KINDS_OF_END: Final = ("nothing", "zeros")


class Watched(apsw.VFSFile):
    """A file that tells how long it was each time it was put on the disk."""

    def __init__(self, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""
        super().__init__("unix", name, flags)

    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        super().xSync(flags)
        Disk.synced[self.path] = self.xFileSize()


class Disk(apsw.VFS):
    """The system's own files, watched.

    Attributes:
        synced: How long each file was when it was last put on the disk.
    """

    synced: dict[str, int] = {}  # noqa: RUF012 - of all files, whoever opened them

    def __init__(self) -> None:
        super().__init__("watched", "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> Watched:  # noqa: N802 - SQLite's name
        return Watched(name, flags)


class Recorded:
    """A database and its log, as they lay on the disk while they were open.

    Attributes:
        database: The file without its log: it has the account and the first top-up.
        log: Every commit since.
        moved: What moved money, in order: kind and reference.
        acknowledged: Each top-up, and how much of the log was on the disk when it was told.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "copy.db"
        self.log = b""
        self.moved: list[tuple[str, str]] = []
        self.acknowledged: dict[str, int] = {}

    @cached_property
    def ends(self) -> list[int]:
        """Where the frames of the log end."""
        frame = FRAME_HEADER + int.from_bytes(self.log[8:12], "big")
        return list(range(HEADER + frame, len(self.log) + 1, frame))

    @cached_property
    def commits(self) -> list[int]:
        """Where those frames end that end a commit: they say how large the database is then."""
        frame = self.ends[0] - HEADER
        return [end for end in self.ends if any(self.log[end - frame + 4 : end - frame + 8])]

    def cut(self, offset: int, *, then: str) -> Store:
        """Open a copy whose log ends at an offset, or goes on with zeros."""
        path = self.folder / "cut.db"
        for old in self.folder.glob("cut.db*"):
            old.unlink()
        shutil.copy(self.database, path)
        rest = bytes(len(self.log) - offset) if then == "zeros" else b""
        path.with_name("cut.db-wal").write_bytes(self.log[:offset] + rest)
        return Store(path, create=False)


def moved(store: Store) -> list[tuple[str, str]]:
    return store.read(
        "SELECT kind, reference FROM transfer JOIN entry ON transfer_id = transfer.id "
        "GROUP BY transfer.id ORDER BY min(seq)"
    )


async def serve(till: Till, number: int, chance: random.Random) -> None:
    """One request, from its hold to its end."""
    name = f"req_{number}"
    bound = Bound(
        input_tokens=10,
        input_cost=usd("0.001"),
        estimated_cost=usd("0.001"),
        output_pico=1_000 * PICO_PER_NANO,
        output_cap=chance.randrange(1, 5_000),
        output_max=100_000,
    )
    hold = await till.hold(bound, request_id=name)
    cost = Money(chance.randrange(1, 2_000_000), "USD")
    usage = Usage(input=10, output=1)
    row = Row(
        id=name, at=SystemClock().now(), asked="m", outcome="completed", cost=cost, usage=usage
    )
    if number % 13:
        await till.settle(hold, Bill(cost=cost, usage=usage), row=row)
    else:
        await till.release(hold, row=msgspec.structs.replace(row, cost=None, usage=None))


async def record(folder: Path) -> Recorded:
    """Have a ledger used, and copy its files while they are open."""
    made, chance = Recorded(folder), random.Random(300)
    path = folder / "a.db"
    with Store(path) as store:
        account = await Book(store).open("acme")
        await Book(store).top_up("acme", usd("10"), reference="first")
    log = f"{path}-wal"
    # While somebody reads what was, nothing of the log is moved into the database.
    with Store(path) as store, closing(apsw.Connection(str(path))) as reader:
        reader.execute("BEGIN; SELECT count(*) FROM account").fetchall()
        before = path.read_bytes()
        clock = SystemClock()
        epoch = await Epoch.begin(store, at=clock.now())
        billing = billing_of(BillingSettings(enabled=True))
        till = Tills(store, epoch, billing=billing, clock=clock).of(account.id)
        for number in range(0, REQUESTS, AT_ONCE):
            several = range(number, min(number + AT_ONCE, REQUESTS))
            if number % 3:
                await asyncio.gather(*(serve(till, each, chance) for each in several))
            else:
                for each in several:
                    await serve(till, each, chance)
            if any(each % TOP_UP_EVERY == 0 for each in several):
                name = f"wire-{number}"
                await Book(store).top_up("acme", usd("1"), reference=name)
                made.acknowledged[name] = Disk.synced[log]
        shutil.copy(path, made.database)
        made.log = Path(log).read_bytes()
        made.moved = moved(store)
        assert made.database.read_bytes() == before, "all is in the log, and only there"
        await epoch.end(at=clock.now())
    return made


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    disk = Disk()
    try:
        made = run(record(tmp_path_factory.mktemp("log")))
    finally:
        disk.unregister()
        Disk.synced.clear()
    assert len(made.moved) == 1 + len(made.acknowledged) + sum(1 for n in range(REQUESTS) if n % 13)
    return made


def around(places: Sequence[int]) -> Iterator[int]:
    for place in places:
        yield from (place - 1, place, place + 1)


def offsets(made: Recorded, most: int) -> list[int]:
    """Where to cut: at both ends, around ends of frames and of commits, and anywhere."""
    chance = random.Random(most)
    whole = len(made.log)
    some = most // 8
    wanted = {0, whole, *around([HEADER])}
    wanted.update(around(chance.sample(made.commits, min(some, len(made.commits)))))
    wanted.update(around(chance.sample(made.ends, min(some, len(made.ends)))))
    while len(wanted) < most:
        wanted.add(chance.randrange(whole))
    return sorted(each for each in wanted if each <= whole)


@pytest.mark.parametrize("then", KINDS_OF_END)
@pytest.mark.parametrize("cuts", [75, pytest.param(1_000, marks=pytest.mark.long)])
def test_whatever_is_left_of_the_log_is_a_moment_that_was(
    recorded: Recorded, cuts: int, then: str
) -> None:
    shortest = 1
    for offset in offsets(recorded, cuts):
        with recorded.cut(offset, then=then) as store:
            assert faults(store) == [], offset
            left = moved(store)
            assert left == recorded.moved[: len(left)], offset
            assert len(left) >= shortest, "a longer log never knows less"
            ended = store.read("SELECT id FROM hold WHERE state <> 'held' ORDER BY id")
            assert ended == store.read("SELECT id FROM request ORDER BY id"), offset
        shortest = len(left)
        told = {name for kind, name in left if kind == "topup"}
        on_disk = {name for name, synced in recorded.acknowledged.items() if synced <= offset}
        assert told >= on_disk, offset
    assert shortest == len(recorded.moved), "with the whole log, everything is there"


@pytest.mark.parametrize("then", KINDS_OF_END)
def test_a_top_up_needs_no_more_than_was_on_the_disk_when_it_was_acknowledged(
    recorded: Recorded, then: str
) -> None:
    assert len(recorded.acknowledged) > REQUESTS // (2 * TOP_UP_EVERY)
    for name, synced in recorded.acknowledged.items():
        with recorded.cut(synced, then=then) as store:
            assert faults(store) == []
            assert moved(store)[-1] == ("topup", name), "and it is the last that was"
