"""This file knows what moving from one model to another saves, and what it assumed to say so."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Final, Literal

from droveway.catalog.models import limits
from droveway.catalog.pricebook import PriceBook
from droveway.catalog.pricelists import built_in_book
from droveway.catalog.pricerow import PriceRow, total
from droveway.chat import Usage
from droveway.errors import UnpricedModelError
from droveway.money import Money, divide_half_even

# The mix that `split` assumes of a month: an agent re-reads much and writes little.
INPUT_PERCENT: Final = 90
CACHED_PERCENT_OF_INPUT: Final = 70

Mode = Literal["split", "flat_output"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The same tokens at two models.

    Args:
        from_cost: At the model that is left.
        to_cost: At the model that is moved to.
        difference: What is saved; negative when it costs more.
        percent: The difference of the first cost, one decimal place; 0 of nothing.
        from_row: The price applied to the first.
        to_row: The price applied to the second.
        notes: What a reader must know about these prices.
    """

    from_cost: Money
    to_cost: Money
    difference: Money
    percent: Decimal
    from_row: PriceRow
    to_row: PriceRow
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """What a month costs now, what it would cost, and how that was reckoned.

    Args:
        current_cost: At the present model.
        new_cost: At the new one.
        savings: The difference; negative when the new one costs more.
        percent: Of the current cost, one decimal place; 0 of nothing.
        mode: How tokens were split.
        assumptions: That split in words.
        notes: What a reader must know about these prices.
        current_row: The price applied to the present model.
        new_row: The price applied to the new one.
    """

    current_cost: Money
    new_cost: Money
    savings: Money
    percent: Decimal
    mode: Mode
    assumptions: str
    notes: tuple[str, ...]
    current_row: PriceRow
    new_row: PriceRow


def compare(
    book: PriceBook,
    *,
    from_model: str,
    to_model: str,
    input_tokens: int,
    cached_tokens: int,
    output_tokens: int,
    at: datetime,
    cache_write_tokens: int = 0,
    currency: str = "USD",
) -> Comparison:
    """Price the same tokens at two models.

    Args:
        book: The prices.
        from_model: Exact id of the model that is left; a retired one has its last price.
        to_model: Exact id of the other; likewise.
        input_tokens: All input tokens, cached or not, of many small requests.
        cached_tokens: How many of them were read from a cache.
        output_tokens: Output tokens.
        at: When, with its zone.
        cache_write_tokens: How many of the input tokens were written to a cache.
        currency: Which lists.

    Raises:
        UnpricedModelError: A model has no price; the message names near ones.
        ValueError: A count is negative, or more tokens are cached than there are.
    """
    fresh = input_tokens - cached_tokens - cache_write_tokens
    if min(fresh, cached_tokens, cache_write_tokens, output_tokens) < 0:
        raise ValueError("token counts are not negative, and cached ones are part of the input")
    usage = Usage(
        input=fresh,
        cached_read=cached_tokens,
        cache_write=cache_write_tokens,
        output=output_tokens,
    )
    from_row, from_notes = _row(book, from_model, at=at, currency=currency)
    to_row, to_notes = _row(book, to_model, at=at, currency=currency)
    from_cost, to_cost = total(usage, from_row), total(usage, to_row)
    difference = from_cost - to_cost
    return Comparison(
        from_cost=from_cost,
        to_cost=to_cost,
        difference=difference,
        percent=_percent(difference, from_cost),
        from_row=from_row,
        to_row=to_row,
        notes=tuple(dict.fromkeys([*from_notes, *to_notes, *_thinking(from_row, to_row)])),
    )


def monthly_savings(
    current_model: str,
    monthly_tokens: int,
    new_model: str = "deepseek-chat",
    *,
    at: datetime,
    mode: Mode = "split",
    book: PriceBook | None = None,
    currency: str = "USD",
) -> Savings:
    """Reckon what a month of tokens saves at another model.

    Args:
        current_model: Exact id of the present model.
        monthly_tokens: Tokens of a month, input and output together.
        new_model: Exact id of the other.
        at: When, with its zone; decides the dated price and its hour.
        mode: split: a declared mix of input, cached input and output. flat_output: every token
            at the output price, as simple calculators do; it overstates amounts several times.
        book: The prices; the built-in book when None.
        currency: Which lists.

    Raises:
        UnpricedModelError: A model has no price; the message names near ones.
        ValueError: The tokens are no whole non-negative number, or the mode is none.
    """
    if type(monthly_tokens) is not int or monthly_tokens < 0:
        raise ValueError(f"monthly_tokens is a whole number of tokens, not {monthly_tokens!r}")
    if mode == "flat_output":
        inputs = cached = 0
        assumptions = "every token at the output price; a real month costs a fraction of this"
    elif mode == "split":
        inputs = monthly_tokens * INPUT_PERCENT // 100
        cached = inputs * CACHED_PERCENT_OF_INPUT // 100
        assumptions = (
            f"{INPUT_PERCENT}% input, {CACHED_PERCENT_OF_INPUT}% of it read from the cache and the "
            f"rest written to it, {100 - INPUT_PERCENT}% output, in requests of the smallest tier"
        )
    else:
        raise ValueError(f"mode is 'split' or 'flat_output', not {mode!r}")
    compared = compare(
        book or built_in_book(),
        from_model=current_model,
        to_model=new_model,
        input_tokens=inputs,
        cached_tokens=cached,
        cache_write_tokens=inputs - cached,
        output_tokens=monthly_tokens - inputs,
        at=at,
        currency=currency,
    )
    return Savings(
        current_cost=compared.from_cost,
        new_cost=compared.to_cost,
        savings=compared.difference,
        percent=compared.percent,
        mode=mode,
        assumptions=assumptions,
        notes=compared.notes,
        current_row=compared.from_row,
        new_row=compared.to_row,
    )


def _row(book: PriceBook, model: str, *, at: datetime, currency: str) -> tuple[PriceRow, list[str]]:
    told = limits(None, model)
    notes: list[str] = []
    try:
        row = book.find(None, model, at=at, currency=currency)
    except UnpricedModelError:
        if not told.retired(at):
            raise
        row = book.last_row(model, currency=currency)
        notes.append(
            f"{model} was retired on {told.retired_at:%Y-%m-%d}; this is its last price, and "
            f"{told.successor} is what can be bought now"
        )
    if row.note:
        notes.append(f"{model}: {row.note}")
    if row.window is not None:
        hours = "peak" if row.inside else "off-peak"
        notes.append(f"{model} is priced by the hour: this is its {hours} price")
    return row, notes


def _thinking(from_row: PriceRow, to_row: PriceRow) -> list[str]:
    thinks = limits(to_row.vendor, to_row.model).thinks
    if not thinks or limits(from_row.vendor, from_row.model).thinks:
        return []
    return [f"{to_row.model} thinks unless told not to, which multiplies its output tokens"]


def _percent(part: Money, whole: Money) -> Decimal:
    if whole.nano == 0:
        return Decimal("0.0")
    return Decimal(divide_half_even(part.nano * 1000, whole.nano)).scaleb(-1)
