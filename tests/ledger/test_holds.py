"""Holds: taken where they fit, ended exactly once, and paid by nobody twice."""

import asyncio
import subprocess
import sys
from typing import Any

import apsw
import pytest

from books import (
    AT,
    EPOCH,
    SECONDS,
    captured,
    extended,
    funded,
    released,
    states,
    taken,
    totals,
    usd,
)
from droveway.errors import BadRequestError, BalanceTooLowError, FrozenAccountError
from droveway.ledger import Account, Book, statements
from droveway.ledger.holds import Charged, capture, release, take
from droveway.money import Money
from droveway.storage import Connection, Store
from lab import run


@pytest.fixture
def acme(store: Store) -> Account:
    return run(funded(store, "10"))


def sums(book: Book, name: str = "acme") -> tuple[str, str, str]:
    account = book.show(name)
    return account.available.decimal(), account.held.decimal(), account.posted.decimal()


def charged(account: Account, paid: str, lost: str = "0") -> Charged:
    """What is told of a charge; the account is as it was funded."""
    return Charged(usd(paid), usd(lost), account.posted, account.id)


# Taking.


def test_a_hold_sets_aside_what_is_available(store: Store, book: Book, acme: Account) -> None:
    run(taken(store, "a", usd("4"), account=acme))
    assert sums(book) == ("6.00", "4.00", "10.00")
    run(taken(store, "b", usd("6"), account=acme))
    assert sums(book) == ("0.00", "10.00", "10.00")
    assert states(store) == {"a": "held", "b": "held"}


def test_what_does_not_fit_is_refused_and_changes_nothing(
    store: Store, book: Book, acme: Account
) -> None:
    run(taken(store, "a", usd("4"), account=acme))
    with pytest.raises(BalanceTooLowError) as refused:
        run(taken(store, "b", usd("6.000000001"), account=acme))
    assert (refused.value.status, refused.value.code) == (402, "insufficient_balance")
    assert (refused.value.available, refused.value.needed) == (usd("6"), usd("6.000000001"))
    assert "'acme' has 6.00 USD available (4.00 USD more is held" in str(refused.value)
    assert sums(book) == ("6.00", "4.00", "10.00")
    assert states(store) == {"a": "held"}


def test_nothing_is_held_for_a_frozen_account_and_what_is_held_ends(
    store: Store, book: Book, acme: Account
) -> None:
    run(taken(store, "a", usd("4"), account=acme))
    run(book.freeze("acme"))
    with pytest.raises(FrozenAccountError) as refused:
        run(taken(store, "b", usd("1"), account=acme))
    assert (refused.value.status, refused.value.code) == (403, "account_frozen")
    assert run(captured(store, "a", usd("3"))) == charged(acme, "3")
    run(book.top_up("acme", usd("1"), reference="wire-1"))
    run(book.thaw("acme"))
    run(taken(store, "b", usd("8"), account=acme))
    assert sums(book) == ("0.00", "8.00", "8.00")


def test_other_money_and_other_accounts_are_refused(
    store: Store, book: Book, acme: Account
) -> None:
    with pytest.raises(BadRequestError, match="is in USD, and this request would be billed in CNY"):
        run(taken(store, "a", Money(1, "CNY"), account=acme))
    with pytest.raises(BadRequestError, match="there is no account 'acct_x'"):
        run(taken(store, "a", usd("1"), account=Account(id="acct_x", **_fields(acme))))
    # Our own accounts are never held from, whatever they come to.
    run(taken(store, "b", usd("1"), account=acme))
    run(captured(store, "b", usd("1")))
    with pytest.raises(BadRequestError, match="there is no account ':revenue:USD'"):
        run(taken(store, "a", usd("1"), account=Account(id=":revenue:USD", **_fields(acme))))
    assert states(store) == {"b": "captured"}


def _fields(account: Account) -> dict[str, Any]:
    return {name: getattr(account, name) for name in account.__struct_fields__ if name != "id"}


