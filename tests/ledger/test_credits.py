"""Promotional credit: spent before money, the first to expire first, and gone when it expires."""

from datetime import datetime, timedelta

import msgspec
import pytest

from books import AT, DAY, captured, credits_left, funded, granted, shown, taken, totals, usd
from droveway.errors import BadRequestError
from droveway.ledger import Account, Book
from droveway.money import NANO_MAX, Money
from droveway.storage import Store
from lab import run

SOON, LATE = AT + DAY, AT + 2 * DAY
MICROSECOND = timedelta(microseconds=1)


@pytest.fixture
def acme(store: Store) -> Account:
    return run(funded(store, "10"))


@pytest.fixture
def bare(book: Book) -> Account:
    """An account without money."""
    return run(book.open("acme"))


def used(store: Store) -> list[tuple[str, str]]:
    """What each request took, of which fund."""
    return [
        (each.fund, each.amount.decimal(places_min=0))
        for each in Book(store).entries("acme")
        if each.kind == "usage"
    ]


async def used_up(store: Store, cost: str, *, account: Account, at: datetime = AT) -> None:
    """A request from its hold to its end."""
    await taken(store, f"req-{cost}", usd(cost), account=account, at=at)
    await captured(store, f"req-{cost}", usd(cost), at=at)


# Giving.


def test_credit_is_there_at_once_and_comes_from_promotion(store: Store, acme: Account) -> None:
    credit = run(granted(store, usd("5"), account=acme))
    assert not credit.again
    assert shown(store) == ("10", "5", "0", "15")
    assert totals(store)["promotion"] == usd("-5")
    entry = Book(store).entries("acme")[-1]
    assert (entry.kind, entry.reference, entry.fund, entry.amount) == (
        "grant",
        "gift",
        "promo",
        usd("5"),
    )


def test_a_credit_is_given_once_for_each_reference(store: Store, acme: Account) -> None:
    first = run(granted(store, usd("5"), account=acme))
    run(used_up(store, "2", account=acme))
    again = run(granted(store, usd("5"), account=acme, at=LATE))
    assert again == msgspec.structs.replace(first, left=usd("3"), again=True)
    assert shown(store) == ("10", "3", "0", "13")


@pytest.mark.parametrize(("name", "amount"), [("acme", "6"), ("other", "5")])
def test_a_reference_of_another_credit_is_refused(
    name: str, amount: str, *, store: Store, acme: Account
) -> None:
    accounts = {"acme": acme, "other": run(funded(store, "1", name="other"))}
    run(granted(store, usd("5"), account=acme))
    with pytest.raises(BadRequestError, match=r"'gift' is that of a credit of 5\.00 USD"):
        run(granted(store, usd(amount), account=accounts[name]))
    assert (shown(store)[1], shown(store, "other")[1]) == ("5", "0")


@pytest.mark.parametrize(
    ("amount", "until", "said"),
    [
        ("0", SOON, "more than nothing"),
        ("-1", SOON, "more than nothing"),
        ("1", AT, "is gone already"),
        ("1", AT - MICROSECOND, "is gone already"),
    ],
)
def test_a_credit_of_nothing_or_of_the_past_is_refused(
    amount: str, until: datetime, *, said: str, store: Store, acme: Account
) -> None:
    with pytest.raises(BadRequestError, match=said):
        run(granted(store, usd(amount), account=acme, until=until))
    assert (credits_left(store), shown(store)) == ({}, ("10", "0", "0", "10"))


def test_credit_and_money_together_are_what_can_be_counted(store: Store, bare: Account) -> None:
    """Ours: SQLite would make a float of a sum beyond 64 bits."""
    book, most = Book(store), Money(NANO_MAX - 5, "USD")
    run(granted(store, most, account=bare))
    run(book.top_up("acme", Money(3, "USD"), reference="some"))
    for nano in (3, NANO_MAX):
        with pytest.raises(BadRequestError, match="more than the ledger can count"):
            run(granted(store, Money(nano, "USD"), account=bare, reference="more"))
        with pytest.raises(BadRequestError, match="more than the ledger can count"):
            run(book.top_up("acme", Money(nano, "USD"), reference="more"))
    run(granted(store, Money(2, "USD"), account=bare, reference="rest"))
    everything = Money(NANO_MAX, "USD")
    run(taken(store, "a", everything, account=bare))
    assert run(captured(store, "a", everything)) is not None
    assert shown(store) == ("0", "0", "0", "0")


# Spending.


def test_credit_is_spent_before_money(store: Store, acme: Account) -> None:
    run(granted(store, usd("5"), account=acme))
    run(used_up(store, "3", account=acme))
    assert shown(store) == ("10", "2", "0", "12")
    run(used_up(store, "4.5", account=acme))
    assert shown(store) == ("7.5", "0", "0", "7.5")
    assert used(store) == [("promo", "-3"), ("promo", "-2"), ("money", "-2.5")]
    run(used_up(store, "7.5", account=acme))
    assert used(store)[3:] == [("money", "-7.5")]


def test_what_expires_first_is_spent_first(store: Store, acme: Account) -> None:
    for name, until in (("late", LATE), ("twin-b", SOON), ("twin-a", SOON)):
        run(granted(store, usd("2"), account=acme, until=until, reference=name))
    seen = []
    for cost in ("1", "2.5", "1.5", "3"):
        run(used_up(store, cost, account=acme))
        seen.append(credits_left(store))
    assert seen == [
        {"late": "2", "twin-a": "1", "twin-b": "2"},
        {"late": "2", "twin-a": "0", "twin-b": "0.5"},
        {"late": "1", "twin-a": "0", "twin-b": "0"},
        {"late": "0", "twin-a": "0", "twin-b": "0"},
    ]
    assert shown(store) == ("8", "0", "0", "8")


def test_what_a_cost_took_beyond_credit_and_money_is_our_loss(store: Store, acme: Account) -> None:
    run(granted(store, usd("5"), account=acme))
    run(taken(store, "a", usd("1"), account=acme))
    charged = run(captured(store, "a", usd("20")))
    assert charged is not None
    assert (charged.paid, charged.lost, charged.balance) == (usd("15"), usd("5"), usd("15"))
    assert (shown(store), credits_left(store)) == (("0", "0", "0", "0"), {"gift": "0"})
