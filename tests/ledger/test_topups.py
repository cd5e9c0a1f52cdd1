"""Money that comes in another currency: converted exactly, by the rate that was declared."""

from datetime import date
from decimal import Decimal
from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from books import shown, totals, usd
from droveway.errors import BadRequestError
from droveway.ledger import Account, Book, Rate
from droveway.money import NANO_MAX, Money
from droveway.storage import Store
from lab import run

ON: Final = date(2026, 11, 1)
SEVENTH: Final = Rate("0.14", ON)


def cny(text: str) -> Money:
    """An amount in CNY."""
    return Money.parse(text, "CNY")


@pytest.fixture
def acme(book: Book) -> Account:
    return run(book.open("acme"))


def exchanged(store: Store) -> dict[str, int]:
    """What our own accounts of money that came in come to."""
    return dict(
        store.read(
            "SELECT id, posted_nano FROM account WHERE kind IN ('clearing', 'exchange') ORDER BY id"
        )
    )


RATES = st.builds(
    lambda whole, places, digits: f"{whole}.{places % 10**digits:0{digits}d}",
    st.integers(0, 10_000),
    st.integers(1, 10**12),
    st.integers(1, 12),
)


@given(RATES, st.integers(1, 10**14))
def test_a_conversion_is_exact_and_rounded_once(rate: str, nano: int) -> None:
    """Spec: half to even, as Python rounds exact fractions."""
    converted = Rate(rate, ON).convert(Money(nano, "CNY"), "USD")
    assert converted == Money(round(Fraction(rate) * nano), "USD")
    assert abs(Decimal(rate) * nano - converted.nano) <= Decimal("0.5")


@pytest.mark.parametrize(
    ("rate", "paid", "amount"), [("0.5", 1, 0), ("0.5", 3, 2), ("0.5", 5, 2), ("1", 7, 7)]
)
def test_a_half_nano_unit_goes_to_the_even_one(rate: str, paid: int, amount: int) -> None:
    assert Rate(rate, ON).convert(Money(paid, "CNY"), "USD") == Money(amount, "USD")


def test_money_in_another_currency_goes_through_exchange(
    store: Store, book: Book, acme: Account
) -> None:
    topup = run(book.top_up("acme", cny("50.05"), reference="wire-1", rate=SEVENTH))
    assert (topup.amount, topup.paid, topup.rate) == (usd("7.007"), cny("50.05"), SEVENTH)
    assert (topup.refunded, topup.refunded_paid) == (usd("0"), cny("0"))
    assert book.topups("acme") == (topup,)
    assert shown(store)[0] == "7.007"
    assert exchanged(store) == {
        ":clearing:CNY": -50_050_000_000,
        ":exchange:CNY": 50_050_000_000,
        ":exchange:USD": -7_007_000_000,
    }
    (entry,) = book.entries("acme")
    assert entry.told == {
        "source": "manual",
        "paid": "50.05",
        "paid_currency": "CNY",
        "rate": "0.14",
        "rate_on": "2026-11-01",
    }


def test_money_in_the_accounts_own_currency_is_not_converted(
    store: Store, book: Book, acme: Account
) -> None:
    topup = run(book.top_up("acme", usd("5"), reference="wire-1", rate=SEVENTH))
    assert (topup.amount, topup.paid, topup.rate) == (usd("5"), usd("5"), None)
    assert totals(store)["clearing"] == usd("-5")


def test_the_rate_of_the_first_time_stays(book: Book, acme: Account) -> None:
    """Spec: a payment that is told again is not converted again, whatever is declared by then."""
    first = run(book.top_up("acme", cny("10"), reference="wire-1", rate=SEVENTH))
    later = Rate("0.15", date(2026, 12, 1))
    again = run(book.top_up("acme", cny("10"), reference="wire-1", rate=later))
    assert (again.again, again.id, again.amount, again.rate) == (
        True,
        first.id,
        usd("1.4"),
        SEVENTH,
    )
    assert run(book.top_up("acme", cny("10"), reference="wire-1")).again
    with pytest.raises(BadRequestError, match=r"that of a top-up of 10\.00 CNY"):
        run(book.top_up("acme", usd("1.4"), reference="wire-1"))
    assert run(book.top_up("acme", cny("10"), reference="wire-2", rate=later)).amount == usd("1.5")


