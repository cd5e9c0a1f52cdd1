"""This file knows how a cell of a vendor's export is read: numbers exactly, moments with a zone."""

import re
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow
from functools import lru_cache
from typing import Final, Literal, NamedTuple

from droveway.storage import moments

By = Literal["hour", "day"]

# Room for any sum and any product of two cells: what would have to be rounded raises.
EXACT: Final = Context(prec=200, traps=[Inexact, InvalidOperation, Overflow])
CELL_SHOWN_MAX: Final = 40
DIGITS_MAX: Final = 15
AMOUNT_MAX: Final = Decimal(10) ** DIGITS_MAX
DIGITS_AFTER_POINT_MAX: Final = 40
YEARS: Final = range(2000, 2200)
# From so much of a day on, a row that tells its end tells of a day: those of daylight saving time.
DAY_LEAST: Final = timedelta(hours=23)

_PLAIN: Final = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?")
_COMMA_GROUPS: Final = re.compile(r"[+-]?[1-9][0-9]{0,2}(,[0-9]{3})+(\.[0-9]{1,40})?")
_DOT_GROUPS: Final = re.compile(r"[+-]?[1-9][0-9]{0,2}(\.[0-9]{3})+(,[0-9]{1,40})?")
_DECIMAL_COMMA: Final = re.compile(r"[+-]?[0-9]{1,15},[0-9]{1,40}")
_DIGITS: Final = re.compile(r"[0-9]+")


def number(cell: str, *, semicolons: bool) -> Decimal:
    """Read a number, exactly; a sign between digits must have one meaning only.

    Args:
        cell: "0.0546390000000000", "5.6e-05", "1,234.50", "1.234,50" or "0,05".
        semicolons: Whether the cells are parted by semicolons, as programs do that write a comma
            for the point: there even "1.234" has two meanings.

    Raises:
        ValueError: It is no number, or may be two different ones.
    """
    text = cell.strip()
    if _PLAIN.fullmatch(text) and not (semicolons and _DOT_GROUPS.fullmatch(text)):
        return _bounded(text, cell)
    if _COMMA_GROUPS.fullmatch(text) or _DOT_GROUPS.fullmatch(text):
        signs = re.findall(r"[.,]", text)
        if len(signs) == 1:
            raise ValueError(
                f"{shown(cell)} may be a thousand times another number; write numbers without "
                "thousands separators"
            )
        thousands = signs[0]
        return _bounded(text.replace(thousands, "").replace(",", "."), cell)
    if _DECIMAL_COMMA.fullmatch(text):
        return _bounded(text.replace(",", "."), cell)
    raise ValueError(f"{shown(cell)} is no number")


def count(cell: str, *, semicolons: bool) -> int:
    """Read a whole number, such as tokens; "59200.0" is one (OpenAI's exports, 2025-10).

    Raises:
        ValueError: It is no whole number, is negative, or may be two different ones.
    """
    if _DIGITS.fullmatch(cell) and len(cell) <= DIGITS_MAX:
        return int(cell)
    text = cell.strip()
    if _COMMA_GROUPS.fullmatch(text) and "." not in text:
        text = text.replace(",", "")  # no part of a token follows the comma
    told = number(text, semicolons=semicolons)
    if told < 0 or told != told.to_integral_value():
        raise ValueError(f"{shown(cell)} is no whole number")
    return int(told)


def shown(cell: str) -> str:
    """Quote a cell in a message, cut to what fits in a line."""
    return repr(cell if len(cell) <= CELL_SHOWN_MAX else f"{cell[:CELL_SHOWN_MAX]}…")


class Told(NamedTuple):
    """A moment as a cell tells it.

    Attributes:
        at: The moment, in the zone whose hours and days count.
        whole_day: Whether it is a date without a time.
    """

    at: datetime
    whole_day: bool


# The rows of an hour stand together: most cells were read just before.
@lru_cache(maxsize=4096)
def moment(cell: str, zone: tzinfo | None) -> Told:
    """Read a moment: ISO 8601, a date as 2026-11-23 or 20261123, or seconds since 1970.

    Args:
        cell: The cell.
        zone: In which moments without an offset are, and into which others are brought; None
            takes UTC for those without one, and leaves the others their own.

    Raises:
        ValueError: It is none.
    """
    text = cell.strip().removesuffix(" UTC")
    try:
        at, whole_day = _moment(text)
    except (ValueError, OverflowError, OSError):
        at, whole_day = None, False
    if at is None or at.year not in YEARS:
        raise ValueError(f"{shown(cell)} is no moment; it is read as ISO 8601")
    if at.tzinfo is None:
        return Told(at.replace(tzinfo=zone or UTC), whole_day)
    return Told(at if zone is None else at.astimezone(zone), whole_day)


def period_start(at: datetime, by: By) -> datetime:
    """Return the beginning of the hour or day of a moment, in the moment's own zone."""
    start = at.replace(minute=0, second=0, microsecond=0)
    return start.replace(hour=0, fold=0) if by == "day" else start


def local(at_us: int, zone: tzinfo) -> datetime:
    """Return a moment of so many microseconds since 1970, in a zone."""
    return moments.moment(at_us).astimezone(zone)


def _moment(text: str) -> tuple[datetime, bool]:
    if _DIGITS.fullmatch(text) and len(text) in {10, 13}:
        return datetime.fromtimestamp(int(text[:10]), UTC), False
    at = datetime.fromisoformat(text)
    try:
        return datetime.combine(date.fromisoformat(text), at.time()), True
    except ValueError:
        return at, False


def _bounded(text: str, cell: str) -> Decimal:
    told = Decimal(text)
    if "e" not in text.lower() and len(text) <= DIGITS_MAX:
        return told
    exponent = told.as_tuple().exponent
    assert isinstance(exponent, int), "the patterns above let no infinity in"
    if abs(told) >= AMOUNT_MAX or exponent < -DIGITS_AFTER_POINT_MAX:
        raise ValueError(f"{shown(cell)} is larger or finer than an amount can be")
    return told
