"""Budgets: counted to the nano-unit in their spells, whoever asks at once, from any process."""

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from books import AT, DAY, captured, extended, funded, released, shown, states, taken, usd
from droveway.errors import BadRequestError, LimitExceededError
from droveway.ledger import Account, Book, Budget, budgets
from droveway.ledger.budgets import PERIODS, Period, spells_of, starts_at, subjects_of
from droveway.ledger.holds import note_progress
from droveway.money import NANO_MAX, Money
from droveway.storage import Connection, Store
from lab import run

KEY, TAG = "key:key_1", "tag:team=x"
MIDNIGHT = datetime(2026, 11, 24, tzinfo=UTC)
BEFORE = MIDNIGHT - timedelta(microseconds=1)


@pytest.fixture
def acme(store: Store) -> Account:
    return run(funded(store, "1000"))


def bound(
    store: Store, amount: str, *, subject: str = KEY, period: Period = "day", at: datetime = AT
) -> Budget:
    """Set a budget, alone in its transaction."""
    return run(
        store.write(lambda db: budgets.set_budget(db, subject, usd(amount), period=period, at=at))
    )


def spell(store: Store, *, subject: str = KEY, at: datetime = AT) -> tuple[str, str, str]:
    """What of a budget is spent, held and left."""
    (one,) = (each for each in budgets.budgets(store, at=at) if each.subject == subject)
    return one.spent.decimal(), one.held.decimal(), one.left.decimal()


# Spells.


@pytest.mark.parametrize(
    ("period", "at", "start"),
    [
        ("day", "2026-11-23T00:00:00", "2026-11-23T00:00:00"),
        ("day", "2026-11-23T23:59:59.999999", "2026-11-23T00:00:00"),
        ("day", "2026-11-24T00:00:00", "2026-11-24T00:00:00"),
        ("week", "2026-11-23T00:00:00", "2026-11-23T00:00:00"),
        ("week", "2026-11-29T23:59:59.999999", "2026-11-23T00:00:00"),
        ("week", "2026-11-22T23:59:59.999999", "2026-11-16T00:00:00"),
        # 2026 has a week 53, which ends on a Sunday in January.
        ("week", "2027-01-03T12:00:00", "2026-12-28T00:00:00"),
        ("month", "2026-11-01T00:00:00", "2026-11-01T00:00:00"),
        ("month", "2026-11-30T23:59:59.999999", "2026-11-01T00:00:00"),
        ("month", "2028-02-29T12:00:00", "2028-02-01T00:00:00"),
        ("month", "2027-01-01T00:00:00", "2027-01-01T00:00:00"),
        ("total", "2026-11-23T12:00:00", "1970-01-01T00:00:00"),
    ],
)
def test_spells_are_days_weeks_and_months_of_utc(period: Period, at: str, start: str) -> None:
    moment = datetime.fromisoformat(at).replace(tzinfo=UTC)
    assert starts_at(period, moment) == datetime.fromisoformat(start).replace(tzinfo=UTC)


@pytest.mark.parametrize("period", PERIODS)
def test_a_new_spell_begins_with_nothing(period: Period, store: Store, acme: Account) -> None:
    last = datetime(2026, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC)  # a Sunday
    first = last + timedelta(microseconds=1)
    bound(store, "3", period=period)
    for name, at in (("a", last), ("b", first)):
        work = taken(store, name, usd("2"), account=acme, at=at, subjects=[KEY])
        if (name, period) == ("b", "total"):
            with pytest.raises(LimitExceededError, match=r"for good, has 1\.00 USD left"):
                run(work)
        else:
            run(work)
        assert spell(store, at=at) == ("0.00", "2.00", "1.00")


def test_a_request_counts_in_the_spell_in_which_it_began(store: Store, acme: Account) -> None:
    """Spec: begun before midnight and ended after it, it is yesterday's; so is what it grows by."""
    bound(store, "10")
    run(taken(store, "a", usd("4"), account=acme, at=BEFORE, subjects=[KEY]))
    assert run(extended(store, "a", usd("5"), account=acme, at=MIDNIGHT))
    with pytest.raises(LimitExceededError, match=r"for this day, has 1\.00 USD left"):
        run(extended(store, "a", usd("2"), account=acme, at=MIDNIGHT))
    assert spell(store, at=MIDNIGHT) == ("0.00", "0.00", "10.00")
    run(captured(store, "a", usd("7"), at=MIDNIGHT + DAY))
    assert spell(store, at=BEFORE) == ("7.00", "0.00", "3.00")
    assert spell(store, at=MIDNIGHT) == ("0.00", "0.00", "10.00")
    run(taken(store, "b", usd("10"), account=acme, at=MIDNIGHT, subjects=[KEY]))


# Taking and ending.


