"""This file knows a ledger in which every kind of thing has happened, and all of it is right."""

from datetime import date, timedelta
from functools import partial
from typing import Final

from books import (
    AT,
    DAY,
    EPOCH,
    add_epoch,
    captured,
    extended,
    funded,
    granted,
    released,
    swept,
    taken,
    usd,
)
from droveway.clock import StillClock
from droveway.ledger import Account, Book, Rate
from droveway.ledger.budgets import set_budget
from droveway.ledger.claims import claim_of, keep_answer, stake
from droveway.ledger.holds import capture, note_own_cost, note_progress, take
from droveway.ledger.low_balance import warn_if_low
from droveway.ledger.topups import refund
from droveway.ledger.vouchers import Terms, issue, redeem
from droveway.money import Money
from droveway.storage import Connection, Store
from droveway.storage.moments import micros

RATE: Final = Rate("0.14", date(2026, 11, 1))
KEY, TAG = "key:key_1", "tag:team=x"
SUBJECTS: Final = (KEY, TAG)


async def fill(store: Store) -> None:
    """Let every kind of thing happen."""
    await add_epoch(store)
    await add_epoch(store, "epoch-that-ended")
    acme, other = await funded(store, "10"), await funded(store, "5", name="other")
    await Book(store).open("cn", currency="CNY")
    await _requests(store, acme, other)
    await _in_and_out(store)
    await _credit(store)
    await _vouchers(store)
    await _budgets(store, other)
    await _claims(store, other)
    await _below_zero(store)
    await _journal(store)
    await store.write(lambda db: db.run("UPDATE epoch SET ended_at_us = 1 WHERE id <> ?", (EPOCH,)))


async def _requests(store: Store, acme: Account, other: Account) -> None:
    for hold_id in ("captured", "lost", "released", "resolved", "free", "held"):
        await taken(store, hold_id, usd("1"), account=acme)
    await taken(store, "of-other", usd("2"), account=other)
    await taken(store, "of-the-dead", usd("1"), account=other, epoch_id="epoch-that-ended")
    await store.write(partial(note_progress, hold_id="of-the-dead", cost=usd("0.25")))
    await captured(store, "captured", usd("0.5"))
    await captured(store, "lost", usd("100"))
    await captured(store, "free", usd("0"))
    await released(store, "released")
    await released(store, "resolved", resolved=True)
    await released(store, "of-the-dead", resolved=True)
    cost = partial(note_own_cost, reference="lost/1", cost=usd("0.01"), provider="vendor", at=AT)
    await store.write(cost)


async def _in_and_out(store: Store) -> None:
    book = Book(store)
    await book.open("foreign")
    await book.top_up("foreign", Money.parse("100", "CNY"), reference="yuan", rate=RATE)
    await book.top_up("foreign", usd("3"), reference="dollars")
    for number, paid in enumerate([Money.parse("10", "CNY"), Money.parse("5.5", "CNY")]):
        back = partial(refund, paid=paid, reference=f"refund-{number}", at=AT)
        await store.write(partial(back, topup_reference="yuan"))
    await store.write(partial(refund, topup_reference="dollars", paid=None, reference="r", at=AT))


async def _credit(store: Store) -> None:
    gifted = await Book(store, clock=StillClock(AT)).open("gifted")
    for name, days in (("spent", 1), ("half", 2), ("gone", 3), ("kept", 400)):
        until = AT + timedelta(days=days)
        await granted(store, usd("1"), account=gifted, until=until, reference=name)
    await taken(store, "on-credit", usd("1.5"), account=gifted)
    await captured(store, "on-credit", usd("1.5"))
    # What is held outlives its end, in part.
    await taken(store, "on-its-way", usd("1.25"), account=gifted)
    await swept(store, AT + 3 * DAY)


async def _vouchers(store: Store) -> None:
    await Book(store).open("lucky")
    for terms in (Terms(amount=usd("2")), Terms(amount=usd("2"), credit_days=9)):
        (_, (_, code)) = await store.write(partial(issue, terms=terms, count=2, at=AT))
        await store.write(partial(redeem, account_name="lucky", code=code, at=AT))


async def _budgets(store: Store, account: Account) -> None:
    for subject in SUBJECTS:
        await store.write(
            partial(set_budget, subject=subject, amount=usd("9"), period="day", at=AT)
        )
    for hold_id in ("bound-captured", "bound-released", "bound-held"):
        await taken(store, hold_id, usd("0.5"), account=account, subjects=SUBJECTS)
    await extended(store, "bound-held", usd("0.1"), account=account)
    await captured(store, "bound-captured", usd("0.25"))
    await released(store, "bound-released")


async def _claims(store: Store, account: Account) -> None:
    def work(db: Connection) -> None:
        for name in ("claimed", "answered"):
            stake(db, claim_of("key_1", name, b""), name, at=AT)
            take(db, name, usd("0.1"), account_id=account.id, epoch_id=EPOCH, at=AT)
        charged = capture(db, "answered", usd("0.1"), at=AT)
        keep_answer(db, "answered", b"{}", at=AT)
        assert charged is not None
        assert warn_if_low(db, charged, usd("100"), at=AT)

    await store.write(work)


async def _journal(store: Store) -> None:
    """A row for each request that has ended, and for one of the time before there were accounts."""
    columns = "id, at_us, tags, asked, cost_nano, currency, total_us, attempts, outcome"
    add = f"INSERT INTO request ({columns}, client_gone, drift)"
    ended = f"""{add} SELECT id, taken_at_us, '{{}}', 'fast', charged_nano,
        CASE WHEN charged_nano IS NULL THEN NULL ELSE 'USD' END, 1, 1, 'completed', 0, 0
        FROM hold WHERE state <> 'held'"""
    first = f"{add} VALUES ('first', ?, '{{}}', 'fast', 7, 'USD', 1, 1, 'completed', 0, 0)"
    await store.write(lambda db: db.run(ended))
    await store.write(lambda db: db.run(first, (micros(AT - DAY),)))


async def _below_zero(store: Store) -> None:
    deep = await funded(store, "1", name="deep")
    await taken(store, "deep", usd("3"), account=deep, floor_nano=usd("-2").nano)
    await captured(store, "deep", usd("3"))
