"""Every shape in which a vendor says how long to wait, and what makes no sense."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.resilience.retry_after import retry_after_s

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
MAX_S = 120.0


def wait(value: str | None = None, *, ms: str | None = None) -> float | None:
    headers = {"retry-after": value, "retry-after-ms": ms}
    told = {name: text for name, text in headers.items() if text is not None}
    return retry_after_s(told, now=NOW, max_s=MAX_S)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [("0", 0.0), ("1", 1.0), ("20", 20.0), ("0.25", 0.25), (" 7 ", 7.0), ("120", 120.0),
     ("121", 120.0), ("1e9", 120.0), ("86400", 120.0), ("9" * 400, None)],
)  # fmt: skip
def test_seconds_are_taken_up_to_the_bound(value: str, seconds: float | None) -> None:
    assert wait(value) == seconds


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0.0), ("250", 0.25), ("1500.5", 1.5005), ("1e9", 120.0)]
)
def test_milliseconds_go_first(value: str, seconds: float) -> None:
    """Vendor quirk: OpenAI sends both, the milliseconds being the exact ones (2026-11)."""
    assert wait("30", ms=value) == seconds
    assert wait(ms=value) == seconds


@pytest.mark.parametrize("garbage", ["", "soon", "-1", "nan", "inf"])
def test_milliseconds_that_make_no_sense_leave_the_word_to_the_seconds(garbage: str) -> None:
    assert wait("30", ms=garbage) == 30.0
    assert wait(ms=garbage) is None


@pytest.mark.parametrize(
    "date",
    [
        "Mon, 23 Nov 2026 12:00:30 GMT",
        "Monday, 23-Nov-26 12:00:30 GMT",
        "Mon Nov 23 12:00:30 2026",
        "Mon, 23 Nov 2026 13:00:30 +0100",
        "Mon, 23 Nov 2026 12:00:30 -0000",
    ],
)
def test_a_date_is_counted_from_now(date: str) -> None:
    """Spec: RFC 9110, 5.6.7: the fixed form and the two obsolete ones."""
    assert wait(date) == 30.0


@pytest.mark.parametrize("days", [-40_000, -1, -0.001, 0])
def test_a_date_that_has_passed_is_no_wait(days: float) -> None:
    assert wait(format_datetime(NOW + timedelta(days=days), usegmt=True)) == 0.0


def test_a_date_far_away_is_cut_to_the_bound() -> None:
    assert wait(format_datetime(NOW + timedelta(days=365), usegmt=True)) == MAX_S


@pytest.mark.parametrize(
    "garbage",
    ["", " ", "-1", "-0.5", "nan", "NaN", "inf", "-inf", "infinity", "soon", "1 s", "1s", "0x10",
     "Mon", "Mon, 99 Nov 2026 12:00:30 GMT", "Mon, 23 Nov 2026 99:00:30 GMT", "23 Nov", ",", "::",
     "Mon, 23 Nov 99999999999 12:00:30 GMT", "1, 2", "\x00", "Mon, 23 Nov 2026 12:00:30 +99999999"],
)  # fmt: skip
def test_what_makes_no_sense_is_none(garbage: str) -> None:
    assert wait(garbage) is None


def test_no_header_is_none() -> None:
    assert wait() is None


words = st.lists(
    st.sampled_from(
        ["Mon", "Mon,", "Monday,", "23", "23-Nov-26", "Nov", "2026", "0", "-1", "12:00:30", "99:99",
         "GMT", "+0100", "-9999", "+99999999999", "(", ")", ",", "1e9", "nan", ":", "²", "T"]
    ), max_size=7,
).map(" ".join)  # fmt: skip


@given(words | st.text(max_size=30) | st.floats().map(str) | st.datetimes().map(format_datetime))
def test_any_text_is_a_wait_within_the_bound_or_none(value: str) -> None:
    for seconds in (wait(value), wait(ms=value), wait(value, ms=value)):
        assert seconds is None or 0 <= seconds <= MAX_S
