"""Epochs: the holds of a process that is gone are given back, those of one that lives are not."""

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

from books import AT, SECONDS, captured, funded, released, states, taken, totals, usd
from droveway.errors import SettingsError, StoreUnavailableError
from droveway.ledger import Account, Book, Epoch, faults
from droveway.ledger.holds import note_progress
from droveway.money import Money
from droveway.storage import Store
from lab import run

OPEN = "SELECT id FROM epoch WHERE ended_at_us IS NULL AND id <> 'epoch-of-the-test' ORDER BY id"


@pytest.fixture
def acme(store: Store) -> Account:
    return run(funded(store, "1000"))


def files(store: Store) -> list[str]:
    return sorted(each.name for each in store.path.parent.glob("*-epoch-*"))


def open_files() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def begin(store: Store) -> Epoch:
    return run(Epoch.begin(store, at=AT))


# One process, as if it were several: a lock is the file's that was opened, not the process's.


def die(epoch: Epoch) -> None:
    """What the kernel does when a process is gone."""
    os.close(epoch._lock)


def test_an_epoch_has_a_row_and_a_locked_file_until_it_ends(store: Store) -> None:
    epoch = begin(store)
    assert store.read(OPEN) == [(epoch.id,)]
    assert files(store) == [f"a.db-{epoch.id}"]
    assert (store.path.parent / files(store)[0]).stat().st_mode & 0o777 == 0o600
    run(epoch.end(at=AT))
    assert store.read(OPEN) == []
    assert files(store) == []


def test_the_end_gives_back_what_is_still_held(store: Store, book: Book, acme: Account) -> None:
    one, other = begin(store), begin(store)
    for n in range(3):
        run(taken(store, f"{n}", usd("10"), account=acme, epoch_id=one.id))
    run(taken(store, "other", usd("5"), account=acme, epoch_id=other.id))
    run(captured(store, "0", usd("1")))
    run(one.end(at=AT))
    assert states(store) == {"0": "captured", "1": "resolved", "2": "resolved", "other": "held"}
    assert book.show("acme").held == usd("5")
    run(other.end(at=AT))
    assert book.show("acme").available == usd("999")


def test_holds_of_the_dead_are_resolved_and_only_theirs(
    store: Store, book: Book, acme: Account
) -> None:
    dead, alive = begin(store), begin(store)
    for epoch, name in ((dead, "dead"), (alive, "alive")):
        run(taken(store, name, usd("10"), account=acme, epoch_id=epoch.id))
    die(dead)
    third = begin(store)
    assert states(store) == {"dead": "resolved", "alive": "held"}
    assert [epoch_id for (epoch_id,) in store.read(OPEN)] == sorted((alive.id, third.id))
    assert f"a.db-{dead.id}" not in files(store)
    # Nobody is charged for what nobody got; who comes later changes nothing.
    assert run(captured(store, "dead", usd("1"))) is None
    assert not run(released(store, "dead"))
    assert run(third.resolve_the_dead(at=AT)) == 0
    assert book.show("acme").held == usd("10")
    run(alive.end(at=AT))
    run(third.end(at=AT))


def test_what_the_dead_had_written_down_is_charged_within_what_they_held(
    store: Store, book: Book, acme: Account
) -> None:
    """Spec: it was delivered, so it is paid for; what was not delivered is given back."""
    dead = begin(store)
    for name, progress in (("none", "0"), ("some", "2.5"), ("all", "10"), ("more", "70")):
        run(taken(store, name, usd("10"), account=acme, epoch_id=dead.id))
        # The last word counts, whatever was written down before.
        for cost in (usd("1"), usd(progress)):
            assert run(store.write(partial(note_progress, hold_id=name, cost=cost)))
    die(dead)
    run(begin(store).end(at=AT))
    assert set(states(store).values()) == {"resolved"}
    assert dict(store.read("SELECT id, charged_nano FROM hold")) == {
        "none": None,
        "some": usd("2.5").nano,
        "all": usd("10").nano,
        "more": usd("10").nano,
    }
    assert (book.show("acme").held, book.show("acme").posted) == (usd("0"), usd("977.5"))
    # Nobody writes anything down for what has ended.
    assert not run(store.write(partial(note_progress, hold_id="some", cost=usd("9"))))
    assert ("loss", usd("0")) in totals(store).items()