def test_a_request_holds_once(store: Store, book: Book, acme: Account) -> None:
    run(taken(store, "a", usd("4"), account=acme))
    with pytest.raises(apsw.ConstraintError):
        run(taken(store, "a", usd("1"), account=acme))
    run(released(store, "a"))
    with pytest.raises(apsw.ConstraintError):
        run(taken(store, "a", usd("1"), account=acme))
    assert sums(book) == ("10.00", "0.00", "10.00")


def test_a_hold_of_nothing_costs_nothing(store: Store, book: Book, acme: Account) -> None:
    """Ours: a free model's request is held and settled like any other."""
    run(taken(store, "a", usd("0"), account=acme))
    assert run(captured(store, "a", usd("0"))) == charged(acme, "0")
    assert (sums(book), states(store)) == (("10.00", "0.00", "10.00"), {"a": "captured"})
    assert len(book.entries("acme")) == 1


async def outcomes(store: Store, account: Account, names: list[str]) -> list[Any]:
    each = (taken(store, name, usd("1"), account=account) for name in names)
    return await asyncio.gather(*each, return_exceptions=True)


def test_of_500_at_once_exactly_those_are_held_that_can_be_paid(
    store: Store, book: Book, acme: Account
) -> None:
    ended = run(outcomes(store, acme, [f"req_{n}" for n in range(500)]))
    assert ended.count(None) == 10
    assert sum(type(each) is BalanceTooLowError for each in ended) == 490
    assert sums(book) == ("0.00", "10.00", "10.00")


TAKE_MANY = """
import asyncio, sys
from datetime import UTC, datetime
from pathlib import Path
from droveway.errors import BalanceTooLowError
from droveway.ledger.holds import take
from droveway.money import Money
from droveway.storage import Store

async def one(store, hold_id):
    def work(db):
        account, least = db.rows("SELECT id, posted_nano - held_nano FROM account WHERE name = 'acme'")[0]
        assert least >= 0
        take(db, hold_id, Money.parse("1", "USD"), account_id=account, epoch_id=EPOCH,
             at=datetime(2026, 11, 23, tzinfo=UTC))
    try:
        await store.write(work)
    except BalanceTooLowError:
        return 0
    return 1

async def work(store, name):
    input()
    print(sum(await asyncio.gather(*(one(store, f"{name}-{n}") for n in range(250)))))

with Store(Path(sys.argv[1])) as store:
    asyncio.run(work(store, sys.argv[2]))
""".replace("EPOCH", repr(EPOCH))


def test_500_in_two_processes_hold_no_more_than_is_there(
    store: Store, book: Book, acme: Account
) -> None:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE_MANY, str(store.path), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for each in started:
        assert each.stdin is not None
        each.stdin.write("\n")
        each.stdin.flush()
    told = [int(each.communicate(timeout=SECONDS)[0]) for each in started]
    assert sum(told) == 10 == len(states(store))
    assert sums(book) == ("0.00", "10.00", "10.00")


# Extending.


def test_a_hold_grows_by_what_is_available(store: Store, book: Book, acme: Account) -> None:
    run(taken(store, "a", usd("4"), account=acme))
    assert run(extended(store, "a", usd("5"), account=acme))
    assert sums(book) == ("1.00", "9.00", "10.00")
    with pytest.raises(BalanceTooLowError) as refused:
        run(extended(store, "a", usd("1.5"), account=acme))
    assert (refused.value.available, refused.value.needed) == (usd("1"), usd("1.5"))
    assert sums(book) == ("1.00", "9.00", "10.00")
    assert run(captured(store, "a", usd("8"))) == charged(acme, "8")
    assert sums(book) == ("2.00", "0.00", "2.00")


def test_of_500_extensions_at_once_those_are_made_that_can_be_paid(
    store: Store, book: Book, acme: Account
) -> None:
    async def work() -> list[Any]:
        await taken(store, "a", usd("4"), account=acme)
        each = (extended(store, "a", usd("1"), account=acme) for _ in range(500))
        return await asyncio.gather(*each, return_exceptions=True)

    ended = run(work())
    assert ended.count(True) == 6
    assert sum(type(each) is BalanceTooLowError for each in ended) == 494
    assert sums(book) == ("0.00", "10.00", "10.00")


