"""This file knows how prices are shown to people."""

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from droveway.catalog.comparison import Comparison, Savings
from droveway.catalog.listing import as_table_row
from droveway.catalog.pricerow import PriceRow
from droveway.cli import tables
from droveway.money import Money


def show_list(rows: Sequence[PriceRow], at: datetime, currency: str) -> None:
    """Print the prices in force, one line each."""
    shown = tables.table(
        "model", "vendor", "input", "cached", "cache write", "output", "holds for",
        left=("vendor", "holds for"),
    )  # fmt: skip
    for row in rows:
        told = as_table_row(row, at)
        shown.add_row(
            row.model,
            row.vendor,
            told["input"],
            told["cached_read"],
            told["cache_write"],
            told["output"],
            _holds_for(row, at),
        )
    tables.show(
        shown,
        f"\n{len(rows)} prices in {currency} per million tokens, {at:%Y-%m-%d %H:%M %Z}",
    )


def show_row(row: PriceRow, at: datetime) -> None:
    """Print one price."""
    told = as_table_row(row, at)
    label = {
        "input": "input",
        "cached_read": "input read from the cache",
        "cache_write": "input written to it",
        "output": "output, reasoning among it",
    }
    shown = tables.table("per million tokens", row.currency, left=())
    for key, words in label.items():
        shown.add_row(words, told[key])
    checked = "" if row.checked_on is None else f", checked on {row.checked_on}"
    lines = [f"row     {row.id}", f"source  {row.source}{checked}"]
    if told.get("note"):
        lines.append(f"note    {told['note']}")
    title = Text(f"{row.model} at {at:%Y-%m-%d %H:%M %Z} · {_holds_for(row, at)}", style="bold")
    tables.show(title, "", shown, "", *lines)


def show_comparison(compared: Comparison) -> None:
    """Print the same tokens at two models."""
    sides = ((compared.from_row, compared.from_cost), (compared.to_row, compared.to_cost))
    _show_two(sides, compared.difference, percent=str(compared.percent), notes=compared.notes)


def show_savings(saved: Savings, tokens: int) -> None:
    """Print what a month costs at two models."""
    sides = ((saved.current_row, saved.current_cost), (saved.new_row, saved.new_cost))
    assumed = f"{tokens:,} tokens a month: {saved.assumptions}"
    _show_two(sides, saved.savings, percent=str(saved.percent), notes=(assumed, *saved.notes))


def _show_two(
    sides: Sequence[tuple[PriceRow, Money]],
    difference: Money,
    *,
    percent: str,
    notes: Sequence[str],
) -> None:
    shown = tables.table("model", difference.currency, "price row", left=("price row",))
    for row, cost in sides:
        shown.add_row(row.model, cost.decimal(), f" {row.id}")
    word = "saved" if difference.nano >= 0 else "dearer"
    amount = Money(abs(difference.nano), difference.currency).decimal()
    shown.add_section()
    shown.add_row(Text(word, style="bold"), Text(amount, style="bold"), f" {percent} %")
    tables.show(shown, *([""] if notes else []), *(f"· {note}" for note in notes))


def _holds_for(row: PriceRow, at: datetime) -> str:
    """Say in a few words which requests and hours a row is for."""
    words = []
    if row.window is not None:
        words.append("peak hours" if row.inside else "off-peak hours")
    if row.input_above is not None:
        words.append(f"above {row.input_above:,} in")
    elif row.input_up_to is not None:
        words.append(f"up to {row.input_up_to:,} in")
    if not row.holiday_known(at):
        words.append("holiday unknown")
    return ", ".join(words) or "every request"
