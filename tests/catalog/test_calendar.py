"""Windows of hours, and the days on which they do not open."""

from datetime import UTC, date, datetime, timedelta

import pytest

from droveway.catalog.calendar import WindowTable, holiday_calendars, parse_offset
from droveway.catalog.pricelists import built_in_book

CHINA = holiday_calendars()["china"]
PEAK = WindowTable(
    offset="+08:00",
    weekdays=["mon", "tue", "wed", "thu", "fri"],
    spans=[("09:00", "12:00"), ("14:00", "18:00")],
    holidays="china",
).window("peak")


def beijing(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=parse_offset("+08:00"))


def test_the_holidays_of_2026_are_those_of_the_notice() -> None:
    """Spec: State Council notice of 2025-11-04: 33 days off, 6 weekend days worked."""
    assert CHINA.source.startswith("https://")
    assert CHINA.checked_on <= date(2026, 11, 23)
    assert {day.year for day in CHINA.days} == set(CHINA.years) == {2026}
    assert len(CHINA.days) == 3 + 9 + 3 + 5 + 3 + 3 + 7
    assert len(CHINA.make_up_days) == 6
    assert all(day.weekday() >= 5 for day in CHINA.make_up_days)
    assert not CHINA.days & CHINA.make_up_days


@pytest.mark.parametrize("day", sorted(CHINA.days))
def test_no_hour_of_a_holiday_is_inside(day: date) -> None:
    start = beijing(f"{day}T00:00")
    assert not any(PEAK.contains(start + timedelta(minutes=30 * n)) for n in range(48))


@pytest.mark.parametrize("day", sorted(CHINA.make_up_days))
def test_a_weekend_day_worked_in_exchange_is_still_a_weekend_day(day: date) -> None:
    assert not PEAK.contains(beijing(f"{day}T10:00"))


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("2026-11-23T08:59:59.999999", False),
        ("2026-11-23T09:00:00", True),
        ("2026-11-23T11:59:59.999999", True),
        ("2026-11-23T12:00:00", False),
        ("2026-11-23T13:59:59", False),
        ("2026-11-23T14:00:00", True),
        ("2026-11-23T17:59:59", True),
        ("2026-11-23T18:00:00", False),
        ("2026-11-21T10:00:00", False),
        ("2026-11-22T10:00:00", False),
    ],
)
def test_a_window_begins_with_its_first_second_and_ends_before_its_last(
    text: str,
    inside: bool,  # noqa: FBT001  a column of the table above
) -> None:
    assert PEAK.contains(beijing(text)) is inside
    assert PEAK.contains(beijing(text).astimezone(UTC)) is inside


def test_a_year_without_a_notice_is_unknown_and_priced_as_ordinary() -> None:
    """The year is the local one: it turns at 16:00 UTC."""
    last_second = datetime(2026, 12, 31, 15, 59, 59, tzinfo=UTC)
    assert PEAK.holiday_known(last_second)
    assert not PEAK.holiday_known(last_second + timedelta(seconds=1))
    assert PEAK.contains(beijing("2027-01-01T10:00"))
    new_year = datetime(2027, 1, 1, 2, tzinfo=UTC)
    assert not built_in_book().find(None, "deepseek-flash", at=new_year).holiday_known(new_year)
    assert built_in_book().find(None, "gpt-4.1", at=new_year).holiday_known(new_year)


def test_a_window_without_holidays_opens_on_them() -> None:
    plain = WindowTable(offset="-03:30", weekdays=["thu"], spans=[("22:00", "24:00")]).window("n")
    assert plain.holidays is None
    assert plain.contains(datetime(2026, 10, 2, 3, 29, 59, tzinfo=UTC))
    assert not plain.contains(datetime(2026, 10, 2, 3, 30, tzinfo=UTC))
    assert plain.holiday_known(datetime(2040, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize("text", ["", "8", "+8:00", "+08:60", "Asia/Shanghai", "08:00"])
def test_an_offset_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no offset"):
        parse_offset(text)


@pytest.mark.parametrize("text", ["9:00", "25:00", "24:01", "noon"])
def test_an_hour_that_is_none_is_refused(text: str) -> None:
    table = WindowTable(offset="+00:00", weekdays=["mon"], spans=[(text, "12:00")])
    with pytest.raises(ValueError, match="no time of day"):
        table.window("x")


def test_an_unknown_weekday_or_calendar_is_refused() -> None:
    with pytest.raises(ValueError, match="funday"):
        WindowTable(offset="+00:00", weekdays=["funday"], spans=[]).window("x")
    with pytest.raises(KeyError, match="mars"):
        WindowTable(offset="+00:00", weekdays=[], spans=[], holidays="mars").window("x")
