"""This file knows what the demo looks like: while it runs, and when it is over."""

from collections.abc import Sequence

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from droveway.cli import run_tables, tables
from droveway.cli.demo_account import Account
from droveway.cli.demo_bill import Bill
from droveway.cli.demo_provider import Misdeed
from droveway.cli.figures import Book
from droveway.cli.same_tokens import Elsewhere
from droveway.money import Money

BAR_WIDTH = 24


def live(book: Book, wall_s: float) -> RenderableType:
    """Draw the screen of a demo on its way."""
    drawn = tables.table("role", "", "done", "fail", "retry", "again", "tokens out", left=("",))
    for role, figures in book.by_role.items():
        drawn.add_row(
            role,
            run_tables.progress_bar(figures.done, figures.tasks or 1, width=BAR_WIDTH),
            f"{figures.done}/{figures.tasks}",
            Text(str(figures.not_ok or "-"), style="red" if figures.not_ok else "dim"),
            Text(str(figures.retries or "-"), style="yellow" if figures.retries else "dim"),
            Text(str(figures.asked_again or "-"), style="yellow" if figures.asked_again else "dim"),
            run_tables.count(figures.spending.usage.output),
        )
    drawn.add_section()
    whole = run_tables.progress(book, wall_s, book.total.tasks)
    grid = Table.grid()
    grid.add_row(drawn)
    grid.add_row(Text(whole, style="bold"))
    return grid


def account_parts(account: Account) -> list[object]:
    """Draw what it came to: roles, totals, the provider's misdeeds, prices elsewhere."""
    parts: list[object] = [run_tables.roles_table(account.book, again=True), ""]
    total = account.book.total
    parts += run_tables.totals_lines(account.book, account.wall_s)
    if total.asked_again:
        parts.append(
            f"{account.at_first} at the first asking; {total.asked_again} were asked again as a "
            "whole, timed from the first asking"
        )
    if account.reason is not None:
        parts.append(f"{total.not_ok} have no answer, most often because: {account.reason}")
    if account.sockets is not None:
        parts.append(f"{account.sockets} connections were opened in all")
    if account.misdeeds:
        parts += ["", _misdeeds_table(account.misdeeds)]
    if account.bill is not None:
        parts += ["", _bill_table(account.bill), _verdict(account.bill)]
    if total.spending.usage.output:
        parts += ["", _elsewhere_table(account.elsewhere, total.spending.cost)]
    return parts


def _misdeeds_table(misdeeds: Sequence[Misdeed]) -> Table:
    drawn = tables.table(
        "What the provider did", "times", "task answered", "asked again for it", "not answered"
    )
    for each in misdeeds:
        lost = each.times - each.answered
        drawn.add_row(
            each.words,
            str(each.times),
            str(each.answered),
            str(each.asked_again or "-"),
            Text(str(lost or "-"), style="red" if lost else ""),
        )
    sums = [sum(getattr(each, name) for each in misdeeds) for name in ("times", "answered")]
    drawn.add_section()
    drawn.add_row("all", str(sums[0]), str(sums[1]), "", str(sums[0] - sums[1]), style="bold")
    return drawn


def _bill_table(bill: Bill) -> Table:
    counted = bill.charges - bill.told
    drawn = tables.table("The statement of the account, and what proves it", "requests", "USD")
    drawn.add_row("paid in", "", bill.topped_up.decimal(places_min=9))
    drawn.add_row("sign-up credit, spent first", "", bill.credit.decimal(places_min=9))
    drawn.add_row("used, by the statement", f"{bill.charges:,}", bill.charged.decimal(places_min=9))
    drawn.add_row("left", "", bill.left.decimal(places_min=9))
    drawn.add_section()
    drawn.add_row(
        "the provider's journal: its tokens x price rows",
        f"{bill.told:,}",
        bill.vendor.decimal(places_min=9),
    )
    drawn.add_row(
        "cut, or without a count of theirs: by our count",
        f"{counted:,}",
        bill.counted.decimal(places_min=9),
    )
    drawn.add_row("unexplained", "", bill.unexplained.decimal(places_min=9), style="bold")
    return drawn


def _verdict(bill: Bill) -> Text:
    if bill.is_right:
        return Text("the ledger is as it must be, and the statement is right to the nano-unit")
    return Text(
        f"the statement is wrong by {bill.unexplained}, and the ledger has {bill.faults} faults",
        style="red",
    )


def _elsewhere_table(found: Sequence[Elsewhere], paid: Money | None) -> Table:
    drawn = tables.table("The same tokens on", "cost USD", "times what this run cost")
    for each in found:
        name = each.model if each.hours is None else f"{each.model}, {each.hours}"
        # A ratio for people; whole tenths, so that no float comes near money.
        tenths = each.cost.nano * 10 // paid.nano if paid is not None and paid.nano else None
        ratio = "-" if tenths is None else f"{tenths // 10}.{tenths % 10}"
        drawn.add_row(name, run_tables.amount(each.cost, places=4), ratio)
    return drawn
