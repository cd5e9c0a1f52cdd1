"""Accounts: opened once, topped up once for each reference, and never rewritten."""

import asyncio
import subprocess
import sys
from datetime import timedelta
from typing import Any

import apsw
import pytest

import droveway.ledger.book
from books import AT, SECONDS, captured, funded, taken, totals, usd
from droveway.clock import StillClock
from droveway.errors import BadRequestError
from droveway.ledger import Book, Entry, TopUp, statements
from droveway.ledger.postings import Leg, Transfer, post
from droveway.ledger.topups import top_up
from droveway.money import NANO_MAX, Money
from droveway.storage import Connection, Store
from lab import run

ADD_ENTRY = "INSERT INTO entry (transfer_id, account_id, fund, amount_nano)"

# Accounts.


def test_a_new_account_has_nothing(book: Book) -> None:
    account = run(book.open(" acme "))
    zero = Money.zero("USD")
    assert account.name == "acme"
    assert {account.posted, account.promo, account.held, account.available} == {zero}
    assert account.frozen_at is None
    assert book.show("acme") == book.show(account.id) == account
    assert book.list() == (account,)


def test_a_name_is_taken_once(book: Book) -> None:
    first = run(book.open("acme"))
    with pytest.raises(BadRequestError, match="there is an account 'acme' already"):
        run(book.open("acme", currency="CNY"))
    assert book.list() == (first,)


@pytest.mark.parametrize("name", ["", "  ", ":clearing:USD", "a\nb", "x" * 101, "\x00"])
def test_what_is_no_name_is_refused(name: str, book: Book) -> None:
    with pytest.raises(BadRequestError, match="no name for an account"):
        run(book.open(name))
    assert book.list() == ()


def test_an_id_comes_before_a_name(book: Book) -> None:
    """Ours: whoever names an account by another's id gets no money of it."""
    first = run(book.open("acme"))
    second = run(book.open(first.id))
    assert (second.name, second.id != first.id) == (first.id, True)
    assert book.show(first.id) == first


def test_our_own_accounts_are_not_the_customers(store: Store, book: Book) -> None:
    run(funded(store))
    assert [each.name for each in book.list()] == ["acme"]
    for name in (":clearing:USD", "nobody"):
        with pytest.raises(BadRequestError, match="there is no account"):
            book.show(name)
        with pytest.raises(BadRequestError, match="there is no account"):
            run(book.top_up(name, usd("1"), reference="a"))


def test_freezing_and_thawing_twice_is_freezing_and_thawing(store: Store) -> None:
    clock = StillClock()
    book = Book(store, clock=clock)
    run(book.open("acme"))
    at = clock.now()
    assert run(book.freeze("acme")).frozen_at == at
    run(clock.advance(60))
    assert run(book.freeze("acme")).frozen_at == at
    assert run(book.thaw("acme")).frozen_at is None
    assert run(book.thaw("acme")).frozen_at is None


# Top-ups.


def test_money_comes_in_from_clearing(store: Store, book: Book) -> None:
    account = run(funded(store, "12.345678901"))
    assert account.posted == account.available == usd("12.345678901")
    assert totals(store)["clearing"] == usd("-12.345678901")


def test_a_topup_is_booked_once_for_each_reference(store: Store) -> None:
    clock = StillClock()
    book = Book(store, clock=clock)
    run(book.open("acme"))
    first = run(book.top_up("acme", usd("5"), reference="wire-1"))
    assert not first.again
    run(clock.advance(60))
    second = run(book.top_up("acme", usd("5.00"), reference=" wire-1 "))
    assert second == TopUp(
        id=first.id,
        account=first.account,
        amount=usd("5"),
        reference="wire-1",
        at=first.at,
        paid=usd("5"),
        rate=None,
        source="manual",
        refunded=usd("0"),
        refunded_paid=usd("0"),
        again=True,
    )
    assert book.topups("acme") == (first,)
    assert book.show("acme").posted == usd("5")
    assert len(book.entries("acme")) == 1


