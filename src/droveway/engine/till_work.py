"""This file knows what a till does within one transaction of the store."""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, NamedTuple

import msgspec

from droveway.engine import statements
from droveway.engine.journal_store import add_rows
from droveway.engine.records import AttemptEntry, Row
from droveway.engine.settling import Bound, Hold, affordable
from droveway.ledger import holds
from droveway.ledger.account import available_of
from droveway.ledger.budgets import Spell, spells_of, spells_of_hold, subjects_of
from droveway.ledger.claims import Claim, keep_answer, stake
from droveway.ledger.holds import Charged
from droveway.ledger.low_balance import warn_if_low
from droveway.money import PICO_PER_NANO, Money
from droveway.storage import Connection

LOG: Final = logging.getLogger("droveway")
# What an uncapped stream is held for at first, and by which its hold grows.
STREAM_TOKENS: Final = 4_096
# Less than this is not worth a commit: where so little is left, the stream ends.
STREAM_TOKENS_MIN: Final = 64


class Settled(NamedTuple):
    """What became of a settlement.

    Attributes:
        charged: Who paid what; None where the hold had ended before.
        row: The journal's row, as it was written.
    """

    charged: Charged | None
    row: Row


class Paying(NamedTuple):
    """One request that is paid for, and by whom.

    Attributes:
        request_id: Which request; its hold has the same id.
        account_id: Whose money.
        key_id: With which key it came.
        tags: That key's tags.
        claim: The caller's own name for it.
        epoch_id: The process that ends the hold.
        floor_nano: How far below zero the balance may fall where the bound is not covered.
        at: Now.
    """

    request_id: str
    account_id: str
    key_id: str | None
    tags: Mapping[str, str]
    claim: Claim | None
    epoch_id: str
    floor_nano: int
    at: datetime


def take(db: Connection, *, bound: Bound, paying: Paying) -> Hold:
    """Hold the most that a request can cost, on its account and every budget of it.

    A caller's own cap is held as it is. Without one, a stream is held for its first tokens and a
    whole answer is capped. Where that is not covered and the operator has set a floor, the input
    is held by estimate, and the balance may fall to the floor.
    """
    if paying.claim is not None:
        stake(db, paying.claim, paying.request_id, at=paying.at)
    currency = bound.input_cost.currency
    subjects = subjects_of(paying.account_id, key_id=paying.key_id, tags=paying.tags)
    spells = spells_of(db, subjects, currency=currency, at=paying.at)
    cap, covers, floor_nano = bound.output_cap, None, holds.NO_FLOOR
    left = None
    if cap is None or paying.floor_nano:
        left = _left(db, paying, spells=spells)
    if cap is None:
        assert left is not None, "it was looked up for this"
        cap = affordable(bound, left)
        first = min(STREAM_TOKENS, bound.output_max)
        if bound.stream and bound.output_pico and bound.cost(first) <= left:
            cap, covers = first, first
    amount = bound.cost(cap)
    if paying.floor_nano and left is not None and left < amount:
        amount, floor_nano = bound.estimated_cost + bound.written(cap), paying.floor_nano
    holds.take(
        db,
        paying.request_id,
        amount,
        account_id=paying.account_id,
        epoch_id=paying.epoch_id,
        at=paying.at,
        spells=spells,
        floor_nano=floor_nano,
    )
    ours = bound.output_cap is None and covers is None
    return Hold(amount=amount, output_cap=cap if ours else None, covers=covers)


def extend(db: Connection, *, bound: Bound, paying: Paying) -> int:
    """Extend a hold by as much as it began with, or by what is left; return the tokens of that."""
    left = _left(db, paying, spells=spells_of_hold(db, paying.request_id))
    affordable_tokens = left.nano * PICO_PER_NANO // bound.output_pico
    tokens = max(STREAM_TOKENS_MIN, min(STREAM_TOKENS, affordable_tokens))
    extended = holds.extend(
        db,
        paying.request_id,
        bound.written(tokens),
        account_id=paying.account_id,
        at=paying.at,
    )
    if not extended:
        LOG.error("request %s had ended before its hold was extended", paying.request_id)
    return tokens


def note_all(db: Connection, rows: Sequence[Row]) -> None:
    """Write down what requests on their way have come to."""
    for row in rows:
        assert row.cost is not None, "what came to nothing is not noted"
        holds.note_progress(db, row.id, row.cost, told=msgspec.json.encode(row).decode())


def bury(db: Connection, told: str, paid: Money) -> None:
    """Write the row of a request whose process died down, as it was noted last."""
    row = msgspec.json.decode(told, type=Row)
    add_rows(db, [msgspec.structs.replace(row, cost=paid)])


def settle(
    db: Connection,
    *,
    row: Row,
    cost: Money,
    answer: bytes | None,
    low: Money | None,
    at: datetime,
) -> Settled:
    """Charge a request, and write down all that is to be known of it."""
    charged = holds.capture(db, row.id, cost, at=at)
    if charged is not None and charged.lost.nano:
        # What is told and kept as its cost is what was paid; the loss is ours, and booked so.
        row = msgspec.structs.replace(row, cost=charged.paid)
    if charged is not None or not _is_written(db, row):
        _write_down(db, row, at=at)
    if charged is not None:
        if answer is not None:
            keep_answer(db, row.id, answer, at=at)
        if low is not None:
            warn_if_low(db, charged, low, at=at)
    return Settled(charged, row)


def release(db: Connection, *, row: Row, at: datetime) -> bool:
    """Give back what was held for a request, and write down all that is to be known of it."""
    released = holds.release(db, row.id, at=at)
    if released or not _is_written(db, row):
        _write_down(db, row, at=at)
    return released


def _is_written(db: Connection, row: Row) -> bool:
    """Whether a row is there: a commit may have landed that was said to have failed."""
    return bool(db.rows(statements.BY_ID, (row.id,)))


def _write_down(db: Connection, row: Row, *, at: datetime) -> None:
    add_rows(db, [row])
    for number, entry in enumerate(row.attempts, start=1):
        if entry.cost is not None and entry.cost.nano and _is_ours(entry, row):
            holds.note_own_cost(
                db, f"{row.id}/{number}", entry.cost, provider=entry.provider, at=at
            )


def _is_ours(entry: AttemptEntry, row: Row) -> bool:
    """Whether the caller does not pay for an attempt: it failed, or its answer never came."""
    return entry.abandoned or entry is not row.attempts[-1] or row.usage is None


def _left(db: Connection, paying: Paying, *, spells: Sequence[Spell]) -> Money:
    available = available_of(db, paying.account_id, at=paying.at)
    left = min((available.nano, *(spell.left_nano for spell in spells)))
    return Money(left, available.currency)
