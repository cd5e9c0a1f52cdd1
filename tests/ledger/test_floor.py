"""The floor: how far below zero an operator lets a balance fall, and not a nano-unit further."""

import asyncio
from functools import partial
from typing import Any, Final

import apsw
import pytest

from books import AT, DAY, captured, extended, funded, granted, released, shown, states, taken, usd
from droveway.errors import BalanceTooLowError, FrozenAccountError
from droveway.ledger import Account, Book
from droveway.ledger.holds import NO_FLOOR, Charged, extend
from droveway.storage import Connection, Store
from lab import run

FLOOR: Final = -5
FIVE_BELOW: Final = usd("-5").nano


@pytest.fixture
def acme(store: Store) -> Account:
    return run(funded(store, "10"))


def floor_of(store: Store) -> int:
    ((floor,),) = store.read("SELECT floor_nano FROM account WHERE name = 'acme'")
    return int(floor)


def test_a_hold_reaches_down_to_the_floor_and_no_further(store: Store, acme: Account) -> None:
    with pytest.raises(BalanceTooLowError) as refused:
        run(taken(store, "a", usd("15.000000001"), account=acme, floor_nano=FIVE_BELOW))
    assert (refused.value.available, floor_of(store)) == (usd("10"), 0)
    run(taken(store, "a", usd("15"), account=acme, floor_nano=FIVE_BELOW))
    assert shown(store) == ("10", "0", "15", "-5")
    for floor in (NO_FLOOR, FIVE_BELOW):
        with pytest.raises(BalanceTooLowError):
            run(taken(store, "b", usd("0.000000001"), account=acme, floor_nano=floor))
    assert run(captured(store, "a", usd("15"))) == Charged(usd("15"), usd("0"), usd("10"), acme.id)
    assert shown(store) == ("-5", "0", "0", "-5")


def test_a_floor_to_the_nano_unit(store: Store, acme: Account) -> None:
    run(taken(store, "a", usd("10"), account=acme))
    with pytest.raises(BalanceTooLowError):
        run(taken(store, "b", usd("0.000000006"), account=acme, floor_nano=FLOOR))
    run(taken(store, "b", usd("0.000000005"), account=acme, floor_nano=FLOOR))
    run(captured(store, "a", usd("10")))
    run(captured(store, "b", usd("100")))
    assert Book(store).show("acme").posted.nano == FLOOR


def test_without_a_floor_nobody_falls_below_zero(store: Store, acme: Account) -> None:
    run(taken(store, "a", usd("1"), account=acme))
    charged = run(captured(store, "a", usd("40")))
    assert charged is not None
    assert (charged.paid, charged.lost, floor_of(store)) == (usd("10"), usd("30"), 0)


@pytest.mark.parametrize(
    ("cost", "paid", "lost"), [("4", "4", "0"), ("12", "12", "0"), ("13", "12", "1")]
)
def test_a_cost_above_the_hold_takes_what_is_available_down_to_the_floor(
    cost: str, paid: str, lost: str, *, store: Store, acme: Account
) -> None:
    """Spec: what others hold is theirs; 10 less their 3, and 5 below."""
    run(taken(store, "other", usd("3"), account=acme))
    run(taken(store, "a", usd("4"), account=acme, floor_nano=FIVE_BELOW))
    charged = run(captured(store, "a", usd(cost)))
    assert charged == Charged(usd(paid), usd(lost), usd("10"), acme.id)
    assert Book(store).show("acme").posted == usd("10") - usd(paid)
    # The other one is paid in full, and not a unit more is there for it.
    charged = run(captured(store, "other", usd("100")))
    assert charged is not None
    left = usd("15") - usd(paid)
    assert charged.paid == left
    assert shown(store)[0] == "-5"


def test_of_a_hundred_at_once_those_are_held_that_end_above_the_floor(
    store: Store, acme: Account
) -> None:
    async def work() -> list[Any]:
        each = (
            taken(store, f"{n}", usd("1"), account=acme, floor_nano=FIVE_BELOW) for n in range(100)
        )
        return await asyncio.gather(*each, return_exceptions=True)

    ended = run(work())
    assert ended.count(None) == 15
    assert sum(type(each) is BalanceTooLowError for each in ended) == 85
    assert shown(store)[3] == "-5"


def test_a_hold_grows_down_to_the_floor(store: Store, acme: Account) -> None:
    run(taken(store, "a", usd("8"), account=acme))
    with pytest.raises(BalanceTooLowError):
        run(extended(store, "a", usd("7"), account=acme))

    async def grown(more: str) -> bool:
        deep = partial(extend, account_id=acme.id, at=AT, floor_nano=FIVE_BELOW)
        return await store.write(lambda db: deep(db, "a", usd(more)))

    with pytest.raises(BalanceTooLowError):
        run(grown("7.000000001"))
    assert run(grown("7"))
    assert (shown(store), states(store)) == (("10", "0", "15", "-5"), {"a": "held"})


def test_below_zero_only_what_has_a_floor_is_held(store: Store, acme: Account) -> None:
    run(taken(store, "a", usd("12"), account=acme, floor_nano=FIVE_BELOW))
    run(captured(store, "a", usd("12")))
    with pytest.raises(BalanceTooLowError) as refused:
        run(taken(store, "b", usd("0.000000001"), account=acme))
    assert refused.value.available == usd("-2")
    run(taken(store, "b", usd("3"), account=acme, floor_nano=FIVE_BELOW))
    run(released(store, "b"))
    run(Book(store).top_up("acme", usd("3"), reference="wire-1"))
    run(taken(store, "c", usd("1"), account=acme))
    assert shown(store) == ("1", "0", "1", "0")


def test_credit_pays_before_the_balance_falls_below_zero(store: Store, acme: Account) -> None:
    run(granted(store, usd("2"), account=acme))
    run(taken(store, "a", usd("17"), account=acme, floor_nano=FIVE_BELOW))
    # It is held, so it stays when it expires.
    assert shown(store, at=AT + DAY) == ("10", "2", "17", "-5")
    run(captured(store, "a", usd("17"), at=AT + DAY))
    assert shown(store, at=AT + DAY) == ("-5", "0", "0", "-5")


def test_credit_above_a_debt_is_credit(store: Store, acme: Account) -> None:
    run(taken(store, "a", usd("15"), account=acme, floor_nano=FIVE_BELOW))
    run(captured(store, "a", usd("15")))
    run(granted(store, usd("7"), account=acme))
    assert shown(store) == ("-5", "7", "0", "2")
    run(taken(store, "b", usd("2"), account=acme))
    run(captured(store, "b", usd("2")))
    assert shown(store) == ("-5", "5", "0", "0")


def test_a_frozen_account_has_no_floor(store: Store, acme: Account) -> None:
    run(Book(store).freeze("acme"))
    with pytest.raises(FrozenAccountError):
        run(taken(store, "a", usd("1"), account=acme, floor_nano=FIVE_BELOW))


def test_where_the_guard_is_overlooked_the_table_keeps_the_floor(
    store: Store, acme: Account
) -> None:
    run(taken(store, "a", usd("15"), account=acme, floor_nano=FIVE_BELOW))
    for change in ("held_nano = held_nano + 1", "posted_nano = posted_nano - 1"):
        with pytest.raises(apsw.ConstraintError, match="CHECK"):
            run(store.write(partial(_change, change=change)))


def _change(db: Connection, *, change: str) -> None:
    db.run(f"UPDATE account SET {change} WHERE name = 'acme'")
