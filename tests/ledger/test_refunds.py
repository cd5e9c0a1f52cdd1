"""Money that goes back: what is unspent of a top-up, the way it came, and never more."""

import asyncio
from datetime import date
from functools import partial
from typing import Any, Final

import pytest

from books import AT, captured, granted, released, shown, taken, totals, usd
from droveway.clock import StillClock
from droveway.errors import BadRequestError
from droveway.ledger import Account, Book, Rate, Refund
from droveway.ledger.topups import refund, unspent
from droveway.money import NANO_MAX, Money
from droveway.storage import Store
from lab import run

ON: Final = date(2026, 11, 1)
TOPUPS = "SELECT * FROM topup"


@pytest.fixture
def acme(book: Book) -> Account:
    return run(book.open("acme"))


def pay_in(store: Store, *amounts: str, rate: Rate | None = None, currency: str = "USD") -> None:
    """Top-ups a, b, c, … one after the other."""
    book = Book(store, clock=(clock := StillClock(AT)))

    async def work() -> None:
        for name, amount in zip("abcdef", amounts, strict=False):
            await clock.advance(1)
            paid = Money.parse(amount, currency)
            await book.top_up("acme", paid, reference=name, rate=rate)

    run(work())


async def pay_out(
    store: Store, topup: str, paid: str | None = None, *, reference: str, currency: str = "USD"
) -> Refund:
    """Refund a part of a top-up, or all that is unspent of it."""
    amount = None if paid is None else Money.parse(paid, currency)
    work = partial(refund, topup_reference=topup, paid=amount, reference=reference, at=AT)
    return await store.write(work)


def refused(store: Store, topup: str, paid: str | None = None, *, said: str) -> None:
    before = (shown(store), store.read(TOPUPS))
    with pytest.raises(BadRequestError, match=said):
        run(pay_out(store, topup, paid, reference="refused"))
    assert (shown(store), store.read(TOPUPS)) == before


def use(store: Store, cost: str, *, account: Account) -> None:
    run(taken(store, f"use-{cost}", usd(cost), account=account))
    run(captured(store, f"use-{cost}", usd(cost)))


def all_unspent(store: Store) -> list[str]:
    """What can be given back of each top-up, the oldest first."""
    book = Book(store)
    each = [run(store.write(partial(unspent, topup=topup))) for topup in book.topups("acme")]
    return [left.decimal(places_min=0) for left in each]


# What goes back.


def test_an_untouched_top_up_goes_back_whole(store: Store, book: Book, acme: Account) -> None:
    pay_in(store, "12.5")
    done = run(pay_out(store, "a", reference="r"))
    assert (done.amount, done.paid, done.again) == (usd("12.5"), usd("12.5"), False)
    assert (shown(store)[0], totals(store)["clearing"]) == ("0", usd("0"))
    (topup,) = book.topups("acme")
    assert (topup.refunded, topup.refunded_paid) == (usd("12.5"), usd("12.5"))
    entry = book.entries("acme")[-1]
    assert (entry.kind, entry.reference, entry.amount) == ("refund", "r", usd("-12.5"))
    assert entry.told == {"topup": topup.id, "paid": "12.50", "paid_currency": "USD"}
    refused(store, "a", said="nothing can be given back: it is spent, or held")


def test_parts_go_back_to_the_last_unit(store: Store, acme: Account) -> None:
    pay_in(store, "0.000000003")
    for name in ("one", "two", "three"):
        assert run(pay_out(store, "a", "0.000000001", reference=name)).amount.nano == 1
    refused(store, "a", said="nothing can be given back")
    assert shown(store)[0] == "0"


def test_the_oldest_money_is_spent_first(store: Store, acme: Account) -> None:
    pay_in(store, "10", "20", "30")
    told = [all_unspent(store)]
    for cost in ("4", "7", "25"):
        use(store, cost, account=acme)
        told.append(all_unspent(store))
    assert told == [["10", "20", "30"], ["6", "20", "30"], ["0", "19", "30"], ["0", "0", "24"]]
    refused(store, "b", said=r"of the top-up 'b' of 20\.00 USD nothing can be given back")
    refused(store, "c", "24.000000001", said=r"24\.00 USD is unspent, which is less than 24\.0000")
    assert run(pay_out(store, "c", reference="r")).paid == usd("24")


def test_what_went_back_of_one_leaves_the_others_as_they_were(store: Store, acme: Account) -> None:
    pay_in(store, "10", "20", "30")
    use(store, "4", account=acme)
    run(pay_out(store, "b", "15", reference="1"))
    assert all_unspent(store) == ["6", "5", "30"]
    run(pay_out(store, "c", reference="2"))
    assert all_unspent(store) == ["6", "5", "0"]
    use(store, "8", account=acme)
    assert all_unspent(store) == ["0", "3", "0"]


def test_what_is_held_does_not_go_back(store: Store, acme: Account) -> None:
    """Spec: a request that was agreed to is paid, whoever wants their money back."""
    pay_in(store, "10", "20")
    run(taken(store, "held", usd("22"), account=acme))
    assert all_unspent(store) == ["0", "8"]
    refused(store, "a", said="held for requests on their way")
    refused(store, "a", "0.01", said=r"0\.00 USD is unspent")
    refused(store, "b", "8.01", said=r"8\.00 USD is unspent")
    run(pay_out(store, "b", "8", reference="r"))
    assert shown(store) == ("22", "0", "22", "0")
    run(released(store, "held"))
    assert all_unspent(store) == ["10", "12"]


