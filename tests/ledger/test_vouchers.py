"""Vouchers: worth money, or credit, once; their codes are kept nowhere."""

import asyncio
import re
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import apsw
import pytest

from books import AT, DAY, captured, credits_left, funded, shown, swept, taken, totals, usd
from droveway.errors import BadRequestError
from droveway.ledger import Account, Book, Credit, TopUp, Voucher
from droveway.ledger.vouchers import COUNT_MAX, Terms, issue, redeem, vouchers
from droveway.money import NANO_MAX, Money
from droveway.storage import Store
from lab import run

MICROSECOND = timedelta(microseconds=1)
FIVE = Terms(amount=usd("5"))
GIFT = Terms(amount=usd("5"), credit_days=30)


@pytest.fixture
def acme(store: Store) -> Account:
    return run(funded(store, "10"))


def issued(store: Store, terms: Terms = FIVE, *, count: int = 1) -> list[tuple[Voucher, str]]:
    return run(store.write(partial(issue, terms=terms, count=count, at=AT)))


def code_of(store: Store, terms: Terms = FIVE) -> str:
    ((_, code),) = issued(store, terms)
    return code


async def redeemed(
    store: Store, code: str, name: str = "acme", *, at: datetime = AT
) -> TopUp | Credit:
    return await store.write(lambda db: redeem(db, name, code, at=at))


# Making.


def test_a_code_is_99_bits_of_chance_that_people_can_read(store: Store) -> None:
    made = issued(store, count=COUNT_MAX)
    codes = {code for _, code in made}
    assert len(codes) == len({voucher.id for voucher, _ in made}) == COUNT_MAX
    assert all(re.fullmatch(r"([2-9A-HJ-NP-Z]{5}-){3}[2-9A-HJ-NP-Z]{5}", code) for code in codes)
    assert len({sign for code in codes for sign in code if sign != "-"}) == 31
    assert all(code.startswith(f"{voucher.shown}-") for voucher, code in made)
    assert set(vouchers(store)) == {voucher for voucher, _ in made}


def test_only_a_digest_of_it_is_kept(store: Store) -> None:
    ((voucher, code),) = issued(store)
    kept = b"".join(each.read_bytes() for each in store.path.parent.glob("a.db*"))
    assert voucher.shown.encode() in kept
    assert code.encode() not in kept
    assert code.replace("-", "").encode() not in kept
    assert code[6:11].encode() not in kept


@pytest.mark.parametrize(
    ("terms", "count", "said"),
    [
        (Terms(amount=usd("0")), 1, "worth more than nothing"),
        (Terms(amount=usd("-1")), 1, "worth more than nothing"),
        (FIVE, 0, "make 1 to 1000 vouchers"),
        (FIVE, COUNT_MAX + 1, "make 1 to 1000 vouchers"),
        (Terms(amount=usd("5"), credit_days=0), 1, "between 1 and 36500"),
        (Terms(amount=usd("5"), credit_days=36_501), 1, "between 1 and 36500"),
        (Terms(amount=usd("5"), expires_at=AT), 1, "is gone already"),
    ],
)
def test_what_is_no_voucher_is_refused(terms: Terms, count: int, said: str, store: Store) -> None:  # noqa: PLR0917 - parameters
    with pytest.raises(BadRequestError, match=said):
        issued(store, terms, count=count)
    assert vouchers(store) == ()


# Redeeming.


def test_a_voucher_is_worth_money(store: Store, acme: Account) -> None:
    ((voucher, code),) = issued(store)
    topup = run(redeemed(store, code, at=AT + DAY))
    assert isinstance(topup, TopUp)
    assert (topup.source, topup.reference, topup.amount) == ("voucher", voucher.id, usd("5"))
    assert (shown(store), totals(store)["clearing"]) == (("15", "0", "0", "15"), usd("-15"))
    (kept,) = vouchers(store)
    assert (kept.account, kept.redeemed_at) == (acme.id, AT + DAY)
    assert Book(store).entries("acme")[-1].told == {"source": "voucher"}


def test_a_voucher_is_worth_credit_that_expires(store: Store, acme: Account) -> None:
    ((voucher, code),) = issued(store, GIFT)
    credit = run(redeemed(store, code, at=AT + DAY))
    assert isinstance(credit, Credit)
    assert (credit.reference, credit.expires_at) == (voucher.id, AT + 31 * DAY)
    assert shown(store) == ("10", "5", "0", "15")
    assert shown(store, at=AT + 31 * DAY - MICROSECOND)[1] == "5"
    assert shown(store, at=AT + 31 * DAY)[1] == "0"


@pytest.mark.parametrize("terms", [FIVE, GIFT], ids=["money", "credit"])
def test_the_same_account_is_told_the_same_again(terms: Terms, store: Store, acme: Account) -> None:
    code = code_of(store, Terms(**terms_of(terms), expires_at=AT + DAY))
    first = run(redeemed(store, code))
    kept = (shown(store), vouchers(store), store.read("SELECT * FROM entry"))
    # Also when it has expired by now: it was redeemed in time.
    for at in (AT, AT + 2 * DAY):
        again = run(redeemed(store, code, at=at))
        assert (first.again, again.again, again.id, again.amount) == (
            False,
            True,
            first.id,
            usd("5"),
        )
    assert (shown(store), vouchers(store), store.read("SELECT * FROM entry")) == kept


