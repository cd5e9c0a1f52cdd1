"""Credit that expires: what is held still pays, what is free goes the moment it expires."""

from datetime import timedelta
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from books import (
    AT,
    DAY,
    EPOCH,
    captured,
    credit_of,
    credits_left,
    extended,
    funded,
    granted,
    released,
    shown,
    states,
    swept,
    taken,
    totals,
    usd,
)
from droveway.errors import BalanceTooLowError
from droveway.ledger import Account, Book, statements
from droveway.ledger.account import find_account
from droveway.ledger.book import open_account
from droveway.ledger.credits import grant, sweep
from droveway.ledger.holds import capture, take
from droveway.ledger.topups import Payment, top_up
from droveway.money import Money
from droveway.storage import Connection, Store
from lab import run

SOON, LATE = AT + DAY, AT + 2 * DAY
MICROSECOND = timedelta(microseconds=1)
EXPIRIES = "SELECT reference FROM transfer WHERE kind = 'expiry' ORDER BY at_us, reference"


@pytest.fixture
def acme(store: Store) -> Account:
    return run(funded(store, "10"))


@pytest.fixture
def bare(book: Book) -> Account:
    """An account without money."""
    return run(book.open("acme"))


def test_credit_is_there_until_the_moment_and_gone_from_it_on(store: Store, acme: Account) -> None:
    run(granted(store, usd("5"), account=acme))
    assert run(swept(store, SOON - MICROSECOND)) == 0
    assert shown(store, at=SOON - MICROSECOND) == ("10", "5", "0", "15")
    # It is gone for everybody who looks, swept or not.
    gone = ("10", "0", "0", "10")
    assert shown(store, at=SOON) == gone
    (listed,) = store.read(statements.CUSTOMERS, (0,))
    assert listed[4] == usd("5").nano
    assert run(swept(store, SOON)) == 1
    assert shown(store, at=AT) == gone == shown(store, at=SOON)
    assert run(swept(store, LATE)) == 0
    assert totals(store)["promotion"] == usd("0")
    assert [(each.kind, each.amount) for each in Book(store).entries("acme")][1:] == [
        ("grant", usd("5")),
        ("expiry", usd("-5")),
    ]


def test_what_is_held_still_pays_and_what_is_free_goes(store: Store, bare: Account) -> None:
    """Spec: a request that was agreed to is paid, and what it leaves goes when it has ended."""
    run(granted(store, usd("5"), account=bare))
    run(taken(store, "a", usd("3"), account=bare))
    assert shown(store, at=SOON) == ("0", "3", "3", "0")
    assert run(swept(store, SOON)) == 1
    assert (shown(store, at=SOON), credits_left(store)) == (("0", "3", "3", "0"), {"gift": "3"})
    assert run(swept(store, SOON)) == 0
    charged = run(captured(store, "a", usd("1"), at=LATE))
    assert charged is not None
    assert (charged.paid, charged.lost) == (usd("1"), usd("0"))
    # What it left is gone at once, and the next sweep books it.
    assert (shown(store, at=LATE), credits_left(store)) == (("0", "0", "0", "0"), {"gift": "2"})
    assert run(swept(store, LATE)) == 1
    assert credits_left(store) == {"gift": "0"}
    assert store.read(EXPIRIES) == [("crd_gift/0",), ("crd_gift/1",)]
    assert totals(store)["promotion"] == usd("-1")


def test_what_is_given_back_after_it_expired_is_gone(store: Store, bare: Account) -> None:
    run(granted(store, usd("5"), account=bare))
    run(taken(store, "a", usd("5"), account=bare))
    assert run(swept(store, SOON)) == 0
    run(released(store, "a", at=SOON))
    assert shown(store, at=SOON) == ("0", "0", "0", "0")
    with pytest.raises(BalanceTooLowError) as refused:
        run(taken(store, "b", usd("1"), account=bare, at=SOON))
    assert refused.value.available == usd("0")


