"""This file knows what one dated price says, when it holds, and how it is applied to tokens.

Theory of operation. A row states who (vendor, model), in which currency, and when: a span of time,
a side of a window of hours, a span of input sizes and a way of processing. All of these must hold.
For any moment and size at most one row of a list holds, so no order decides; a test proves it of
the rows of this package. A row is never changed once it was billed by, only ended: its id is
journaled with every attempt.
"""

from datetime import date, datetime
from typing import Literal

import msgspec

from droveway.catalog.calendar import Window
from droveway.chat import Usage
from droveway.money import Money

Processing = Literal["standard", "batch", "flex"]


class PriceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One dated price, in whole pico-units per token.

    Attributes:
        id: Stable name, such as "deepseek/deepseek-flash/2026-09-10/peak/USD".
        vendor: Whose list; of an own price, the provider's name.
        model: The exact id that is asked for.
        currency: ISO 4217 code of the list.
        valid_from: First moment, UTC; None when the list does not say.
        valid_to: First moment after it; None while it holds.
        window: Hours that the price depends on; None when it does not.
        inside: Which side of the window this row prices.
        input_above: Holds for requests with more input tokens than this; None without bound.
        input_up_to: Holds up to so many input tokens; None without bound.
        processing: How the vendor was asked to process the request.
        input: Input that was in no cache.
        cached_read: Input read from the vendor's cache; None is charged as input.
        cache_write: Input written to it; None is charged as input.
        output: Output, reasoning among it.
        source: Where the price stands.
        checked_on: When it was read there; None of an own price.
        note: What else should be known, or "".
    """

    id: str
    vendor: str
    model: str
    currency: str
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    window: Window | None = None
    inside: bool = True
    input_above: int | None = None
    input_up_to: int | None = None
    processing: Processing = "standard"
    input: int
    cached_read: int | None = None
    cache_write: int | None = None
    output: int
    source: str
    checked_on: date | None = None
    note: str = ""

    def in_force(self, at: datetime) -> bool:
        """Tell whether date and hour hold at that moment."""
        return (
            (self.valid_from is None or at >= self.valid_from)
            and (self.valid_to is None or at < self.valid_to)
            and (self.window is None or self.window.contains(at) is self.inside)
        )

    def fits(self, input_tokens: int) -> bool:
        """Tell whether a request of that many input tokens, cached or not, is of this tier."""
        return (self.input_above is None or input_tokens > self.input_above) and (
            self.input_up_to is None or input_tokens <= self.input_up_to
        )

    def holiday_known(self, at: datetime) -> bool:
        """Tell whether it is known if that day is a holiday, where the price asks for it."""
        return self.window is None or self.window.holiday_known(at)


def price(usage: Usage, row: PriceRow) -> Money:
    """Price the tokens of one attempt.

    Args:
        usage: Token counts by class; cached tokens are not counted again as input.
        row: The row in force at the start of the attempt, found for `usage.input_total`: a row
            found for an estimate may be of another tier, so look it up again to settle.

    Returns:
        Whole nano-units of the row's currency, rounded half to even once, at the end.

    Raises:
        ValueError: The row is for requests of another size.
    """
    return Money.from_pico(price_pico(usage, row), row.currency)


def price_pico(usage: Usage, row: PriceRow) -> int:
    """Price the tokens of one attempt in whole pico-units, unrounded; else as `price`."""
    if not row.fits(usage.input_total):
        raise ValueError(
            f"row {row.id!r} does not price a request of {usage.input_total} input tokens; "
            "find the row again with that size"
        )
    return _pico(usage, row)


def total(usage: Usage, row: PriceRow) -> Money:
    """Price a sum of many requests, each of which is of the row's tier; else as `price`."""
    return Money.from_pico(_pico(usage, row), row.currency)


def _pico(usage: Usage, row: PriceRow) -> int:
    cached_read = row.input if row.cached_read is None else row.cached_read
    cache_write = row.input if row.cache_write is None else row.cache_write
    return (
        usage.input * row.input
        + usage.cached_read * cached_read
        + usage.cache_write * cache_write
        + usage.output * row.output
    )


def price_bound(input_tokens: int, output_tokens: int, row: PriceRow) -> Money:
    """Price what an attempt can cost at most: all input at its dearest class.

    Args:
        input_tokens: Upper bound of the input.
        output_tokens: Cap of the output.
        row: The row in force, found for that bound of the input.
    """
    pico = input_tokens * dearest_input(row) + output_tokens * row.output
    return Money.from_pico(pico, row.currency)


def dearest_input(row: PriceRow) -> int:
    """Return the price of a token of input, in pico-units, of whichever class is the dearest."""
    return max(row.input, row.cached_read or 0, row.cache_write or 0)
