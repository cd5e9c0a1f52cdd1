"""This file knows how the figures of a run are shown: a table per role, and what it came to."""

from collections.abc import Sequence

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from droveway.cli import tables
from droveway.cli.figures import Book, Figures
from droveway.cli.percentile import percentile
from droveway.money import Money


def roles_table(book: Book, *, again: bool = False) -> Table:
    """Draw the figures by role.

    Args:
        book: The figures; roles without a task are left out.
        again: Whether to show how many tasks were asked again.
    """
    columns = ["role", "ok", "fail", "retry", *(["again"] if again else [])]
    columns += ["tokens\nin", "\ncache", "\nout", "\nthink"]
    columns += ["TTFT s\np50/p95", "latency s\np50/p95/p99", f"cost\n{_currency(book.total)}"]
    drawn = tables.table(*columns, tight=True)
    for column in drawn.columns:
        column.no_wrap = True
        column.vertical = "bottom"
    for role, figures in book.by_role.items():
        if figures.done:
            drawn.add_row(*_row(role, figures, again=again))
    drawn.add_section()
    drawn.add_row(*_row("all", book.total, again=again), style="bold")
    return drawn


def _row(name: str, figures: Figures, *, again: bool) -> list[Text | str]:
    usage = figures.spending.usage
    return [
        name,
        str(figures.ok),
        Text(str(figures.not_ok), style="red" if figures.not_ok else ""),
        str(figures.retries),
        *([str(figures.asked_again)] if again else []),
        count(usage.input_total),
        count(usage.cached_read),
        count(usage.output),
        count(usage.reasoning),
        spans(figures.first_token_ms, (50, 95)),
        spans(figures.latency_ms, (50, 95, 99)),
        amount(figures.spending.cost, places=4),
    ]


def totals_lines(book: Book, wall_s: float) -> list[str]:
    """Say what all of it came to: outcome, time, tokens, money."""
    total = book.total
    usage, spending = total.spending.usage, total.spending
    rate = f"{100 * total.ok / total.done:.1f} %" if total.done else "none"
    cost = "unknown" if spending.cost is None else str(spending.cost)
    if spending.unpriced:
        cost += f", without {spending.unpriced} requests to unpriced models"
    answered = f"{total.ok} of {total.done} tasks answered ({rate}) in {wall_s:.1f} s"
    read = f"{usage.input_total:,} tokens in ({usage.cached_read:,} of them cached)"
    written = f"{usage.output:,} out ({usage.reasoning:,} of them reasoning)"
    return [
        f"{answered}: {spending.requests} calls, {spending.attempts} requests sent",
        f"{read}, {written}",
        f"cost {cost}",
    ]


def bar(book: Book, wall_s: float, *, total: int | None) -> Table:
    """Draw how far a run is, in one line."""
    line = Table.grid(padding=(0, 1))
    line.add_row(
        progress_bar(book.total.done, total, width=40),
        progress(book, wall_s, total),
    )
    return line


def progress_bar(done: int, total: int | None, *, width: int) -> ProgressBar:
    """Draw a bar; the library's own red would say that something is wrong."""
    return ProgressBar(
        total=total, completed=done, width=width, complete_style="cyan", finished_style="green"
    )


def progress(book: Book, wall_s: float, total: int | None) -> str:
    """Say how far a run is."""
    figures = book.total
    of = "" if total is None else f"/{total}"
    said = f"{wall_s:5.1f} s  {figures.done}{of} done, {figures.ok} ok"
    if figures.not_ok:
        said += f", {figures.not_ok} not"
    if figures.retries:
        said += f", {figures.retries} retries"
    return f"{said}, {count(figures.spending.usage.output)} tokens out"


def count(number: int) -> str:
    """Write a number of tokens in at most five signs."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**4, "k")):
        if number >= size:
            scale = min(size, 10**3) if unit == "k" else size
            short = f"{number / scale:.1f}"
            return f"{short if len(short) < 5 else short[:-2]}{unit}"
    return str(number)


def spans(values_ms: Sequence[float], percents: Sequence[int]) -> str:
    """Write percentiles of milliseconds as seconds."""
    found = [percentile(values_ms, percent) for percent in percents]
    return "/".join("-" if value is None else f"{value / 1e3:.2f}" for value in found)


def amount(money: Money | None, *, places: int) -> str:
    """Write an amount rounded, for people."""
    return "?" if money is None else money.rounded(places)


def _currency(figures: Figures) -> str:
    cost = figures.spending.cost
    return "" if cost is None else cost.currency
