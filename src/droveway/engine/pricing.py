"""This file knows what a call can cost at most, and what an attempt did cost."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from droveway.catalog.models import limits
from droveway.catalog.pricebook import PriceRow, price, price_bound
from droveway.chat import Usage
from droveway.engine.attempt import Attempt
from droveway.engine.dispatch import usage_of
from droveway.engine.inquiry import Inquiry
from droveway.engine.records import AttemptEntry
from droveway.engine.settling import Bound
from droveway.errors import (
    APIConnectionError,
    APITimeoutError,
    BadRequestError,
    CancelledCallError,
    UnpricedModelError,
)
from droveway.money import Money
from droveway.routing.plan import Candidate

if TYPE_CHECKING:
    from droveway.engine.engine import Engine

# Where the catalog does not know how much a model can write.
OUTPUT_MAX_UNKNOWN: Final = 32_768
# Price windows are whole hours long; looking this often misses none.
PRICE_STEP_S: Final = 1_800.0


def bound_of(
    engine: "Engine",
    request: Inquiry,
    *,
    plan: Sequence[Candidate],
    money_decides: bool,
    within_s: float,
) -> Bound | None:
    """Return the most that a call can cost, at the dearest candidate of its plan.

    The input is bounded by the bytes of the request body: a token of text covers a byte at least.
    The price is the dearest until the call's end: a peak may begin while it waits.

    Args:
        engine: Whose book and providers hold.
        request: What is asked.
        plan: Who may answer.
        money_decides: Whether anybody wants to know.
        within_s: Seconds the call may take.

    Returns:
        The bound; None where no money decides, so that the hot path pays nothing for it.

    Raises:
        UnpricedModelError: Money decides and a candidate has no price.
    """
    if not money_decides:
        return None
    now = engine.clock.now()
    steps = math.ceil(within_s / PRICE_STEP_S)
    moments = [now + timedelta(seconds=within_s * step / steps) for step in range(steps + 1)]
    bounds = [
        _candidate_bound(engine, request, candidate=each, at=at) for each in plan for at in moments
    ]
    return max(bounds, key=_worst_case)


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
    error = attempt.error
    gone = isinstance(error, CancelledCallError)
    first = attempt.first_token_at
    return AttemptEntry(
        provider=candidate.provider,
        model=candidate.model,
        at=attempt.started_at,
        outcome="completed" if error is None else "cancelled" if gone else "failed",
        code=None if error is None else error.code,
        status=attempt.status,
        abandoned=abandoned,
        usage=usage,
        cost=None if usage is None or row is None else price(usage, row),
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


def _candidate_bound(
    engine: "Engine", request: Inquiry, *, candidate: Candidate, at: datetime
) -> Bound:
    _refuse_unbounded(request)
    provider = engine.providers[candidate.provider]
    body = request.body(
        model=candidate.model, accent=provider.accent_for(candidate.model), output_cap=None
    )
    row = engine.book.lookup(
        provider=provider.name,
        prices=provider.prices,
        model=candidate.model,
        at=at,
        currency=engine.currency,
        input_tokens=len(body),
    )
    known = limits(provider.prices or row.vendor, candidate.model)
    return Bound(
        input_tokens=len(body),
        input_cost=price_bound(len(body), 0, row),
        output_pico=row.output,
        output_cap=request.max_tokens,
        output_max=known.output_tokens_max or OUTPUT_MAX_UNKNOWN,
        stream=request.stream,
    )


def _refuse_unbounded(request: Inquiry) -> None:
    """Bytes bound the tokens of text; what an image or a sound costs is not in its bytes."""
    for message in request.messages():
        if isinstance(message.content, list) and any(
            part.get("type", "text") != "text" for part in message.content
        ):
            raise BadRequestError(
                "the cost of images and sounds cannot be bounded yet; send text, or leave "
                "max_cost out"
            )


def _worst_case(bound: Bound) -> int:
    output = bound.output_cap if bound.output_cap is not None else bound.output_max
    return bound.cost(output).nano
