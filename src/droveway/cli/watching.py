"""This file knows how people watch a run: a live screen on a terminal, a line now and then else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import click
from rich.console import RenderableType
from rich.live import Live

from droveway.cli import tables
from droveway.clock import SystemClock

FRAMES_PER_S: Final = 8
LINE_EVERY_S: Final = 2.0


@asynccontextmanager
async def watching(
    *, screen: Callable[[], RenderableType], line: Callable[[], str]
) -> AsyncIterator[None]:
    """Show on stderr how a run goes, while the block runs.

    Args:
        screen: Draws the whole screen, for a terminal; it vanishes at the end.
        line: Says it in one line, for a file or a pipe.
    """
    console = tables.console(err=True)
    if console.is_terminal:
        with Live(
            get_renderable=screen,
            console=console,
            refresh_per_second=FRAMES_PER_S,
            transient=True,
        ):
            yield
        return
    ticking = asyncio.create_task(_tick(line))
    try:
        yield
    finally:
        ticking.cancel()
        await asyncio.wait([ticking])


async def _tick(line: Callable[[], str]) -> None:
    clock = SystemClock()
    while True:
        await clock.sleep(LINE_EVERY_S)
        click.echo(line(), err=True)
