"""This file knows what a vendor's usage export comes to: read row by row, summed up by period.

Any file a person can save is expected here: whatever cannot be read is one line with the file's
name and the line's number. A file is never held as a whole; only its sums are.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from pathlib import Path

import msgspec

from droveway.engine.vendor_cells import (
    DAY_LEAST,
    EXACT,
    By,
    count,
    local,
    moment,
    number,
    period_start,
    shown,
)
from droveway.engine.vendor_columns import KINDS, Layout, recognise
from droveway.engine.vendor_file import Table, opened_table
from droveway.engine.vendor_sums import COUNTS, INPUT_PARTS, Said, Sums
from droveway.errors import BadRequestError
from droveway.money import Money
from droveway.storage.moments import micros

# A period's beginning in microseconds, and the model; an empty word for no model.
Key = tuple[int, str]


class Export(msgspec.Struct, frozen=True, kw_only=True):
    """What an export says.

    Attributes:
        by: How long its periods are.
        zone: Whose hours and days they are.
        currency: Of its costs.
        per_model: Whether it tells models apart.
        tells: Which of requests, input, cached and output it tells at all.
        sums: By the beginning of a period and the model.
        first: Where its first period begins.
        last: Where its last period begins.
        rows: How many rows it has.
        left_out: How many of them are in other currencies than the one asked for.
        kinds: Types of rows of which only the money counts.
    """

    by: By
    zone: tzinfo
    currency: str
    per_model: bool
    tells: frozenset[str]
    sums: Mapping[Key, Sums]
    first: datetime
    last: datetime
    rows: int
    left_out: int
    kinds: tuple[str, ...]


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """How an export is to be read, where it does not say so itself.

    Attributes:
        zone: Whose hours and days count; None for those of its own offsets, or UTC.
        by: How long periods are; None for as short as the export has them.
        currency: The one to compare; None for the export's own.
        columns: Meaning → name of its column.
    """

    zone: tzinfo | None = None
    by: By | None = None
    currency: str | None = None
    columns: Mapping[str, str] = {}


def read_export(paths: Sequence[Path], wishes: Wishes) -> Export:
    """Read the files of one export: DeepSeek's has its quantities and its costs apart.

    Raises:
        BadRequestError: Something in them cannot be read; the message says where.
    """
    reading = _Reading(wishes)
    for path in paths:
        reading.read(path)
    return reading.result()


class _Reading:
    """Sums up the rows of files."""

    def __init__(self, wishes: Wishes) -> None:
        self._wishes = wishes
        self._layouts: list[Layout] = []
        self._hours: dict[Key, Said] = {}
        self._zone = wishes.zone
        self._offset: timedelta | None = None
        self._day_at = ""
        self._within_days = False
        self._currency = wishes.currency
        self._rows = self._left_out = 0
        self._span: tuple[datetime, datetime] | None = None
        self._kinds: set[str] = set()
        self._told: set[str] = set()

    def read(self, path: Path) -> None:
        """Read one file."""
        with opened_table(path) as table:
            layout = recognise(table.header, self._wishes.columns)
            self._layouts.append(layout)
            for cells in table:
                self._row(cells, layout, table)

    def _row(self, cells: list[str], layout: Layout, table: Table) -> None:
        if len(cells) != layout.cells and (len(cells) < layout.cells or any(cells[layout.cells :])):
            raise ValueError(f"there are {len(cells)} cells under {layout.cells} columns")
        self._rows += 1
        at = self._moment(cells, layout, table)
        said = self._said(cells, layout, semicolons=table.semicolons)
        if not self._currency_fits(cells, layout, empty=not (said.cost or said.priced)):
            self._left_out += 1
            return
        place = layout.place("model")
        model = "" if place is None else cells[place].strip()
        if self._span is None:
            self._span = (at, at)
        elif not self._span[0] <= at <= self._span[1]:
            self._span = (min(self._span[0], at), max(self._span[1], at))
        if said.counts or said.cost or said.priced:
            key = (micros(period_start(at, "hour")), model)
            known = self._hours.setdefault(key, said)
            if known is not said:
                known.add(said)

    def _moment(self, cells: list[str], layout: Layout, table: Table) -> datetime:
        (place,) = layout.places["moment"]
        at, whole_day = moment(cells[place], self._wishes.zone)
        offset = at.utcoffset()
        if self._offset is None:
            self._offset, self._zone = offset, at.tzinfo
        elif offset != self._offset and self._wishes.zone is None:
            raise ValueError(
                f"{shown(cells[place])} has another offset from UTC than rows before it; say whose "
                "days count, as in --zone Europe/Berlin"
            )
        until = layout.place("until")
        if until is not None and cells[until].strip():
            whole_day = moment(cells[until], self._wishes.zone).at - at >= DAY_LEAST
            self._within_days |= not whole_day
        if whole_day and not self._day_at:
            self._day_at = table.where
        if not (self._within_days or whole_day):
            self._within_days = at != period_start(at, "day")
        return at

    def _said(self, cells: list[str], layout: Layout, *, semicolons: bool) -> Said:
        said = Said()
        if layout.long:
            self._long(said, cells, layout, semicolons=semicolons)
        for meaning in COUNTS:
            for place in layout.places.get(meaning, ()):
                cell = cells[place]
                if cell.strip():
                    many = count(cell, semicolons=semicolons)
                    said.counts[meaning] = said.counts.get(meaning, 0) + many
        if "request" in layout.places:
            said.counts.setdefault("requests", 1)
        cost = layout.place("cost")
        if cost is not None:
            self._told.add("cost")
            if cells[cost].strip():
                said.cost = number(cells[cost], semicolons=semicolons)
        self._told |= said.counts.keys()
        return said

    def _long(self, said: Said, cells: list[str], layout: Layout, *, semicolons: bool) -> None:
        kind, quantity, price = (
            cells[layout.places[meaning][0]].strip() for meaning in ("kind", "quantity", "price")
        )
        meaning = KINDS.get(kind.lower())
        if quantity and meaning is not None:
            said.counts[meaning] = count(quantity, semicolons=semicolons)
        elif kind and meaning is None:
            self._kinds.add(kind)
        if quantity and price:
            self._told.add("priced")
            said.priced = EXACT.multiply(
                number(quantity, semicolons=semicolons), number(price, semicolons=semicolons)
            )

    def _currency_fits(self, cells: list[str], layout: Layout, *, empty: bool) -> bool:
        place = layout.place("currency")
        told = layout.currency if place is None else cells[place].strip().upper()
        if not told or empty:
            return True
        if self._currency is None:
            self._currency = Money.zero(told).currency
        if told != self._currency and self._wishes.currency is None:
            raise ValueError(
                f"it is in {told}, and rows before it are in {self._currency}; compare one at a "
                f"time: --currency {told}"
            )
        return told == self._currency

    def result(self) -> Export:
        """Return what all the files come to."""
        named = {meaning for layout in self._layouts for meaning in layout.named}
        for meaning, name in self._wishes.columns.items():
            if meaning not in named:
                raise BadRequestError(f"there is no column {name!r} for {meaning!r} in the export")
        if self._span is None or self._zone is None:
            raise BadRequestError("the export has no rows that could be compared")
        if not self._told & {"cost", "priced"}:
            raise BadRequestError(
                "the export tells no cost; give the file that does as well, or name its column: "
                "--column cost=NAME"
            )
        if self._currency is None:
            raise BadRequestError("the export does not say its currency; add --currency USD or CNY")
        by = self._by()
        per_model = all("model" in layout.places for layout in self._layouts)
        sums = self._folded(by, per_model=per_model)
        return Export(
            by=by,
            zone=self._zone,
            currency=self._currency,
            per_model=per_model,
            tells=frozenset(
                self._told | ({"input"} if self._told.intersection(INPUT_PARTS) else set())
            ),
            sums={key: said.sums(self._told) for key, said in sums.items()},
            first=period_start(self._span[0], by),
            last=period_start(self._span[1], by),
            rows=self._rows,
            left_out=self._left_out,
            kinds=tuple(sorted(self._kinds)),
        )

    def _by(self) -> By:
        if self._wishes.by == "hour" and self._day_at:
            raise BadRequestError(f"{self._day_at} tells of a whole day: --by day")
        days = bool(self._day_at) or not self._within_days
        return self._wishes.by or ("day" if days else "hour")

    def _folded(self, by: By, *, per_model: bool) -> dict[Key, Said]:
        assert self._zone is not None, "there are rows"
        folded: dict[Key, Said] = {}
        for (start, model), said in self._hours.items():
            begins = micros(period_start(local(start, self._zone), by))
            folded.setdefault((begins, model if per_model else ""), Said()).add(said)
        return folded