@pytest.mark.parametrize("end", ["capture", "release", "never"])
def test_what_has_ended_is_not_extended(
    end: str, *, store: Store, book: Book, acme: Account
) -> None:
    """Ours: an extension that comes after the end must not hold for ever."""
    run(taken(store, "a", usd("4"), account=acme))
    run(captured(store, "a", usd("0")) if end == "capture" else released(store, "a"))
    hold_id = "never" if end == "never" else "a"
    assert not run(extended(store, hold_id, usd("1"), account=acme))
    assert sums(book) == ("10.00", "0.00", "10.00")


def test_nobody_extends_anothers_hold(store: Store, book: Book, acme: Account) -> None:
    other = run(funded(store, "5", name="other"))
    run(taken(store, "a", usd("4"), account=acme))
    assert not run(extended(store, "a", usd("1"), account=other))
    assert (sums(book), sums(book, "other")) == (
        ("6.00", "4.00", "10.00"),
        ("5.00", "0.00", "5.00"),
    )


def test_a_frozen_accounts_hold_is_not_extended(store: Store, book: Book, acme: Account) -> None:
    run(taken(store, "a", usd("4"), account=acme))
    run(book.freeze("acme"))
    with pytest.raises(FrozenAccountError):
        run(extended(store, "a", usd("1"), account=acme))
    assert sums(book) == ("6.00", "4.00", "10.00")


# Ending.


def test_a_capture_charges_the_cost_and_gives_the_rest_back(
    store: Store, book: Book, acme: Account
) -> None:
    run(taken(store, "a", usd("4"), account=acme))
    assert run(captured(store, "a", usd("1.25"))) == charged(acme, "1.25")
    assert sums(book) == ("8.75", "0.00", "8.75")
    assert totals(store) == {"clearing": usd("-10"), "revenue": usd("1.25"), "loss": usd("0")}
    assert store.read("SELECT ended_at_us, charged_nano FROM hold") == [
        (1_795_435_200_000_000, usd("1.25").nano)
    ]


@pytest.mark.parametrize(
    ("cost", "paid", "lost"),
    [("4", "4", "0"), ("6", "6", "0"), ("7", "7", "0"), ("7.5", "7", "0.5"), ("40", "7", "33")],
)
def test_a_capture_above_the_hold_takes_what_is_available_and_the_rest_is_our_loss(
    cost: str, paid: str, lost: str, *, store: Store, book: Book, acme: Account
) -> None:
    run(taken(store, "other", usd("3"), account=acme))
    run(taken(store, "a", usd("4"), account=acme))
    assert run(captured(store, "a", usd(cost))) == charged(acme, paid, lost)
    account = book.show("acme")
    assert account.held == usd("3")
    assert account.posted == usd("10") - usd(paid)
    assert totals(store) == {
        "clearing": usd("-10"),
        "revenue": usd(cost),
        "loss": usd("0") - usd(lost),
    }
    assert store.read("SELECT sum(amount_nano) FROM entry") == [(0,)]


def test_where_nothing_is_left_the_whole_cost_is_our_loss(
    store: Store, book: Book, acme: Account
) -> None:
    run(taken(store, "other", usd("10"), account=acme))
    run(taken(store, "a", usd("0"), account=acme))
    assert run(captured(store, "a", usd("2"))) == charged(acme, "0", "2")
    assert sums(book) == ("0.00", "10.00", "10.00")
    assert [each.reference for each in book.entries("acme")] == ["first-of-acme"]


@pytest.mark.parametrize("first", ["capture", "release", "resolve"])
@pytest.mark.parametrize("second", ["capture", "release", "resolve"])
def test_whoever_comes_second_changes_nothing(
    first: str, second: str, *, store: Store, book: Book, acme: Account
) -> None:
    async def end(how: str) -> object:
        if how == "capture":
            return await captured(store, "a", usd("3"))
        return await released(store, "a", resolved=how == "resolve")

    run(taken(store, "other", usd("5"), account=acme))
    run(taken(store, "a", usd("4"), account=acme))
    assert run(end(first))
    kept = (sums(book), states(store), store.read("SELECT * FROM entry"))
    assert not run(end(second))
    assert (sums(book), states(store), store.read("SELECT * FROM entry")) == kept


