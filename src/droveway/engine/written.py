"""This file knows how a row of the journal is kept in the store, and how it is read again.

Moments and spans are whole microseconds, money whole nano-units: no float is kept. What the one
attempt of a request says is said by its row; only where there were more has each its own.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from droveway.chat import Usage
from droveway.dialects.ending import Outcome
from droveway.engine.records import AttemptEntry, Bodies, Row
from droveway.money import Money
from droveway.storage import Value
from droveway.storage.moments import micros, moment

# What a vendor hangs on a name when it says which snapshot has answered: -2026-11-23, -1123, …
_SNAPSHOT: Final = re.compile(r"-(\d{4}|\d{6}|\d{8}|\d{4}-\d{2}-\d{2})")


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A request as the journal tells of it.

    Attributes:
        seq: Its place in the order of writing.
        id: Our id of the request.
        at: When it came in, UTC.
        key_id: Whose key it came with; None without keys.
        tags: Free words: agent, role and what the caller gave.
        asked: The model that was asked for.
        sent: The name that the last vendor was asked by; None where none was.
        served: The model the vendor says has answered.
        provider: Who was asked last.
        account: Which of the provider's accounts, from 1 on; None where none was asked.
        outcome: Exactly one of completed, failed, cancelled.
        code: The error's code; None when it completed.
        usage: Tokens of the attempt that counts.
        cost: What they cost; None when the model is unpriced.
        own_cost: What vendors may ask for all attempts, given up ones by estimate.
        price_row: The price that was applied.
        first_token_ms: From the door to the first data event.
        total_ms: From the door to the end.
        overhead_ms: Our own part of it; None where it was not measured.
        waited_ms: How long it waited for its turn, and between attempts.
        attempts: How many requests were sent to vendors.
        each_attempt: What each came to, where there were more than one and they were asked for.
        client_gone: Whether the caller went away before the end.
        drift: Whether the model that answered is not the one that was sent for.
        bodies: What was said; None where it was not kept, or not asked for.
    """

    seq: int
    id: str
    at: datetime
    key_id: str | None
    tags: Mapping[str, str]
    asked: str
    sent: str | None
    served: str | None
    provider: str | None
    account: int | None
    outcome: Outcome
    code: str | None
    usage: Usage | None
    cost: Money | None
    own_cost: Money | None
    price_row: str | None
    first_token_ms: float | None
    total_ms: float
    overhead_ms: float | None
    waited_ms: float
    attempts: int
    each_attempt: tuple[AttemptEntry, ...] = ()
    client_gone: bool
    drift: bool
    bodies: Bodies | None = None


def drifts(sent: str | None, served: str | None) -> bool:
    """Whether another model has answered; a dated snapshot of the one sent for is no other."""
    if sent is None or served is None or served == sent:
        return False
    return not (served.startswith(sent) and _SNAPSHOT.fullmatch(served, len(sent)))


def request_values(row: Row) -> tuple[Value, ...]:
    """Write a row as `statements.REQUEST_FIELDS`."""
    last = row.attempts[-1] if row.attempts else None
    sent = None if last is None else last.model
    return (
        row.id,
        micros(row.at),
        row.key_id,
        msgspec.json.encode(row.tags).decode(),
        row.asked,
        sent,
        row.served,
        None if last is None else last.provider,
        row.price_row,
        *_usage_values(row.usage),
        *_cost_values(row.cost),
        *_cost_values(row.own_cost),
        _micros_of(row.first_token_ms),
        round(row.total_ms * 1e3),
        round(row.overhead_ms * 1e3),
        len(row.attempts),
        row.outcome,
        row.code,
        int(row.client_gone),
        int(drifts(sent, row.served)),
        round(row.waited_ms * 1e3),
        row.conversation,
        1 if last is None else last.account,
    )


def attempt_values(row: Row) -> Iterator[tuple[Value, ...]]:
    """Write the attempts of a row as `statements.ATTEMPT_FIELDS`, where there were several."""
    if len(row.attempts) < 2:
        return
    for number, each in enumerate(row.attempts, 1):
        yield (
            row.id,
            number,
            micros(each.at),
            each.provider,
            each.model,
            each.outcome,
            each.code,
            each.status,
            each.price_row,
            *_usage_values(each.usage),
            *_cost_values(each.cost),
            _micros_of(each.first_token_ms),
            round(each.total_ms * 1e3),
            each.account,
        )