def test_of_several_those_go_that_have_expired(store: Store, acme: Account) -> None:
    for name, until in (("soon", SOON), ("late", LATE), ("later", LATE + DAY)):
        run(granted(store, usd("2"), account=acme, until=until, reference=name))
    run(taken(store, "a", usd("13"), account=acme))
    assert run(swept(store, LATE)) == 1
    # 3 of 4 that have expired are free; those of the first go first.
    assert credits_left(store) == {"soon": "0", "late": "1", "later": "2"}
    assert shown(store, at=LATE) == ("10", "3", "13", "0")


def test_a_hold_is_not_taken_on_credit_that_has_expired(store: Store, acme: Account) -> None:
    run(granted(store, usd("5"), account=acme))
    with pytest.raises(BalanceTooLowError) as refused:
        run(taken(store, "a", usd("10.000000001"), account=acme, at=SOON))
    assert (refused.value.available, credits_left(store)) == (usd("10"), {"gift": "5"})
    assert store.read(EXPIRIES) == []
    run(taken(store, "a", usd("10"), account=acme, at=SOON))
    assert (shown(store, at=AT), credits_left(store)) == (("10", "0", "10", "0"), {"gift": "0"})
    assert store.read(EXPIRIES) == [("crd_gift/0",)]


def test_a_hold_does_not_grow_on_credit_that_has_expired(store: Store, bare: Account) -> None:
    run(granted(store, usd("5"), account=bare))
    run(taken(store, "a", usd("3"), account=bare))
    with pytest.raises(BalanceTooLowError) as refused:
        run(extended(store, "a", usd("1"), account=bare, at=SOON))
    assert refused.value.available == usd("0")
    assert run(extended(store, "a", usd("1"), account=bare, at=SOON - MICROSECOND))
    assert (shown(store, at=SOON), states(store)) == (("0", "4", "4", "0"), {"a": "held"})


def test_credit_that_was_given_after_another_expired_stays(store: Store, acme: Account) -> None:
    run(granted(store, usd("5"), account=acme))
    run(granted(store, usd("2"), account=acme, at=SOON, until=LATE, reference="new"))
    assert shown(store, at=SOON) == ("10", "2", "0", "12")
    run(taken(store, "a", usd("12"), account=acme, at=SOON))
    assert credits_left(store) == {"gift": "0", "new": "2"}


class History(NamedTuple):
    """What may have happened to an account: credits and days, holds and what they came to."""

    money: int
    credits: list[tuple[int, int]]
    holds: list[tuple[int, int | None]]

    def happen(self, db: Connection, number: int) -> str:
        """Let it happen to a new account, and return that."""
        name = open_account(db, f"{number}", currency="USD", at=AT)
        if self.money:
            top_up(db, name, Payment(Money(self.money, "USD"), name), at=AT)
        for n, (nano, days) in enumerate(self.credits):
            credit = credit_of(name, Money(nano, "USD"), f"{name}-{n}", until=AT + days * DAY)
            grant(db, credit, at=AT)
        for n, (nano, cost) in enumerate(self.holds):
            if nano <= find_account(db, name, at=AT).available.nano:
                hold, amount = f"{name}-{n}", Money(nano, "USD")
                take(db, hold, amount, account_id=name, epoch_id=EPOCH, at=AT)
                if cost is not None:
                    capture(db, hold, Money(cost, "USD"), at=AT)
        return name


HISTORIES = st.builds(
    History,
    st.integers(0, 12),
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 4)), max_size=4),
    st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 12)), max_size=4),
)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(HISTORIES, st.integers(0, 5))
def test_what_is_shown_is_what_a_sweep_would_leave(
    store: Store, history: History, day: int
) -> None:
    def work(db: Connection) -> None:
        at = AT + day * DAY
        name = history.happen(db, db.rows("SELECT count(*) FROM account")[0][0])
        before = find_account(db, name, at=at)
        assert before.posted + before.promo >= before.held
        sweep(db, at=at)
        # Nothing of it is expired any more, whenever it is looked at: now it is in the books.
        assert find_account(db, name, at=at) == before == find_account(db, name, at=AT)
        assert sweep(db, at=at) == 0

    run(store.write(work))