@pytest.mark.parametrize(("name", "amount"), [("acme", "6"), ("other", "5"), ("other", "6")])
def test_a_reference_of_another_topup_is_refused(
    name: str, amount: str, *, store: Store, book: Book
) -> None:
    run(funded(store, "1"))
    run(funded(store, "1", name="other"))
    run(book.top_up("acme", usd("5"), reference="wire-1"))
    with pytest.raises(BadRequestError, match=r"'wire-1' is that of a top-up of 5\.00 USD"):
        run(book.top_up(name, usd(amount), reference="wire-1"))
    assert (book.show("acme").posted, book.show("other").posted) == (usd("6"), usd("1"))


@pytest.mark.parametrize("amount", [Money(0, "USD"), Money(-1, "USD"), Money(5, "CNY")])
def test_nothing_less_than_nothing_and_other_money_is_refused(amount: Money, book: Book) -> None:
    run(book.open("acme"))
    with pytest.raises(BadRequestError, match=r"more than nothing|no rate for CNY is declared"):
        run(book.top_up("acme", amount, reference="wire-1"))
    assert book.entries("acme") == ()


@pytest.mark.parametrize("reference", ["", " ", "a\nb", "x" * 101])
def test_what_is_no_reference_is_refused(reference: str, book: Book) -> None:
    run(book.open("acme"))
    with pytest.raises(BadRequestError, match=r"is no reference; write up to 100"):
        run(book.top_up("acme", usd("1"), reference=reference))


def test_more_than_can_be_counted_is_refused(book: Book) -> None:
    """Ours: SQLite would make a float of a sum beyond 64 bits."""
    run(book.open("acme"))
    run(book.open("other"))
    run(book.open("cn", currency="CNY"))
    run(book.top_up("acme", Money(NANO_MAX, "USD"), reference="all"))
    for name in ("acme", "other"):
        with pytest.raises(BadRequestError, match="more than the ledger can count"):
            run(book.top_up(name, Money(1, "USD"), reference="one"))
    assert run(book.top_up("cn", Money(NANO_MAX, "CNY"), reference="cn")).amount.nano == NANO_MAX
    # The first one is still known again.
    assert run(book.top_up("acme", Money(NANO_MAX, "USD"), reference="all")).again


def test_fifty_at_once_are_booked_once(store: Store, book: Book) -> None:
    run(book.open("acme"))

    async def work() -> list[TopUp]:
        each = (book.top_up("acme", usd("5"), reference="wire-1") for _ in range(50))
        return await asyncio.gather(*each)

    booked = run(work())
    assert sum(not each.again for each in booked) == 1
    assert len({each.id for each in booked}) == 1
    assert book.show("acme").posted == usd("5")


