"""This file knows how tables and terminals look: plain, aligned, and 100 columns without one."""

from collections.abc import Sequence
from typing import Final, Literal

import click
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

COLUMNS: Final = 100
Align = Literal["left", "right"]


def console(*, err: bool = False) -> Console:
    """Return the console of stdout or stderr; off a terminal it is 100 columns wide."""
    made = Console(stderr=err, highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not made.is_terminal:
        made.width = COLUMNS
    return made


def table(*columns: str, left: Sequence[str] = (), tight: bool = False) -> Table:
    """Make a table whose columns are numbers, but for the first and those named in `left`.

    Args:
        columns: Their headings.
        left: Those that hold words.
        tight: Whether one space between columns must do.
    """
    made = Table(
        box=box.SIMPLE_HEAD,
        padding=(0, 0 if tight else 1, 0, 0),
        pad_edge=False,
        show_edge=False,
        header_style="bold",
    )
    for i, name in enumerate(columns):
        text_column = i == 0 or name in left
        made.add_column(Text(name), justify="left" if text_column else "right", overflow="fold")
    return made


def show(*parts: object) -> None:
    """Print tables and lines on stdout; off a terminal without the spaces at line ends."""
    out = console()
    with out.capture() as captured:
        for part in parts:
            out.print(part)
    text = captured.get()
    if not out.is_terminal:
        text = "".join(f"{line.rstrip()}\n" for line in text.splitlines())
    click.echo(text, nl=False)