def test_a_lock_whose_file_is_gone_is_free(store: Store, acme: Account) -> None:
    """Ours: a backup is restored without the files beside it."""
    dead = begin(store)
    run(taken(store, "a", usd("1"), account=acme, epoch_id=dead.id))
    die(dead)
    (store.path.parent / files(store)[0]).unlink()
    run(begin(store).end(at=AT))
    assert states(store) == {"a": "resolved"}
    assert files(store) == []


def test_two_that_start_at_once_resolve_once(store: Store, book: Book, acme: Account) -> None:
    dead = begin(store)
    for n in range(20):
        run(taken(store, f"{n}", usd("1"), account=acme, epoch_id=dead.id))
    die(dead)
    one, other = begin(store), begin(store)
    assert book.show("acme").held == usd("0")
    for epoch in (one, other):
        run(epoch.end(at=AT))


def test_an_epoch_that_cannot_begin_leaves_its_lock(
    store: Store, acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = begin(store)
    run(taken(store, "a", usd("1"), account=acme, epoch_id=dead.id))
    die(dead)

    async def failing(*_: object, **__: object) -> None:
        raise StoreUnavailableError("the disk is full")

    descriptors = open_files()
    with monkeypatch.context() as patched:
        patched.setattr(Epoch, "resolve_the_dead", failing)
        with pytest.raises(StoreUnavailableError):
            begin(store)
    assert open_files() == descriptors
    assert states(store) == {"a": "held"}
    run(begin(store).end(at=AT))
    assert states(store) == {"a": "resolved"}
    assert store.read(OPEN) == []


def test_a_folder_that_takes_no_file_is_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.open", refused)
    with pytest.raises(SettingsError, match="make its folder writable"):
        begin(store)


def test_a_disk_that_knows_no_locks_is_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", refused)
    with pytest.raises(SettingsError, match="keep the store on a local disk"):
        begin(store)
    assert store.read(OPEN) == []


# Real processes that are killed.

CASHIER = """
import asyncio, sys
from functools import partial
from pathlib import Path
from droveway.clock import SystemClock
from droveway.ledger import Book, Epoch
from droveway.ledger.holds import capture, note_progress, release, take
from droveway.money import Money
from droveway.storage import Store

def usd(nano):
    return Money(nano, "USD")

async def work(store, name, count):
    at = SystemClock().now
    epoch = await Epoch.begin(store, at=at())
    book = Book(store)
    account = book.show("acme").id
    print("epoch", epoch.id, flush=True)
    for n in range(count):
        topup = await book.top_up(account, usd(1_000 + n), reference=f"{name}-{n}")
        print("topup", topup.reference, 1_000 + n, flush=True)
        await store.write(partial(
            take, hold_id=f"{name}-{n}", amount=usd(500), account_id=account, epoch_id=epoch.id,
            at=at()))
        print("held", f"{name}-{n}", 500, flush=True)
        if n % 3 == 0:
            await store.write(partial(capture, hold_id=f"{name}-{n}", cost=usd(n), at=at()))
            print("captured", f"{name}-{n}", n, flush=True)
        elif n % 3 == 1:
            await store.write(partial(release, hold_id=f"{name}-{n}", at=at()))
            print("released", f"{name}-{n}", 0, flush=True)
        else:
            await store.write(partial(note_progress, hold_id=f"{name}-{n}", cost=usd(300 * n)))
            print("noted", f"{name}-{n}", 300 * n, flush=True)
    await asyncio.Event().wait()

with Store(Path(sys.argv[1])) as store:
    asyncio.run(work(store, sys.argv[2], int(sys.argv[3])))
"""


class Cashier:
    """A process that books, holds and settles, and says what it was told is done."""

    def __init__(self, store: Store, name: str, *, count: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CASHIER, str(store.path), name, str(count)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.epoch_id = ""
        self.told: list[tuple[str, str, int]] = []

    def line(self) -> bool:
        """Read one more line; False where there is none."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            return False
        what, *rest = line.split()
        if what == "epoch":
            self.epoch_id = rest[0]
        else:
            self.told.append((what, rest[0], int(rest[1])))
        return True

    def lines(self, count: int) -> None:
        for _ in range(count):
            assert self.line()

    def kill(self) -> None:
        """End it, wherever it is."""
        self.process.send_signal(signal.SIGKILL)
        while self.line():
            pass
        assert self.process.wait(SECONDS) == -signal.SIGKILL


@contextmanager
def cashier(store: Store, name: str, *, count: int = 1_000_000) -> Iterator[Cashier]:
    made = Cashier(store, name, count=count)
    try:
        yield made
    finally:
        made.process.kill()
        made.process.wait(SECONDS)
        assert made.process.stdout is not None
        made.process.stdout.close()


def test_what_a_killed_process_held_is_given_back_by_the_next_that_starts(
    store: Store, book: Book, acme: Account
) -> None:
    with cashier(store, "one", count=6) as one, cashier(store, "other", count=3) as other:
        one.lines(1 + 6 * 3)
        other.lines(1 + 3 * 3)
        mine = begin(store)
        run(taken(store, "mine", usd("1"), account=acme, epoch_id=mine.id))
        held = {"one-2", "one-5", "other-2", "mine"}
        assert {name for name, state in states(store).items() if state == "held"} == held
        one.kill()
        # Whoever is there already does not look; a command neither.
        Book(store).show("acme")
        assert states(store)["one-2"] == "held"
        next_one = begin(store)
        assert {name for name, state in states(store).items() if state == "resolved"} == {
            "one-2",
            "one-5",
        }
        assert states(store)["other-2"] == states(store)["mine"] == "held"
        assert book.show("acme").held == usd("1") + Money(500, "USD")
        other.kill()
        assert run(next_one.resolve_the_dead(at=AT)) == 1
        assert states(store)["other-2"] == "resolved"
        assert states(store)["mine"] == "held"
    # What they had written down is charged, and never more than was held.
    charged = "SELECT id, charged_nano FROM hold WHERE state = 'resolved' ORDER BY id"
    assert store.read(charged) == [("one-2", 500), ("one-5", 500), ("other-2", 500)]
    for epoch in (mine, next_one):
        run(epoch.end(at=AT))
    assert book.show("acme").held == usd("0")
    assert files(store) == []


def check_what_was_told(store: Store, told: list[tuple[str, str, int]]) -> None:
    """Nothing that was acknowledged is missing, and nothing is there twice."""
    topups = dict(
        store.read(
            "SELECT reference, amount_nano FROM transfer JOIN entry ON transfer_id = transfer.id "
            "WHERE kind = 'topup' AND amount_nano > 0"
        )
    )
    holds = {each: rest for each, *rest in store.read("SELECT id, state, charged_nano FROM hold")}
    for what, name, nano in told:
        if what == "topup":
            assert topups[name] == nano
        elif what == "noted":
            assert holds[name] == ["resolved", min(nano, 500)]
        elif what == "held":
            assert name in holds
        else:
            assert holds[name] == [what, nano if what == "captured" else None]


ROUNDS = 7


# 21 kills, and with the long ones 1,050.
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(1, 50))]
)
def test_killed_at_any_instruction_nothing_acknowledged_is_lost(
    seed: int, store: Store, acme: Account
) -> None:
    """Spec: three processes each round; while one is killed, the others go on."""
    chance = random.Random(seed)
    told: list[tuple[str, str, int]] = []
    for number in range(ROUNDS):
        with ExitStack() as stack:
            cashiers = [stack.enter_context(cashier(store, f"{number}.{n}")) for n in range(3)]
            for each in cashiers:
                each.lines(1)
            for n, each in enumerate(cashiers):
                each.lines(chance.randrange(1, 30))
                each.kill()
                told += each.told
                living = [other.epoch_id for other in cashiers[n + 1 :]]
                run(begin(store).end(at=AT))
                ((stolen,),) = store.read(
                    "SELECT count(*) FROM hold WHERE state = 'resolved' AND epoch_id IN (?, ?)",
                    [*living, "", ""][:2],
                )
                assert stolen == 0
                assert faults(store) == []
                open_ones = [epoch_id for (epoch_id,) in store.read(OPEN)]
                assert open_ones == sorted(living)
        check_what_was_told(store, told)
    assert len(told) >= ROUNDS * 3
    assert {what for what, _, _ in told} == {"topup", "held", "captured", "released", "noted"}
    assert Book(store).show("acme").held == usd("0")
    assert files(store) == []
