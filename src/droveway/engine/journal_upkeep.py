"""This file knows the upkeep of the journal: hourly sums are made, and old rows are let go."""

import logging
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from droveway.clock import Clock
from droveway.engine import statements
from droveway.errors import StoreUnavailableError
from droveway.storage import Connection, Store
from droveway.storage.moments import micros, moment

LOG: Final = logging.getLogger("droveway")
EVERY_S: Final = 60.0
# A step keeps the writer's thread for some 10 ms; whoever waits with money gets in between two.
ROWS_PER_STEP: Final = 2_000


class Hour(msgspec.Struct, frozen=True, kw_only=True):
    """What an hour came to, for one key, provider, model, outcome and currency.

    Attributes:
        hour: Its beginning, UTC.
        key_id: Whose key; empty without keys.
        provider: Who was asked last; empty where nobody was.
        model: The name the vendor was asked by, or what the caller asked for where none was.
        outcome: completed, failed or cancelled.
        currency: Of the cost; empty where there is none, because the model is unpriced.
        requests: How many.
        input: Input tokens that were in no cache.
        cached_read: Input tokens read from a cache.
        cache_write: Input tokens written to one.
        output: Output tokens.
        reasoning: How many of them were reasoning.
        cost_nano: Whole nano-units of the currency.
        own_cost_nano: What vendors may ask for all attempts, given up ones by estimate.
        total_us: From the door to the end, summed up.
        drifted: How many were served by another model than the one sent for.
    """

    hour: datetime
    key_id: str
    provider: str
    model: str
    outcome: str
    currency: str
    requests: int
    input: int
    cached_read: int
    cache_write: int
    output: int
    reasoning: int
    cost_nano: int
    own_cost_nano: int
    total_us: int
    drifted: int


def hours(store: Store, since: datetime) -> list[Hour]:
    """Return the sums of every hour from a moment on."""
    return [_hour(row) for row in store.read(statements.HOURS, (micros(since),))]


async def roll_up(store: Store) -> int:
    """Sum up the rows that are not summed up yet, each exactly once.

    The sums and the mark that says how far they reach are one transaction, so that several
    processes may do this at the same time.

    Returns:
        How many rows that were.
    """
    total = 0
    while done := await store.write(_roll_up_step):
        total += done
    return total


async def forget(store: Store, before: datetime) -> int:
    """Let go of rows that came in before a moment and are summed up.

    Returns:
        How many rows that were.
    """
    step = (micros(before), ROWS_PER_STEP)
    total = 0
    while done := await store.write(lambda db: _forget_step(db, step)):
        total += done
    return total


async def maintain(store: Store, *, clock: Clock, keep_days: int) -> None:
    """Keep the journal up, until cancelled.

    Args:
        store: Whose journal.
        clock: Where time and waiting come from.
        keep_days: For how long rows are kept.
    """
    while True:
        try:
            await roll_up(store)
            await forget(store, clock.now() - timedelta(days=keep_days))
        except StoreUnavailableError as error:
            LOG.warning("the journal's upkeep waits: %s", error)
        await clock.sleep(EVERY_S)


def _roll_up_step(db: Connection) -> int:
    ((mark,),) = db.rows(statements.ROLLED_UP)
    ((end, count),) = db.rows(statements.STEP_END, (mark, ROWS_PER_STEP))
    if count:
        db.run(statements.ROLL_UP, (mark, end))
        db.run(statements.ROLLED_UP_TO, (end,))
    return int(count)


def _forget_step(db: Connection, step: tuple[int, int]) -> int:
    db.run(statements.FORGET_ATTEMPTS, step)
    db.run(statements.FORGET_BODIES, step)
    return db.run(statements.FORGET, step)


def _hour(row: tuple[Any, ...]) -> Hour:
    hour_us, *rest = row
    names = Hour.__struct_fields__[1:]
    return Hour(hour=moment(hour_us), **dict(zip(names, rest, strict=True)))