def terms_of(terms: Terms) -> dict[str, Any]:
    return {"amount": terms.amount, "credit_days": terms.credit_days}


def test_a_credit_that_is_spent_or_expired_is_not_given_again(store: Store, acme: Account) -> None:
    code = code_of(store, Terms(amount=usd("5"), credit_days=1))
    run(redeemed(store, code))
    run(taken(store, "a", usd("3"), account=acme))
    run(captured(store, "a", usd("3")))
    run(swept(store, AT + DAY))
    again = run(redeemed(store, code, at=AT + 2 * DAY))
    assert isinstance(again, Credit)
    assert (again.again, again.left, list(credits_left(store).values())) == (True, usd("0"), ["0"])
    assert shown(store) == ("10", "0", "0", "10")


def test_another_account_gets_nothing_of_it(store: Store, acme: Account) -> None:
    run(funded(store, "1", name="other"))
    code = code_of(store)
    run(redeemed(store, code))
    with pytest.raises(BadRequestError, match="was redeemed already") as refused:
        run(redeemed(store, code, "other"))
    assert "acme" not in str(refused.value)
    assert (shown(store)[0], shown(store, "other")[0]) == ("15", "1")


@pytest.mark.parametrize("terms", [FIVE, GIFT], ids=["money", "credit"])
def test_of_a_hundred_at_once_one_account_gets_it_once(
    terms: Terms, store: Store, acme: Account
) -> None:
    """Spec: through two stores on one file, for two accounts."""
    run(funded(store, "10", name="other"))
    code = code_of(store, terms)

    async def work(*stores: Store) -> list[Any]:
        each = (redeemed(stores[n % 2], code, ("acme", "other")[n // 2 % 2]) for n in range(100))
        return await asyncio.gather(*each, return_exceptions=True)

    with Store(store.path) as another:
        ended = run(work(store, another))
    booked = [each for each in ended if not isinstance(each, Exception)]
    assert sum(not each.again for each in booked) == 1
    assert len({each.id for each in booked}) == 1
    assert sum(type(each) is BadRequestError for each in ended) == 50 == len(booked)
    assert sorted((shown(store)[3], shown(store, "other")[3])) == ["10", "15"]


@pytest.mark.parametrize(
    "typed",
    [
        str.lower,
        lambda code: code.replace("-", ""),
        lambda code: code.replace("-", " "),
        lambda code: f"  {code}\n",
        lambda code: code.lower().replace("-", ""),
        "-".join,
    ],
)
def test_a_code_is_taken_as_people_type_it(typed: Any, store: Store, acme: Account) -> None:
    assert run(redeemed(store, typed(code_of(store)))).amount == usd("5")


@pytest.mark.parametrize(
    "typed",
    [
        lambda _: "",
        lambda _: "-",
        lambda code: code[:-1],
        lambda code: code + "2",
        lambda code: code[:5],
        lambda code: code + "\u00df" * 1_000,
        lambda code: code[::-1],
    ],
)
def test_what_is_no_code_is_refused(typed: Any, store: Store, acme: Account) -> None:
    with pytest.raises(BadRequestError, match="there is no voucher with this code"):
        run(redeemed(store, typed(code_of(store))))
    assert shown(store)[0] == "10"


def test_a_voucher_can_be_redeemed_until_it_expires(store: Store, acme: Account) -> None:
    made = issued(store, Terms(amount=usd("5"), expires_at=AT + DAY), count=2)
    (_, first), (late, second) = made
    run(redeemed(store, first, at=AT + DAY - MICROSECOND))
    with pytest.raises(BadRequestError, match=f"the voucher {late.shown}… has expired"):
        run(redeemed(store, second, at=AT + DAY))
    assert shown(store)[0] == "15"
    assert [each.account for each in vouchers(store) if each.id == late.id] == [None]


def test_a_voucher_in_another_currency_stays_good(store: Store, acme: Account) -> None:
    run(Book(store).open("cn", currency="CNY"))
    code = code_of(store)
    with pytest.raises(BadRequestError, match=r"is in USD, and the account 'cn' is in CNY"):
        run(redeemed(store, code, "cn"))
    run(redeemed(store, code))
    with pytest.raises(BadRequestError, match="there is no account 'nobody'"):
        run(redeemed(store, code, "nobody"))


@pytest.mark.parametrize("credit_days", [None, 1])
def test_a_voucher_that_cannot_be_counted_stays_good(
    credit_days: int | None, store: Store, book: Book
) -> None:
    """Ours: what refuses it takes the whole of its transaction back."""
    acme = run(book.open("acme"))
    worth = Money(NANO_MAX, "USD")
    code = code_of(store, Terms(amount=worth, credit_days=credit_days))
    run(book.top_up(acme.id, Money(1, "USD"), reference="one"))
    with pytest.raises(BadRequestError, match="more than the ledger can count"):
        run(redeemed(store, code))
    assert [each.account for each in vouchers(store)] == [None]


def test_where_the_guard_is_overlooked_the_table_redeems_once(store: Store, acme: Account) -> None:
    run(redeemed(store, code_of(store)))
    with pytest.raises(apsw.ConstraintError, match="a voucher is redeemed once"):
        run(store.write(lambda db: db.run("UPDATE voucher SET redeemed_at_us = 1")))
