"""This file knows what the tokens of a run would have cost on other models."""

from datetime import datetime
from typing import Final

import msgspec

from droveway.catalog.pricebook import PriceBook
from droveway.catalog.pricerow import PriceRow, total
from droveway.chat import Usage
from droveway.errors import UnpricedModelError
from droveway.money import Money

CHEAP_MODEL: Final = "deepseek-flash"
OTHERS: Final = (
    "deepseek-v4-pro",
    "gpt-6-luna",
    "gpt-4.1-mini",
    "gpt-4.1",
    "gemini-2.5-flash",
    "claude-haiku-4-5",
    "claude-sonnet-4.5",
)


class Elsewhere(msgspec.Struct, frozen=True):
    """The same tokens at one price.

    Attributes:
        model: The model.
        hours: peak or off-peak, where the price depends on the hour; else None.
        cost: What they would have cost, each request in the smallest tier.
        row: Id of the price row.
    """

    model: str
    hours: str | None
    cost: Money
    row: str


def elsewhere(usage: Usage, book: PriceBook, *, at: datetime) -> list[Elsewhere]:
    """Price the same tokens on the cheap model at peak and off-peak, and on others, cheapest first.

    Args:
        usage: The tokens, the sum of many small requests; cached ones count as cached there too.
        book: The prices.
        at: The day whose prices hold.
    """
    rows = [*both_sides(book, CHEAP_MODEL, at=at)]
    for model in OTHERS:
        try:
            rows.append(book.find(None, model, at=at))
        except UnpricedModelError:
            continue  # it is not sold any more at that moment
    found = [Elsewhere(row.model, _hours(row), total(usage, row), row.id) for row in rows]
    return sorted(found, key=lambda each: each.cost.nano)


def both_sides(book: PriceBook, model: str, *, at: datetime) -> list[PriceRow]:
    """Return the peak and the off-peak price of a model on that day, whatever the hour."""
    return [
        row
        for row in book.rows
        if row.model == model
        and row.currency == "USD"
        and row.processing == "standard"
        and row.window is not None
        and (row.valid_from is None or at >= row.valid_from)
        and (row.valid_to is None or at < row.valid_to)
    ]


def _hours(row: PriceRow) -> str | None:
    if row.window is None:
        return None
    return "peak" if row.inside else "off-peak"