def test_a_hundred_ends_at_once_are_one(store: Store, book: Book, acme: Account) -> None:
    async def work() -> list[Any]:
        await taken(store, "other", usd("5"), account=acme)
        await taken(store, "a", usd("4"), account=acme)
        ends: list[Any] = []
        for _ in range(50):
            ends += [released(store, "a"), captured(store, "a", usd("3"))]
        return await asyncio.gather(*ends)

    ended = run(work())
    assert sum(map(bool, ended)) == 1
    assert sums(book) == ("5.00", "5.00", "10.00")


def test_what_was_never_held_cannot_be_ended(store: Store, book: Book, acme: Account) -> None:
    assert run(captured(store, "never", usd("1"))) is None
    assert not run(released(store, "never"))
    assert sums(book) == ("10.00", "0.00", "10.00")


def test_a_settlement_is_whole_or_not_at_all(store: Store, book: Book, acme: Account) -> None:
    """Spec: what joins it in its transaction and fails takes it back with it."""

    def work(db: Connection) -> None:
        assert capture(db, "a", usd("3"), at=AT)
        raise ValueError("the journal's row does not fit")

    run(taken(store, "a", usd("4"), account=acme))
    with pytest.raises(ValueError, match="does not fit"):
        run(store.write(work))
    assert (sums(book), states(store)) == (("6.00", "4.00", "10.00"), {"a": "held"})
    assert len(book.entries("acme")) == 1


def test_a_cost_in_other_money_is_a_fault_of_ours_and_changes_nothing(
    store: Store, book: Book, acme: Account
) -> None:
    run(taken(store, "a", usd("4"), account=acme))
    for cost in (Money(1, "CNY"), Money(-1, "USD")):
        with pytest.raises(AssertionError):
            run(captured(store, "a", cost))
    assert (sums(book), states(store)) == (("6.00", "4.00", "10.00"), {"a": "held"})


# Where a guard is gone the next one holds.


def without(guard: str, sql: str) -> str:
    assert guard in sql
    return sql.replace(guard, "")


def test_without_the_guard_the_check_keeps_a_balance_above_zero(
    *, store: Store, book: Book, acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        statements,
        "SET_ASIDE",
        without("AND posted_nano + promo_nano - held_nano - ?1 >= ?4", statements.SET_ASIDE),
    )
    ended = run(outcomes(store, acme, [f"req_{n}" for n in range(50)]))
    assert ended.count(None) == 10
    assert sum(isinstance(each, apsw.ConstraintError) for each in ended) == 40
    assert sums(book) == ("0.00", "10.00", "10.00")


def test_without_the_guard_the_trigger_ends_a_hold_once(
    *, store: Store, book: Book, acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPEN_HOLD", "END_HOLD", "END_HOLD_FREE"):
        unguarded = without("AND state = 'held'", getattr(statements, name))
        monkeypatch.setattr(statements, name, unguarded)
    run(taken(store, "other", usd("5"), account=acme))
    run(taken(store, "a", usd("4"), account=acme))
    run(captured(store, "a", usd("3")))
    for again in (released(store, "a"), captured(store, "a", usd("3"))):
        with pytest.raises(apsw.ConstraintError, match="a hold ends once"):
            run(again)
    assert sums(book) == ("2.00", "5.00", "7.00")


def test_a_hold_of_less_than_nothing_is_refused(store: Store, acme: Account) -> None:
    run(taken(store, "other", usd("5"), account=acme))
    with pytest.raises(apsw.ConstraintError, match="CHECK"):
        run(taken(store, "a", Money(-1, "USD"), account=acme))
    assert states(store) == {"other": "held"}


def test_one_work_may_take_and_end_what_it_likes(store: Store, book: Book, acme: Account) -> None:
    """Ours: they are pieces of a transaction that others open and commit."""

    def work(db: Connection) -> None:
        for n in range(20):
            take(db, f"{n}", usd("1"), account_id=acme.id, epoch_id=EPOCH, at=AT)
            if n % 2:
                assert capture(db, f"{n}", usd("0.5"), at=AT)
            else:
                assert release(db, f"{n}", at=AT)

    run(store.write(work))
    assert sums(book) == ("5.00", "0.00", "5.00")
