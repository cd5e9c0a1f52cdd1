"""This file knows how tests get accounts with money and credit in them, and holds on it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final

import apsw

from droveway.clock import StillClock
from droveway.ledger import Account, Book, Credit, statements
from droveway.ledger.budgets import spells_of
from droveway.ledger.credits import grant, sweep
from droveway.ledger.holds import Charged, capture, extend, release, resolve, take
from droveway.money import Money
from droveway.storage import Connection, Store
from droveway.storage.moments import micros

AT: Final = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
DAY: Final = timedelta(days=1)
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
    at: datetime = AT,
    subjects: Sequence[str] = (),
    floor_nano: int = 0,
) -> None:
    """Take a hold, also on the budgets of some subjects, alone in its transaction."""

    def work(db: Connection) -> None:
        spells = spells_of(db, subjects, currency=amount.currency, at=at) if subjects else ()
        take(
            db,
            hold_id,
            amount,
            account_id=account.id,
            epoch_id=epoch_id,
            at=at,
            spells=spells,
            floor_nano=floor_nano,
        )

    await store.write(work)


async def extended(
    store: Store, hold_id: str, more: Money, *, account: Account, at: datetime = AT
) -> bool:
    """Extend a hold, alone in its transaction."""
    return await store.write(lambda db: extend(db, hold_id, more, account_id=account.id, at=at))


async def captured(store: Store, hold_id: str, cost: Money, *, at: datetime = AT) -> Charged | None:
    """Capture a hold, alone in its transaction."""
    return await store.write(partial(capture, hold_id=hold_id, cost=cost, at=at))


async def released(
    store: Store, hold_id: str, *, resolved: bool = False, at: datetime = AT
) -> bool:
    """Release a hold, alone in its transaction."""
    return await store.write(partial(resolve if resolved else release, hold_id=hold_id, at=at))


async def granted(
    store: Store,
    amount: Money,
    *,
    account: Account,
    until: datetime = AT + DAY,
    reference: str = "gift",
    at: datetime = AT,
) -> Credit:
    """Give credit, alone in its transaction."""
    credit = credit_of(account.id, amount, reference, until=until)
    return await store.write(lambda db: grant(db, credit, at=at))


def credit_of(account_id: str, amount: Money, reference: str, *, until: datetime) -> Credit:
    """A credit to be given; its id has its reference in it."""
    return Credit(
        id=f"crd_{reference}",
        account=account_id,
        amount=amount,
        left=amount,
        expires_at=until,
        reference=reference,
    )


async def swept(store: Store, at: datetime) -> int:
    """Let go of credit that has expired, alone in its transaction."""
    return await store.write(lambda db: sweep(db, at=at))


def shown(store: Store, name: str = "acme", at: datetime = AT) -> tuple[str, str, str, str]:
    """What an account shows at a moment: money, credit, what is held, what is available."""
    account = Book(store, clock=StillClock(at)).show(name)
    each = (account.posted, account.promo, account.held, account.available)
    money, promo, held, available = (amount.decimal(places_min=0) for amount in each)
    return money, promo, held, available


def totals(store: Store, currency: str = "USD") -> dict[str, Money]:
    """What the operator's own accounts come to, by kind."""
    rows = store.read(
        "SELECT kind, posted_nano FROM account WHERE kind <> 'customer' AND currency = ?",
        (currency,),
    )
    zero = {kind: Money.zero(currency) for kind in ("clearing", "revenue", "loss")}
    return zero | {kind: Money(posted, currency) for kind, posted in rows}


def credits_left(store: Store) -> dict[str, str]:
    """What is left of each credit, by its reference."""
    rows = store.read("SELECT id, left_nano FROM credit ORDER BY id")
    return {name[4:]: Money(nano, "USD").decimal(places_min=0) for name, nano in rows}


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
