"""This file knows what an attempt did cost, and what its caller is charged for it."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from droveway.catalog.pricebook import PriceRow, priced_pico
from droveway.chat import Usage
from droveway.engine.attempt import Attempt
from droveway.engine.dispatch import usage_of
from droveway.engine.inquiry import Inquiry
from droveway.engine.records import AttemptEntry
from droveway.errors import (
    APIConnectionError,
    APITimeoutError,
    CancelledCallError,
    UnpricedModelError,
    UpstreamError,
)
from droveway.money import Money
from droveway.routing.plan import Candidate

if TYPE_CHECKING:
    from droveway.engine.engine import Engine


def attempt_entry(
    engine: "Engine", request: Inquiry, *, candidate: Candidate, attempt: Attempt
) -> AttemptEntry:
    """Write down one attempt, priced by the row that was in force when it started."""
    usage = usage_of(request, attempt)
    abandoned = usage is None and _given_up_after_sending(attempt)
    if abandoned:
        usage = Usage(input=request.input_estimate(), source="counted")
    row = (
        None if usage is None else price_row(engine, candidate, at=attempt.started_at, usage=usage)
    )
    pico = None if usage is None or row is None else priced_pico(usage, row)
    markup, error = engine.billing.markup, attempt.error
    gone = isinstance(error, CancelledCallError)
    first = attempt.first_token_at
    answer = attempt.answer
    if answer is None and isinstance(error, UpstreamError):
        answer = error.partial
    return AttemptEntry(
        provider=candidate.provider,
        account=candidate.account + 1,
        model=candidate.model,
        at=attempt.started_at,
        outcome="completed" if error is None else "cancelled" if gone else "failed",
        code=None if error is None else error.code,
        status=attempt.status,
        vendor_id=None if answer is None else answer.id,
        abandoned=abandoned,
        usage=usage,
        cost=None if pico is None or row is None else Money.from_pico(pico, row.currency),
        charge=None if pico is None or row is None else markup.charge(pico, row.currency),
        price_row=None if row is None else row.id,
        first_token_ms=None if first is None else (first - attempt.started) * 1e3,
        total_ms=((attempt.ended_at or engine.clock.monotonic()) - attempt.started) * 1e3,
    )


def _given_up_after_sending(attempt: Attempt) -> bool:
    error = attempt.error
    ours = isinstance(error, CancelledCallError | APITimeoutError)
    broke = isinstance(error, APIConnectionError) and error.sent and attempt.status is None
    return attempt.call is not None and (ours or broke)


def own_cost_of(entries: Sequence[AttemptEntry]) -> Money | None:
    """Sum what vendors may ask for attempts; None when there is nothing to ask for, or no price."""
    costs = [entry.cost for entry in entries if entry.cost is not None]
    return sum(costs[1:], costs[0]) if costs else None


def price_row(
    engine: "Engine", candidate: Candidate, *, at: datetime, usage: Usage
) -> PriceRow | None:
    """Return the row for an attempt; None when the model is unpriced, which is never 0."""
    try:
        return engine.book.lookup(
            provider=candidate.provider,
            prices=engine.providers[candidate.provider].prices,
            model=candidate.model,
            at=at,
            currency=engine.currency,
            input_tokens=usage.input_total,
        )
    except UnpricedModelError:
        return None