def written(kept: Sequence[Any], attempts: Sequence[Sequence[Any]] = ()) -> Written:
    """Read a request as `seq` and `statements.REQUEST_FIELDS`."""
    (seq, id_, at_us, key_id, tags, asked, sent, served, provider, price_row, *rest) = kept
    first_token_us, total_us, overhead_us, count, outcome, code, gone, drift, *rest_of = rest[10:]
    waited_us, _, account = rest_of
    return Written(
        seq=seq,
        id=id_,
        at=moment(at_us),
        key_id=key_id,
        tags=msgspec.json.decode(tags),
        asked=asked,
        sent=sent,
        served=served,
        provider=provider,
        account=None if provider is None else account,
        outcome=outcome,
        code=code,
        usage=_usage(rest[:6]),
        cost=None if rest[6] is None else Money(rest[6], rest[7]),
        own_cost=None if rest[8] is None else Money(rest[8], rest[9]),
        price_row=price_row,
        first_token_ms=_millis(first_token_us),
        total_ms=total_us / 1e3,
        overhead_ms=_millis(overhead_us),
        waited_ms=waited_us / 1e3,
        attempts=count,
        each_attempt=tuple(_attempt(each) for each in attempts),
        client_gone=bool(gone),
        drift=bool(drift),
    )


def as_json(row: Written) -> dict[str, Any]:
    """Write a request as programs get it: money as a decimal string and its currency.

    `each_attempt` is there only where the attempts were asked for and were more than one.
    """
    told: dict[str, Any] = msgspec.to_builtins(row)
    told |= _cost_json(row.cost)
    told["own_cost"] = None if row.own_cost is None else row.own_cost.decimal()
    del told["each_attempt"], told["bodies"]
    if row.each_attempt:
        told["each_attempt"] = [
            {**msgspec.to_builtins(each), **_cost_json(each.cost)} for each in row.each_attempt
        ]
        for each in told["each_attempt"]:
            del each["charge"], each["vendor_id"]
    if row.bodies is not None:
        told["bodies"] = {
            "request": row.bodies.request.decode("utf-8", "replace"),
            "answer": row.bodies.answer.decode("utf-8", "replace"),
        }
    return told


def _attempt(kept: Sequence[Any]) -> AttemptEntry:
    _, _, at_us, provider, model, outcome, code, status, price_row, *rest = kept
    return AttemptEntry(
        provider=provider,
        account=rest[10],
        model=model,
        at=moment(at_us),
        outcome=outcome,
        code=code,
        status=status,
        usage=_usage(rest[:6]),
        cost=None if rest[6] is None else Money(rest[6], rest[7]),
        price_row=price_row,
        first_token_ms=_millis(rest[8]),
        total_ms=rest[9] / 1e3,
    )


def _usage_values(usage: Usage | None) -> tuple[Value, ...]:
    if usage is None:
        return (None, None, None, None, None, None)
    return (
        usage.input,
        usage.cached_read,
        usage.cache_write,
        usage.output,
        usage.reasoning,
        usage.source,
    )


def _usage(kept: Sequence[Any]) -> Usage | None:
    if kept[5] is None:
        return None
    return Usage(
        input=kept[0],
        cached_read=kept[1],
        cache_write=kept[2],
        output=kept[3],
        reasoning=kept[4],
        source=kept[5],
    )


def _cost_values(cost: Money | None) -> tuple[Value, ...]:
    return (None, None) if cost is None else (cost.nano, cost.currency)


def _cost_json(cost: Money | None) -> dict[str, str | None]:
    if cost is None:
        return {"cost": None, "currency": None}
    return {"cost": cost.decimal(), "currency": cost.currency}


def _micros_of(span_ms: float | None) -> int | None:
    return None if span_ms is None else round(span_ms * 1e3)


def _millis(span_us: int | None) -> float | None:
    return None if span_us is None else span_us / 1e3
