"""This file knows how a price row is shown: decimal strings per million tokens."""

from datetime import datetime

from droveway.catalog.pricerow import PriceRow
from droveway.money import price_text


def as_table_row(row: PriceRow, at: datetime) -> dict[str, str | None]:
    """Write a row as `prices show --json` does.

    Args:
        row: A row of the book.
        at: The moment it was asked for, with its zone.

    Returns:
        `model`, `currency`, `at`, `input`, `cached_read`, `cache_write`, `output`, `row`,
        `source`, `checked_on`, and `note` where there is something to say. The four prices are
        what is charged: a class that the list does not name is charged as input. `checked_on` is
        None for an own price.
    """
    shown: dict[str, str | None] = {
        "model": row.model,
        "currency": row.currency,
        "at": at.isoformat(),
        "input": price_text(row.input),
        "cached_read": price_text(row.input if row.cached_read is None else row.cached_read),
        "cache_write": price_text(row.input if row.cache_write is None else row.cache_write),
        "output": price_text(row.output),
        "row": row.id,
        "source": row.source,
        "checked_on": None if row.checked_on is None else row.checked_on.isoformat(),
    }
    notes = [row.note] if row.note else []
    if row.input_above is not None:
        notes.append(f"for requests above {row.input_above:,} input tokens")
    if row.processing != "standard":
        notes.append(f"{row.processing} processing")
    if not row.holiday_known(at):
        notes.append("holiday unknown: priced as an ordinary weekday")
    return {**shown, "note": "; ".join(notes)} if notes else shown
