"""This file knows which hours and days a price rule means: windows, weekdays and holidays.

Offsets from UTC are fixed ("+08:00"): every rule so far speaks of a place without summer time, and
a small system image has no database of time zones.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from functools import cache
from types import MappingProxyType
from typing import Final

import msgspec

from droveway.catalog.reading import read_table

WEEKDAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_OFFSET: Final = re.compile(r"([+-])(\d{2}):([0-5]\d)")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")


@dataclass(frozen=True, slots=True)
class HolidayCalendar:
    """The public holidays of one place, as far as they were announced.

    Args:
        name: How price rules call it.
        days: Every day off, local dates.
        make_up_days: Weekend days worked in exchange; they stay weekend days.
        years: The years whose notice is known; any other day is unknown.
        source: Where the notice stands.
        checked_on: When it was read.
    """

    name: str
    days: frozenset[date]
    make_up_days: frozenset[date]
    years: frozenset[int]
    source: str
    checked_on: date


@dataclass(frozen=True, slots=True)
class Window:
    """Hours of a week, at a fixed offset from UTC, without holidays.

    Args:
        name: How the price list calls it.
        zone: The fixed offset of the place.
        weekdays: Monday is 0.
        spans: From and to in minutes of the local day; the last minute is not in it.
        holidays: Days that are never inside; None where holidays play no part.
    """

    name: str
    zone: timezone
    weekdays: frozenset[int]
    spans: tuple[tuple[int, int], ...]
    holidays: HolidayCalendar | None = None

    def contains(self, at: datetime) -> bool:
        """Tell whether a moment lies inside; a day of an unknown year is no holiday.

        Args:
            at: A moment with its zone.
        """
        local = at.astimezone(self.zone)
        if local.weekday() not in self.weekdays:
            return False
        minute = local.hour * 60 + local.minute
        for begin, end in self.spans:
            if begin <= minute < end:
                return self.holidays is None or local.date() not in self.holidays.days
        return False

    def holiday_known(self, at: datetime) -> bool:
        """Tell whether it is known if that local day is a holiday."""
        return self.holidays is None or at.astimezone(self.zone).year in self.holidays.years


class WindowTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A window as a price list writes it."""

    offset: str
    weekdays: list[str]
    spans: list[tuple[str, str]]
    holidays: str | None = None

    def window(self, name: str) -> Window:
        """Make the window of it.

        Raises:
            ValueError: An offset, a weekday or an hour is none.
            KeyError: There is no calendar of that name.
        """
        return Window(
            name=name,
            zone=parse_offset(self.offset),
            weekdays=frozenset(_weekday(day) for day in self.weekdays),
            spans=tuple((_minute(begin), _minute(end)) for begin, end in self.spans),
            holidays=None if self.holidays is None else holiday_calendars()[self.holidays],
        )


class _CalendarTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    source: str
    checked_on: date
    years: list[int]
    holidays: list[tuple[date, date]]
    make_up_days: list[date]


class _CalendarsTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    calendars: dict[str, _CalendarTable]


@cache
def holiday_calendars() -> Mapping[str, HolidayCalendar]:
    """The calendars of the package, by name."""
    table = read_table("holidays", _CalendarsTable)
    return MappingProxyType(
        {
            name: HolidayCalendar(
                name=name,
                days=frozenset(day for span in entry.holidays for day in _days(*span)),
                make_up_days=frozenset(entry.make_up_days),
                years=frozenset(entry.years),
                source=entry.source,
                checked_on=entry.checked_on,
            )
            for name, entry in table.calendars.items()
        }
    )


def parse_offset(text: str) -> timezone:
    """Read a fixed offset such as "+08:00".

    Raises:
        ValueError: It is none.
    """
    found = _OFFSET.fullmatch(text)
    if not found:
        raise ValueError(f'{text!r} is no offset from UTC; write one such as "+08:00"')
    sign, hours, minutes = found.groups()
    offset = timedelta(hours=int(hours), minutes=int(minutes))
    return timezone(-offset if sign == "-" else offset)


def _weekday(text: str) -> int:
    if text not in WEEKDAYS:
        raise ValueError(f"{text!r} is no weekday; write one of {', '.join(WEEKDAYS)}")
    return WEEKDAYS.index(text)


def _minute(text: str) -> int:
    if not _CLOCK.fullmatch(text):
        raise ValueError(f'{text!r} is no time of day; write one such as "09:00"')
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
