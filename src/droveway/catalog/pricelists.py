"""This file knows how a vendor's price list is written down, and makes price rows of it.

A list is one TOML table per vendor. What a vendor says of many models at once ("batch costs half")
is written once as a rule, and a row names the rules that it follows: rules of size and rules of
processing also hold together. A factor that would leave a fraction of a pico-unit is an error.
"""

from collections.abc import Iterator
from datetime import date, datetime
from fractions import Fraction
from functools import cache
from typing import Final, Literal

import msgspec

from droveway.catalog.calendar import Window, WindowTable
from droveway.catalog.pricebook import PriceBook
from droveway.catalog.pricerow import PriceRow, Processing
from droveway.catalog.reading import read_table
from droveway.money import price_pico

VENDORS: Final = ("deepseek", "openai", "anthropic", "google")


class _Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A rule of size has `above`, one of processing has `processing`; the rest are factors."""

    inputs: str
    output: str
    above: int | None = None
    processing: Processing = "standard"


class _Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    models: list[str]
    input: str
    output: str
    cached_read: str | None = None
    cache_write: str | None = None
    currency: str = "USD"
    processing: Processing = "standard"
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    window: str | None = None
    side: Literal["peak", "off-peak"] | None = None
    derive: list[str] = []
    source: str | None = None
    checked_on: date | None = None
    note: str = ""


class PriceListTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A vendor's list as it is written; rows without a source or date take the list's."""

    vendor: str
    source: str
    checked_on: date
    windows: dict[str, WindowTable] = {}
    rules: dict[str, _Rule] = {}
    rows: list[_Row]


@cache
def built_in_book() -> PriceBook:
    """The price book of this package; read once, then shared."""
    return PriceBook(
        row for vendor in VENDORS for row in expand(read_table(f"prices_{vendor}", PriceListTable))
    )


def expand(table: PriceListTable) -> Iterator[PriceRow]:
    """Make the price rows of a list, each with the rules it follows applied.

    Raises:
        ValueError: A price is none, or a side is named without a window or the other way round.
        KeyError: A window or a rule is named that the list does not have.
    """
    windows = {name: written.window(name) for name, written in table.windows.items()}
    for row in table.rows:
        if (row.window is None) is not (row.side is None):
            raise ValueError(f"{row.models[0]!r}: a window and its side are named together")
        window = None if row.window is None else windows[row.window]
        for rules in _combinations(row, table):
            for model in row.models:
                yield _price_row(table, row, model=model, window=window, rules=rules)


def _combinations(row: _Row, table: PriceListTable) -> Iterator[dict[str, _Rule]]:
    named = {name: table.rules[name] for name in row.derive}
    sizes = [{}, *({name: rule} for name, rule in named.items() if rule.above is not None)]
    ways = [{}, *({name: rule} for name, rule in named.items() if rule.above is None)]
    for size in sizes:
        for way in ways:
            yield {**size, **way}


def _price_row(
    table: PriceListTable,
    row: _Row,
    *,
    model: str,
    window: Window | None,
    rules: dict[str, _Rule],
) -> PriceRow:
    inputs, output = Fraction(1), Fraction(1)
    above, processing = None, row.processing
    for rule in rules.values():
        inputs *= Fraction(rule.inputs)
        output *= Fraction(rule.output)
        above = rule.above if rule.above is not None else above
        processing = rule.processing if rule.above is None else processing
    bounds = [table.rules[name].above for name in row.derive]
    bound = next((size for size in bounds if size is not None), None)
    label = [*rules, *([row.side] if row.side else [])]
    if processing != "standard" and processing not in label:
        label.append(processing)
    since = "undated" if row.valid_from is None else row.valid_from.date().isoformat()
    return PriceRow(
        id=f"{table.vendor}/{model}/{since}/{'+'.join(label) or 'standard'}/{row.currency}",
        vendor=table.vendor,
        model=model,
        currency=row.currency,
        valid_from=row.valid_from,
        valid_to=row.valid_to,
        window=window,
        inside=row.side != "off-peak",
        input_above=above,
        input_up_to=bound if above is None else None,
        processing=processing,
        input=_times(row.input, inputs),
        cached_read=None if row.cached_read is None else _times(row.cached_read, inputs),
        cache_write=None if row.cache_write is None else _times(row.cache_write, inputs),
        output=_times(row.output, output),
        source=row.source or table.source,
        checked_on=row.checked_on or table.checked_on,
        note=row.note,
    )


def _times(text: str, factor: Fraction) -> int:
    pico = price_pico(text) * factor
    if pico.denominator != 1:
        raise ValueError(f"{text!r} times {factor} is finer than a price can be")
    return pico.numerator
