"""This file knows how the matrix is printed: `python -m faults.show`, green or red, cell by cell."""

import asyncio
import logging
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import click
from rich.text import Text

from droveway.cli.tables import console, table
from faults.matrix import ACCENTS, FACES, FAULTS, Place, places
from faults.playing import Played, play

AT_ONCE: Final = 4
CELL_S: Final = 30.0
COLUMNS_WIDE: Final = 280


@click.command()
@click.argument("names", nargs=-1)
def main(names: tuple[str, ...]) -> None:
    """Play every cell, or those of the faults that are named, and print the table."""
    # Each failed request has its line in the log; here failures are what is wanted.
    logging.getLogger("droveway").setLevel(logging.CRITICAL)
    rows = [name for name in FAULTS if not names or name in names]
    wanted = [place for face in FACES for place in places(face) if place.fault in rows]
    played = asyncio.run(_play_all(wanted))
    _print(rows, played)
    wrong = {place: found for place, found in played.items() if found.wrong}
    for place, found in wrong.items():
        click.echo(f"{place} (due: {place.cell})")
        for what in found.wrong:
            click.echo(f"    {what}")
    click.echo(f"{len(played) - len(wrong)} of {len(played)} cells are as they must be")
    sys.exit(1 if wrong else 0)


async def _play_all(wanted: list[Place]) -> dict[Place, Played]:
    turns, played = asyncio.Semaphore(AT_ONCE), dict[Place, Played]()

    async def one(place: Place) -> None:
        async with turns, asyncio.timeout(CELL_S):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    played[place] = await play(place, Path(folder))
                except Exception as error:
                    played[place] = Played(shown="broke", wrong=[repr(error)])
            if sys.stderr.isatty():
                click.echo(f"\r{len(played)} of {len(wanted)} cells", nl=False, err=True)

    await asyncio.gather(*map(one, wanted))
    if sys.stderr.isatty():
        click.echo("\r", nl=False, err=True)
    return played


def _columns() -> Iterable[tuple[str, Place]]:
    for face in FACES:
        for accent in ACCENTS:
            for stream in (True, False):
                place = Place("", stream, accent, face)
                yield place.column, place


def _print(rows: list[str], played: dict[Place, Played]) -> None:
    columns = dict(_columns())
    shown = table("fault", *columns, left=tuple(columns))
    for fault in rows:
        cells = [played[place._replace(fault=fault)] for place in columns.values()]
        shown.add_row(
            Text(fault),
            *(Text(cell.shown, style="red" if cell.wrong else "green") for cell in cells),
        )
    out = console()
    out.width = max(out.width, COLUMNS_WIDE)
    out.print(shown)


if __name__ == "__main__":
    main()