def test_a_hold_is_one_on_every_budget_that_it_counts_in(store: Store, acme: Account) -> None:
    subjects = subjects_of(acme.id, key_id="key_1", tags={"team": "x", "job": "y"})
    assert subjects == (f"account:{acme.id}", KEY, TAG, "tag:job=y")
    for subject in (*subjects[:3], "tag:team=z", "key:key_2"):
        bound(store, "10", subject=subject)
    bound(store, "20", subject=KEY, period="month")
    run(taken(store, "a", usd("4"), account=acme, subjects=subjects))
    run(taken(store, "b", usd("3"), account=acme, subjects=[TAG]))
    run(captured(store, "a", usd("1.5")))
    told = {(each.subject, each.period): each.left for each in budgets.budgets(store, at=AT)}
    assert told == {
        (subjects[0], "day"): usd("8.5"),
        (KEY, "day"): usd("8.5"),
        (KEY, "month"): usd("18.5"),
        (TAG, "day"): usd("5.5"),
        ("tag:team=z", "day"): usd("10"),
        ("key:key_2", "day"): usd("10"),
    }
    assert subjects_of("acct_1", key_id=None, tags={}) == ("account:acct_1",)


def test_what_is_given_back_is_left_again(store: Store, acme: Account) -> None:
    bound(store, "10")
    for name in ("a", "b", "c"):
        run(taken(store, name, usd("3"), account=acme, subjects=[KEY]))
    run(store.write(lambda db: note_progress(db, "c", usd("2"))))
    assert spell(store) == ("0.00", "9.00", "1.00")
    run(released(store, "a"))
    run(released(store, "b", resolved=True))
    assert spell(store) == ("0.00", "3.00", "7.00")
    run(released(store, "c", resolved=True))
    assert spell(store) == ("2.00", "0.00", "8.00")


def test_what_nobody_paid_is_not_spent(store: Store, book: Book) -> None:
    acme = run(funded(store, "5"))
    bound(store, "10")
    run(taken(store, "a", usd("1"), account=acme, subjects=[KEY]))
    run(captured(store, "a", usd("40")))
    assert (spell(store), book.show("acme").posted) == (("5.00", "0.00", "5.00"), usd("0"))


@pytest.mark.parametrize("first", [KEY, TAG])
def test_what_one_budget_refuses_leaves_all_as_it_was(
    first: str, store: Store, acme: Account
) -> None:
    second = TAG if first == KEY else KEY
    bound(store, "10", subject=first)
    bound(store, "1", subject=second)
    with pytest.raises(LimitExceededError) as refused:
        run(taken(store, "a", usd("1.000000001"), account=acme, subjects=[KEY, TAG]))
    assert (refused.value.status, refused.value.code) == (402, "budget_exhausted")
    kind, _, name = second.partition(":")
    assert f"the budget of this {kind} ({name}), 1.00 USD for this day, has" in str(refused.value)
    assert (spell(store, subject=first), spell(store, subject=second)) == (
        ("0.00", "0.00", "10.00"),
        ("0.00", "0.00", "1.00"),
    )
    assert (shown(store), states(store)) == (("1000", "0", "0", "1000"), {})
    run(taken(store, "a", usd("1"), account=acme, subjects=[KEY, TAG]))


def test_an_extension_that_a_budget_refuses_leaves_all_as_it_was(
    store: Store, acme: Account
) -> None:
    """Ours: the savepoint of its job takes it back, and only it; its group is committed."""
    bound(store, "10")
    bound(store, "5", subject=TAG)
    run(taken(store, "a", usd("4"), account=acme, subjects=[KEY, TAG]))

    async def group() -> list[Any]:
        works = [extended(store, "a", usd(more), account=acme) for more in ("0.5", "2", "0.25")]
        return await asyncio.gather(*works, return_exceptions=True)

    first, second, third = run(group())
    assert (first, type(second), third) == (True, LimitExceededError, True)
    assert shown(store) == ("1000", "0", "4.75", "995.25")
    assert store.read("SELECT amount_nano FROM hold") == [(usd("4.75").nano,)]
    assert spell(store) == ("0.00", "4.75", "5.25")
    assert spell(store, subject=TAG) == ("0.00", "4.75", "0.25")


def test_a_budget_is_exact_however_many_ask_at_once(store: Store, acme: Account) -> None:
    """Spec: a hundred at once, through four stores on one file."""
    bound(store, "10")

    async def work(stores: list[Store]) -> list[Any]:
        asked: dict[str, Any] = {"amount": usd("1"), "account": acme, "subjects": [KEY]}
        each = (taken(stores[n % 4], f"{n}", **asked) for n in range(100))
        return await asyncio.gather(*each, return_exceptions=True)

    with ExitStack() as stack:
        others = [stack.enter_context(Store(store.path)) for _ in range(3)]
        ended = run(work([store, *others]))
    assert ended.count(None) == 10
    assert sum(type(each) is LimitExceededError for each in ended) == 90
    assert spell(store) == ("0.00", "10.00", "0.00")
    assert shown(store) == ("1000", "0", "10", "990")


