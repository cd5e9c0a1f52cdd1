"""A low balance: told once, in the transaction of the charge that made it so."""

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
import pytest

from books import AT, EPOCH, funded, granted, shown, taken, usd
from droveway.ledger import Account, Book
from droveway.ledger.holds import capture, take
from droveway.ledger.low_balance import warn_if_low
from droveway.money import Money
from droveway.storage import Connection, Store
from lab import run

LOW: Final = usd("5")
NOTICES = "SELECT kind, about, body, made_at_us, due_at_us, tries, sent_at_us FROM notice"


@pytest.fixture
def acme(store: Store) -> Account:
    return run(funded(store, "10"))


class Charging:
    """Charges one account after the other, as a till does it."""

    def __init__(self, store: Store, account: Account) -> None:
        self.store = store
        self.account = account
        self.number = 0

    async def charge(
        self, cost: str, *, low: Money = LOW, hold: str | None = None, at: datetime = AT
    ) -> bool:
        """Hold, capture and tell, in one transaction; whether a notice was written."""
        self.number += 1
        name, amount = f"{self.account.id}-{self.number}", usd(hold or cost)

        def work(db: Connection) -> bool:
            take(db, name, amount, account_id=self.account.id, epoch_id=EPOCH, at=at)
            charged = capture(db, name, usd(cost), at=at)
            assert charged is not None
            return warn_if_low(db, charged, low, at=at)

        return await self.store.write(work)

    async def charges(self, *costs: str) -> list[bool]:
        return [await self.charge(cost) for cost in costs]


@pytest.fixture
def charging(store: Store, acme: Account) -> Charging:
    return Charging(store, acme)


def told(store: Store) -> list[str]:
    """What was available, by each notice."""
    rows = store.read(NOTICES)
    return [msgspec.json.decode(row[2])["data"]["available"] for row in rows]


def test_a_balance_that_falls_below_the_threshold_is_told(
    store: Store, acme: Account, charging: Charging
) -> None:
    run(taken(store, "held", usd("1"), account=acme))
    assert not run(charging.charge("5"))
    assert told(store) == []
    assert run(charging.charge("0.000000001"))
    ((kind, about, body, made, due, tries, sent),) = store.read(NOTICES)
    assert (kind, about, made, due, tries, sent) == (
        "balance.low",
        acme.id,
        1_795_435_200_000_000,
        1_795_435_200_000_000,
        0,
        None,
    )
    assert msgspec.json.decode(body) == {
        "type": "balance.low",
        "timestamp": "2026-11-23T12:00:00Z",
        "data": {
            "account": acme.id,
            "name": "acme",
            "available": "3.999999999",
            "threshold": "5.00",
            "currency": "USD",
        },
    }


@pytest.mark.parametrize(
    ("costs", "expected"),
    [
        (["5"], [False]),
        (["5.000000001"], [True]),
        (["6", "1", "1", "2"], [True, False, False, False]),
        (["4", "1", "0.5", "0.5"], [False, False, True, False]),
        (["10", "0"], [True, False]),
    ],
)
def test_it_is_told_once(costs: Sequence[str], expected: list[bool], charging: Charging) -> None:
    assert run(charging.charges(*costs)) == expected


def test_it_is_told_again_only_after_it_was_above(
    store: Store, book: Book, charging: Charging
) -> None:
    assert run(charging.charges("6", "1")) == [True, False]
    # 3 and 1.999999999 more are a nano-unit less than enough.
    run(book.top_up("acme", usd("1.999999999"), reference="a"))
    assert run(charging.charges("0.5", "0.1")) == [False, False]
    run(book.top_up("acme", usd("0.600000001"), reference="b"))
    assert shown(store)[3] == "5"
    assert run(charging.charges("0.000000001", "0.1")) == [True, False]
    run(book.top_up("acme", usd("100"), reference="c"))
    assert run(charging.charges("1", "99", "1", "1")) == [False, True, False, False]
    assert len(told(store)) == 3


def test_credit_counts_like_money(store: Store, acme: Account, charging: Charging) -> None:
    run(granted(store, usd("10"), account=acme))
    assert run(charging.charges("14", "1", "0.5")) == [False, False, True]
    assert told(store) == ["4.50"]


def test_an_account_that_was_always_low_is_told_at_its_first_charge(
    store: Store, book: Book
) -> None:
    small = run(funded(store, "2", name="small"))
    charging = Charging(store, small)
    assert run(charging.charges("0.5", "0.5")) == [True, False]
    # A threshold that was raised is told of like a balance that fell.
    other = Charging(store, run(funded(store, "20", name="other")))
    assert not run(other.charge("1"))
    assert run(other.charge("1", low=usd("50")))
    assert not run(other.charge("1", low=usd("50")))


def test_each_account_is_told_of(store: Store, charging: Charging) -> None:
    other = Charging(store, run(funded(store, "10", name="other")))
    assert run(charging.charge("6"))
    assert run(other.charge("7"))
    assert sorted(told(store)) == ["3.00", "4.00"]


def test_a_charge_that_could_not_be_paid_is_told_of(store: Store, charging: Charging) -> None:
    assert run(charging.charge("40", hold="1"))
    assert told(store) == ["0.00"]


def test_a_threshold_in_other_money_tells_nothing(store: Store, charging: Charging) -> None:
    assert not run(charging.charge("10", low=Money(10**18, "CNY")))
    assert told(store) == []


def test_a_charge_that_is_taken_back_leaves_no_notice(store: Store, charging: Charging) -> None:
    """Spec: the charge and the word of it are one; the next one tells it."""

    def work(db: Connection) -> None:
        take(db, "x", usd("6"), account_id=charging.account.id, epoch_id=EPOCH, at=AT)
        charged = capture(db, "x", usd("6"), at=AT)
        assert charged is not None
        assert warn_if_low(db, charged, LOW, at=AT)
        raise ValueError("the journal's row does not fit")

    with pytest.raises(ValueError, match="does not fit"):
        run(store.write(work))
    assert (told(store), shown(store)[0]) == ([], "10")
    assert run(charging.charge("6"))
    assert told(store) == ["4.00"]


def test_a_hundred_charges_at_once_are_told_of_once(store: Store, charging: Charging) -> None:
    async def work() -> list[Any]:
        return await asyncio.gather(*(charging.charge("0.1") for _ in range(100)))

    assert sum(run(work())) == 1
    assert told(store) == ["4.90"]


def test_the_moment_is_that_of_the_charge(store: Store, charging: Charging) -> None:
    later = AT + timedelta(days=3, microseconds=7)
    assert run(charging.charge("6", at=later))
    ((*_, body, made, due, _, _),) = store.read(NOTICES)
    assert msgspec.json.decode(body)["timestamp"] == "2026-11-26T12:00:00.000007Z"
    assert made == due == 1_795_435_200_000_000 + 3 * 86_400_000_000 + 7