def test_without_a_rate_nothing_is_booked(book: Book, acme: Account) -> None:
    with pytest.raises(BadRequestError, match="no rate for CNY is declared; set") as refused:
        run(book.top_up("acme", cny("10"), reference="wire-1"))
    assert "[billing.rates.CNY]" in str(refused.value)
    assert book.entries("acme") == ()


def test_less_than_the_smallest_amount_is_not_booked(book: Book, acme: Account) -> None:
    with pytest.raises(BadRequestError, match="less than the smallest amount of USD"):
        run(book.top_up("acme", Money(3, "CNY"), reference="wire-1", rate=SEVENTH))
    topup = run(book.top_up("acme", Money(4, "CNY"), reference="wire-1", rate=SEVENTH))
    assert topup.amount == Money(1, "USD")


@pytest.mark.parametrize("nano", [0, -1])
def test_nothing_is_not_converted(nano: int, book: Book, acme: Account) -> None:
    with pytest.raises(BadRequestError, match="more than nothing"):
        run(book.top_up("acme", Money(nano, "CNY"), reference="wire-1", rate=SEVENTH))


# What can be counted.

EVEN: Final = Rate("1", ON)


def refused(book: Book, paid: Money, *, rate: Rate | None = None, name: str = "acme") -> None:
    with pytest.raises(BadRequestError, match="more than the ledger can count"):
        run(book.top_up(name, paid, reference="one too many", rate=rate))


def test_what_converts_to_more_than_can_be_counted_is_refused(book: Book, acme: Account) -> None:
    refused(book, Money(NANO_MAX, "CNY"), rate=Rate("2", ON))
    refused(book, Money(NANO_MAX, "CNY"), rate=Rate("1.000000001", ON))
    assert book.entries("acme") == ()
    assert run(book.top_up("acme", Money(NANO_MAX, "CNY"), reference="all", rate=EVEN)).amount == (
        Money(NANO_MAX, "USD")
    )


@pytest.mark.parametrize("first", ["USD", "CNY"])
def test_own_and_converted_money_are_counted_together(
    first: str, book: Book, acme: Account
) -> None:
    """Ours: they meet in one account, whose balance is one number of 64 bits."""
    run(book.top_up("acme", Money(NANO_MAX - 1, first), reference="most", rate=EVEN))
    refused(book, Money(2, "USD"), rate=EVEN)
    refused(book, Money(2, "CNY"), rate=EVEN)
    second = "CNY" if first == "USD" else "USD"
    run(book.top_up("acme", Money(1, second), reference="rest", rate=EVEN))
    refused(book, Money(1, "USD"), rate=EVEN)
    refused(book, Money(1, "CNY"), rate=EVEN)
    assert book.show("acme").posted == Money(NANO_MAX, "USD")


def test_what_is_paid_is_counted_too(book: Book, acme: Account) -> None:
    half = NANO_MAX // 2 + 1
    rate = Rate("0.000001", ON)
    run(book.top_up("acme", Money(half, "CNY"), reference="half", rate=rate))
    refused(book, Money(half, "CNY"), rate=rate)
    run(book.open("cn", currency="CNY"))
    refused(book, Money(half, "CNY"), name="cn")


def test_money_may_be_exchanged_both_ways(store: Store, book: Book, acme: Account) -> None:
    run(book.open("cn", currency="CNY"))
    run(book.top_up("acme", cny("100"), reference="wire-1", rate=SEVENTH))
    run(book.top_up("cn", usd("20"), reference="wire-2", rate=Rate("7", ON)))
    assert (shown(store)[0], shown(store, "cn")[0]) == ("14", "140")
    assert exchanged(store) == {
        ":clearing:CNY": -100_000_000_000,
        ":clearing:USD": -20_000_000_000,
        ":exchange:CNY": -40_000_000_000,
        ":exchange:USD": 6_000_000_000,
    }