def test_credit_is_never_paid_out(store: Store, acme: Account) -> None:
    pay_in(store, "10")
    run(granted(store, usd("5"), account=acme))
    use(store, "3", account=acme)
    run(taken(store, "held", usd("4"), account=acme))
    # Credit pays first: 2 of it and 2 of the money are held.
    assert all_unspent(store) == ["8"]
    assert run(pay_out(store, "a", reference="r")).paid == usd("8")
    assert shown(store) == ("2", "2", "4", "0")
    run(released(store, "held"))
    run(pay_out(store, "a", reference="s"))
    refused(store, "a", said="nothing can be given back")
    assert shown(store) == ("0", "2", "0", "2")


def test_credit_does_not_stand_in_for_money_that_is_spent(store: Store, acme: Account) -> None:
    pay_in(store, "10")
    use(store, "6", account=acme)
    run(granted(store, usd("100"), account=acme))
    assert all_unspent(store) == ["4"]
    refused(store, "a", "4.000000001", said=r"4\.00 USD is unspent")


# Once.


def test_a_refund_is_made_once_for_each_reference(store: Store, acme: Account) -> None:
    pay_in(store, "10", "20")
    first = run(pay_out(store, "a", "3", reference=" r "))
    for paid in ("3", None):
        again = run(pay_out(store, " a ", paid, reference="r"))
        assert (again.again, again.id, again.amount, again.paid, again.reference) == (
            True, first.id, usd("3"), usd("3"), "r",
        )  # fmt: skip
    for topup, paid in (("a", "4"), ("b", "3"), ("b", None)):
        with pytest.raises(BadRequestError, match=r"'r' is that of a refund of 3\.00 USD already"):
            run(pay_out(store, topup, paid, reference="r"))
    assert shown(store)[0] == "27"
    # A top-up's own reference is free: each kind has its own.
    assert not run(pay_out(store, "a", "1", reference="a")).again


def test_fifty_at_once_are_made_once(store: Store, acme: Account) -> None:
    async def work() -> list[Refund]:
        return await asyncio.gather(*(pay_out(store, "a", reference="r") for _ in range(50)))

    pay_in(store, "10")
    done = run(work())
    assert sum(not each.again for each in done) == 1
    assert len({each.id for each in done}) == 1
    assert totals(store)["clearing"] == usd("0")


def test_of_fifty_parts_at_once_those_go_back_that_are_unspent(store: Store, acme: Account) -> None:
    async def work() -> list[Any]:
        each = (pay_out(store, "a", "1", reference=f"{n}") for n in range(50))
        return await asyncio.gather(*each, return_exceptions=True)

    pay_in(store, "10")
    run(taken(store, "held", usd("2.5"), account=acme))
    done = run(work())
    assert sum(type(each) is Refund for each in done) == 7
    assert sum(type(each) is BadRequestError for each in done) == 43
    assert shown(store) == ("3", "0", "2.5", "0.5")


def test_what_is_no_refund_is_refused(store: Store, acme: Account) -> None:
    pay_in(store, "10")
    refused(store, "never", said="there is no top-up with the reference 'never'")
    for paid in ("0", "-1"):
        refused(store, "a", paid, said="nothing can be given back")
    with pytest.raises(BadRequestError, match="came in USD, and goes back in it"):
        run(pay_out(store, "a", "1", reference="r", currency="CNY"))
    with pytest.raises(BadRequestError, match="is no reference"):
        run(pay_out(store, "a", "1", reference="a\nb"))


def test_what_went_back_may_come_in_again(store: Store, book: Book, acme: Account) -> None:
    """Ours: what can be counted is counted less what went back."""
    run(book.top_up("acme", Money(NANO_MAX, "USD"), reference="a"))
    run(pay_out(store, "a", reference="r"))
    run(book.top_up("acme", Money(NANO_MAX, "USD"), reference="b"))


# Converted money.


def test_converted_money_goes_back_by_the_rate_it_came_by(store: Store, acme: Account) -> None:
    rate = Rate("0.14", ON)
    pay_in(store, "100", rate=rate, currency="CNY")
    part = run(pay_out(store, "a", "0.05", reference="1", currency="CNY"))
    assert (part.amount, part.paid) == (usd("0.007"), Money.parse("0.05", "CNY"))
    use(store, "6.993", account=acme)
    rest = run(pay_out(store, "a", reference="2"))
    assert (rest.amount, rest.paid) == (usd("7"), Money.parse("50", "CNY"))
    assert (shown(store)[0], totals(store, "CNY")["clearing"]) == (
        "0",
        Money.parse("-49.95", "CNY"),
    )
    assert totals(store)["exchange"] == usd("-6.993")


def test_the_last_part_of_converted_money_takes_all_that_is_left(
    store: Store, acme: Account
) -> None:
    """Ours: each part is rounded up by itself, and the last one must not ask for more."""
    pay_in(store, "0.0000001", rate=Rate("7.3", ON), currency="CNY")
    taken_ = []
    for name, paid in (("1", "0.000000033"), ("2", "0.000000067")):
        done = run(pay_out(store, "a", paid, reference=name, currency="CNY"))
        taken_.append(done.amount.nano)
    assert taken_ == [241, 489]
    assert totals(store, "CNY")["clearing"] == totals(store, "CNY")["exchange"]
    assert shown(store)[0] == "0"
