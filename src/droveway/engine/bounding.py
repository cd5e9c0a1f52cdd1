"""This file knows what a call can cost at most, before it is sent."""

import math
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from droveway.catalog.models import limits
from droveway.catalog.pricebook import PriceRow, dearest_input
from droveway.engine.inquiry import Inquiry
from droveway.engine.settling import Bound
from droveway.errors import BadRequestError
from droveway.money import Money
from droveway.routing.plan import Candidate

if TYPE_CHECKING:
    from droveway.engine.engine import Engine

# Where the catalog does not know how much a model can write.
OUTPUT_MAX_UNKNOWN: Final = 32_768
# Price windows are whole hours long; looking this often misses none.
PRICE_STEP_S: Final = 1_800.0
# What an estimate of the input may be wrong by, as a fraction: 1.4.
_ESTIMATE_MARGIN: Final = (7, 5)


class Media(NamedTuple):
    """What a request holds besides text.

    Attributes:
        images: How many.
        data_bytes: What of the body is their data: bytes that are no tokens.
    """

    images: int = 0
    data_bytes: int = 0


_TEXT_ALONE: Final = Media()


def bound_of(
    engine: "Engine",
    request: Inquiry,
    *,
    plan: Sequence[Candidate],
    money_decides: bool,
    within_s: float,
) -> Bound | None:
    """Return the most that a call can cost, at the dearest candidate of its plan.

    The input is bounded by the bytes of the request body: a token of text covers a byte at least,
    and what frames a message or a tool as JSON has more bytes than its frame in a vendor's prompt
    has tokens. An image is what its model takes for the largest one. The price is the dearest
    until the call's end: a peak may begin while it waits.

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
        BadRequestError: Money decides and the request holds what cannot be bounded.
    """
    if not money_decides:
        return None
    now, media = engine.clock.now(), media_of(request)
    steps = math.ceil(within_s / PRICE_STEP_S)
    moments = [now + timedelta(seconds=within_s * step / steps) for step in range(steps + 1)]
    bounds = [
        bound
        for each in plan
        for bound in _candidate_bounds(
            engine, request, candidate=each, moments=moments, media=media
        )
    ]
    return bounds[0] if len(bounds) == 1 else max(bounds, key=_worst_case)


def media_of(request: Inquiry) -> Media:
    """Count what is not text.

    Raises:
        BadRequestError: Some of it is of a kind whose tokens nothing bounds.
    """
    if not request.may_hold_media():
        return _TEXT_ALONE
    images = data_bytes = 0
    for message in request.messages():
        if not isinstance(message.content, list):
            continue
        for part in message.content:
            kind = part.get("type", "text")
            if kind == "image_url":
                images += 1
                data_bytes += _data_bytes(part.get("image_url"))
            elif kind != "text":
                raise BadRequestError(
                    f"the cost of a part of type {kind!r} cannot be bounded; send text and images, "
                    "or ask where no money decides"
                )
    return Media(images, data_bytes)


def _data_bytes(image: Any) -> int:  # noqa: ANN401 - whatever the caller wrote there
    url = image.get("url") if isinstance(image, dict) else image
    return len(url) if isinstance(url, str) and url.startswith("data:") else 0


def _candidate_bounds(
    engine: "Engine",
    request: Inquiry,
    *,
    candidate: Candidate,
    moments: Sequence[datetime],
    media: Media,
) -> list[Bound]:
    """Return the bound at each price that is in force until the call's end."""
    provider = engine.providers[candidate.provider]
    body = request.body(
        model=candidate.model, accent=provider.accent_for(candidate.model), output_cap=None
    )
    size = len(body) - media.data_bytes
    if media.images:
        size += media.images * _image_tokens(engine, candidate)
    rows: dict[str, PriceRow] = {}
    for at in moments:
        row = engine.book.lookup(
            provider=provider.name,
            prices=provider.prices,
            model=candidate.model,
            at=at,
            currency=engine.currency,
            input_tokens=size,
        )
        rows[row.id] = row
    return [
        _bound(engine, request, size=size, row=row, candidate=candidate) for row in rows.values()
    ]


def _bound(
    engine: "Engine", request: Inquiry, *, size: int, row: PriceRow, candidate: Candidate
) -> Bound:
    markup, dearest = engine.billing.markup, dearest_input(row)
    known = limits(engine.providers[candidate.provider].prices or row.vendor, candidate.model)
    times, parts = _ESTIMATE_MARGIN
    estimate = min(size, -(-engine.calibration.estimate(candidate, size) * times // parts))
    return Bound(
        input_tokens=size,
        input_cost=Money.from_pico(markup.at_most(size * dearest), row.currency),
        estimated_cost=Money.from_pico(markup.at_most(estimate * dearest), row.currency),
        output_pico=markup.at_most(row.output),
        output_cap=request.max_tokens,
        output_max=known.output_tokens_max or OUTPUT_MAX_UNKNOWN,
        stream=request.stream,
    )


def _image_tokens(engine: "Engine", candidate: Candidate) -> int:
    prices = engine.providers[candidate.provider].prices
    tokens = limits(prices, candidate.model).image_tokens_max
    if tokens is None:
        raise BadRequestError(
            f"what an image may cost with {candidate.model!r} is not known, so it cannot be held "
            "for; send text, or ask a model whose images are bounded"
        )
    return tokens


def _worst_case(bound: Bound) -> int:
    output = bound.output_cap if bound.output_cap is not None else bound.output_max
    return bound.cost(output).nano