def test_spells_that_were_looked_up_too_early_do_not_let_more_through(
    store: Store, acme: Account
) -> None:
    """Ours: what decides is the guarded update, not what was read before."""

    def work(db: Connection) -> None:
        first, second = (spells_of(db, [KEY], currency="USD", at=AT) for _ in range(2))
        budgets.reserve(db, "a", usd("6"), spells=first)
        budgets.reserve(db, "b", usd("6"), spells=second)

    bound(store, "10")
    for name in ("a", "b"):
        run(taken(store, name, usd("1"), account=acme))
    with pytest.raises(LimitExceededError):
        run(store.write(work))
    assert spell(store) == ("0.00", "0.00", "10.00")


def test_a_budget_of_everything_that_can_be_counted(store: Store, acme: Account) -> None:
    most = Money(NANO_MAX, "USD")
    run(store.write(lambda db: budgets.set_budget(db, KEY, most, period="total", at=AT)))
    run(taken(store, "a", usd("1000"), account=acme, subjects=[KEY]))
    with pytest.raises(LimitExceededError):
        run(store.write(lambda db: budgets.reserve_more(db, "a", most)))
    run(captured(store, "a", usd("1000")))
    assert budgets.budgets(store, at=AT)[0].left == most - usd("1000")


# Setting and ending.


def test_lowered_below_what_is_spent_nothing_is_left(store: Store, acme: Account) -> None:
    first = bound(store, "10")
    for name in ("a", "b"):
        run(taken(store, name, usd("4"), account=acme, subjects=[KEY]))
    run(captured(store, "a", usd("4")))
    lowered = bound(store, "3", at=AT + timedelta(hours=1))
    assert (lowered.id, lowered.amount, lowered.spent) == (first.id, usd("3"), usd("4"))
    assert spell(store) == ("4.00", "4.00", "0.00")
    for work in (
        taken(store, "c", usd("0.000000001"), account=acme, subjects=[KEY]),
        extended(store, "b", usd("0.000000001"), account=acme),
    ):
        with pytest.raises(LimitExceededError, match=r"has 0\.00 USD left"):
            run(work)
    # What was agreed to is paid.
    run(captured(store, "b", usd("4")))
    bound(store, "9")
    assert spell(store) == ("8.00", "0.00", "1.00")
    with pytest.raises(LimitExceededError):
        run(taken(store, "c", usd("1.000000001"), account=acme, subjects=[KEY]))
    run(taken(store, "c", usd("1"), account=acme, subjects=[KEY]))


def test_a_budget_that_was_ended_bounds_nothing(store: Store, acme: Account) -> None:
    first = bound(store, "5")
    run(taken(store, "a", usd("4"), account=acme, subjects=[KEY]))
    run(store.write(lambda db: budgets.end_budget(db, KEY, period="day", at=AT)))
    assert budgets.budgets(store, at=AT) == ()
    run(taken(store, "b", usd("40"), account=acme, subjects=[KEY]))
    assert run(extended(store, "a", usd("40"), account=acme)), "not even what was on its way"
    run(captured(store, "a", usd("44")))
    with pytest.raises(BadRequestError, match="'key:key_1' has no budget for a day"):
        run(store.write(lambda db: budgets.end_budget(db, KEY, period="day", at=AT)))
    again = bound(store, "5")
    assert (again.id != first.id, again.spent, again.held) == (True, usd("0"), usd("0"))


def test_a_budget_bounds_requests_of_its_own_currency(store: Store, acme: Account) -> None:
    one = Money(1, "CNY")
    run(store.write(lambda db: budgets.set_budget(db, KEY, one, period="day", at=AT)))
    run(taken(store, "a", usd("4"), account=acme, subjects=[KEY]))
    with pytest.raises(BadRequestError, match="is in another currency; end it first"):
        bound(store, "5")
    assert budgets.budgets(store, at=AT)[0].amount == one


@pytest.mark.parametrize(
    "subject",
    ["", "key", "key:", "account:", "tag:team", "tag:=x", "tag:team=", "role:x", "key:a\nb"],
)
def test_what_is_no_subject_is_refused(subject: str, store: Store) -> None:
    with pytest.raises(BadRequestError, match="has no budget; write key:NAME"):
        bound(store, "1", subject=subject)


def test_a_budget_is_nothing_or_more(store: Store, acme: Account) -> None:
    with pytest.raises(BadRequestError, match="a budget is nothing or more"):
        bound(store, "-0.000000001")
    bound(store, "0")
    with pytest.raises(LimitExceededError):
        run(taken(store, "a", usd("0.000000001"), account=acme, subjects=[KEY]))
    run(taken(store, "free", usd("0"), account=acme, subjects=[KEY]))