def test_where_the_reference_is_overlooked_the_table_refuses_it(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = f"{statements.TOPUP_BY_REFERENCE} AND 0"
    monkeypatch.setattr(statements, "TOPUP_BY_REFERENCE", known)
    run(book.open("acme"))
    run(book.top_up("acme", usd("5"), reference="wire-1"))
    with pytest.raises(apsw.ConstraintError, match=r"UNIQUE.*reference"):
        run(book.top_up("acme", usd("5"), reference="wire-1"))
    assert book.show("acme").posted == usd("5")


@pytest.mark.parametrize(
    ("nano", "currency"), [((5, -5), "CNY"), ((5, -4), "USD")], ids=["currency", "sum"]
)
def test_what_does_not_balance_is_never_posted(
    nano: tuple[int, int], currency: str, *, store: Store, book: Book
) -> None:
    """Ours: such a call is a fault of ours, and nothing of it stays."""
    account = run(book.open("acme"))
    legs = (
        Leg(account.id, Money(nano[0], "USD")),
        Leg(f":clearing:{currency}", Money(nano[1], currency)),
    )

    def work(db: Connection) -> None:
        post(db, Transfer("top_x", "topup", 0, "x"), legs)

    with pytest.raises(AssertionError):
        run(store.write(work))
    assert store.read("SELECT count(*) FROM transfer") == [(0,)]
    assert book.show("acme").posted == usd("0")


TOP_UP = """
import asyncio, sys
from pathlib import Path
from droveway.ledger import Book
from droveway.money import Money
from droveway.storage import Store

async def work(store):
    book = Book(store)
    input()
    for n in range(25):
        topup = await book.top_up("acme", Money.parse("5", "USD"), reference=f"wire-{n}")
        print(topup.reference, topup.again)

with Store(Path(sys.argv[1])) as store:
    asyncio.run(work(store))
"""


def test_two_processes_book_a_reference_once(store: Store, book: Book) -> None:
    run(book.open("acme"))
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TOP_UP, str(store.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for each in started:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    told = "".join(each.communicate(timeout=SECONDS)[0] for each in started).split("\n")
    assert [each.returncode for each in started] == [0, 0]
    assert sorted(line for line in told if line.endswith("False")) == sorted(
        f"wire-{n} False" for n in range(25)
    )
    assert sum(line.endswith("True") for line in told) == 25
    assert book.show("acme").posted == usd("125")


def test_a_topup_waits_for_the_disk(
    store: Store, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spec: money that came in outlives a loss of power; SQLite's FULL is 2, NORMAL is 1."""
    seen = []

    def noting(db: Connection, *what: Any, **when: Any) -> TopUp:
        seen.extend(db.rows("PRAGMA synchronous"))
        return top_up(db, *what, **when)

    monkeypatch.setattr(droveway.ledger.book, "top_up", noting)
    run(book.open("acme"))
    run(book.top_up("acme", usd("1"), reference="a"))
    assert seen == [(2,)]
    assert run(store.write(lambda db: db.rows("PRAGMA synchronous"))) == [(1,)]


# Statements.


def test_a_statement_is_what_moved_the_money_in_that_time(store: Store) -> None:
    clock = StillClock(AT)
    book = Book(store, clock=clock)

    async def work() -> None:
        account = await book.open("acme")
        await book.top_up("acme", usd("5"), reference="wire-1")
        await taken(store, "req_1", usd("2"), account=account)
        await captured(store, "req_1", usd("0.75"))
        await clock.advance(60)
        await book.top_up("acme", usd("1"), reference="wire-2")

    run(work())
    later = AT + timedelta(seconds=60)
    assert book.entries("acme") == (
        Entry(at=AT, kind="topup", reference="wire-1", fund="money", amount=usd("5"),
              told={"source": "manual"}),
        Entry(at=AT, kind="usage", reference="req_1", fund="money", amount=usd("-0.75")),
        Entry(at=later, kind="topup", reference="wire-2", fund="money", amount=usd("1"),
              told={"source": "manual"}),
    )  # fmt: skip
    assert [each.reference for each in book.entries("acme", since=later)] == ["wire-2"]
    assert [each.reference for each in book.entries("acme", until=later)] == ["wire-1", "req_1"]
    assert book.entries("acme", since=later, until=later) == ()


# What nobody rewrites.


@pytest.mark.parametrize(
    ("sql", "said"),
    [
        ("UPDATE entry SET amount_nano = 1", "entries are never changed"),
        ("UPDATE entry SET amount_nano = amount_nano", "entries are never changed"),
        ("DELETE FROM entry", "entries are never deleted"),
        ("UPDATE transfer SET reference = 'other'", "transfers are never changed"),
        ("DELETE FROM transfer", "transfers are never deleted"),
        ("UPDATE hold SET state = 'released', charged_nano = NULL", "a hold ends once"),
        ("DELETE FROM account", "FOREIGN KEY"),
        ("DELETE FROM epoch", "FOREIGN KEY"),
        ("UPDATE account SET posted_nano = 0, held_nano = 1 WHERE name = 'acme'", "CHECK"),
        ("UPDATE account SET posted_nano = -1, promo_nano = 1 WHERE name = 'acme'", "CHECK"),
        ("UPDATE account SET promo_nano = 1 WHERE id = ':revenue:USD'", "CHECK"),
        ("UPDATE account SET posted_nano = 1.5 WHERE name = 'acme'", "REAL"),
        ("UPDATE account SET held_nano = -1 WHERE name = 'acme'", "CHECK"),
        (f"{ADD_ENTRY} SELECT transfer_id, account_id, fund, 5 FROM entry", "UNIQUE"),
        (f"{ADD_ENTRY} SELECT id, 'acct_x', 'money', 5 FROM transfer", "FOREIGN KEY"),
    ],
)  # fmt: skip
def test_what_was_booked_is_never_rewritten(sql: str, said: str, store: Store) -> None:
    async def work() -> None:
        account = await funded(store)
        await taken(store, "req_1", usd("2"), account=account)
        await captured(store, "req_1", usd("1"))

    run(work())
    with pytest.raises(apsw.ConstraintError, match=said):
        run(store.write(lambda db: db.run(sql)))
