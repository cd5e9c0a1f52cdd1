"""This file knows how tests get accounts with money in them, and holds on it."""

from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import apsw

from droveway.ledger import Account, Book, statements
from droveway.ledger.account import micros
from droveway.ledger.holds import Charged, capture, extend, release, take
from droveway.money import Money
from droveway.storage import Store

AT: Final = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
EPOCH: Final = "epoch-of-the-test"
SECONDS: Final = 60


def usd(text: str) -> Money:
    """An amount in USD."""
    return Money.parse(text, "USD")


async def funded(store: Store, amount: str = "10", *, name: str = "acme") -> Account:
    """An account with money in it."""
    book = Book(store)
    account = await book.open(name)
    await book.top_up(account.id, usd(amount), reference=f"first-of-{name}")
    return book.show(account.id)


async def add_epoch(store: Store, epoch_id: str = EPOCH) -> None:
    """The row of a process, without one."""
    await store.write(lambda db: db.run(statements.ADD_EPOCH, (epoch_id, micros(AT))))


async def taken(
    store: Store,
    hold_id: str,
    amount: Money,
    *,
    account: Account,
    epoch_id: str = EPOCH,
) -> None:
    """Take a hold, alone in its transaction."""
    await store.write(
        lambda db: take(db, hold_id, amount, account_id=account.id, epoch_id=epoch_id, at=AT)
    )


async def extended(store: Store, hold_id: str, more: Money, *, account: Account) -> bool:
    """Extend a hold, alone in its transaction."""
    return await store.write(lambda db: extend(db, hold_id, more, account_id=account.id))


async def captured(store: Store, hold_id: str, cost: Money) -> Charged | None:
    """Capture a hold, alone in its transaction."""
    return await store.write(partial(_capture, hold_id=hold_id, cost=cost))


async def released(store: Store, hold_id: str, *, resolved: bool = False) -> bool:
    """Release a hold, alone in its transaction."""
    return await store.write(lambda db: release(db, hold_id, at=AT, resolved=resolved))


def _capture(db: Any, *, hold_id: str, cost: Money) -> Charged | None:
    return capture(db, hold_id, cost, at=AT)


def totals(store: Store, currency: str = "USD") -> dict[str, Money]:
    """What the operator's own accounts come to, by kind."""
    rows = store.read(
        "SELECT kind, posted_nano FROM account WHERE kind <> 'customer' AND currency = ?",
        (currency,),
    )
    zero = {kind: Money.zero(currency) for kind in ("clearing", "revenue", "loss")}
    return zero | {kind: Money(posted, currency) for kind, posted in rows}


def states(store: Store) -> dict[str, str]:
    """What became of each hold."""
    return dict(store.read("SELECT id, state FROM hold ORDER BY id"))


def damage(store: Store, sql: str) -> None:
    """Change what is kept past every guard: without triggers, checks or foreign keys.

    The triggers are made again: whoever opens the store looks for them.
    """
    driver = apsw.Connection(str(store.path))
    driver.set_busy_timeout(SECONDS * 1000)
    driver.execute("PRAGMA ignore_check_constraints = ON")
    driver.execute("PRAGMA foreign_keys = OFF")
    triggers = driver.execute(
        "SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND tbl_name <> 'key'"
    ).fetchall()
    for name, _ in triggers:
        driver.execute(f"DROP TRIGGER {name}")
    driver.execute(sql)
    for _, again in triggers:
        driver.execute(str(again))
    driver.close()
