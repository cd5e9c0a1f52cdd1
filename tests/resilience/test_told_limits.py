"""Limits that a vendor tells: both families of headers, every form of a reset, and nonsense."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from droveway.resilience.fair_queue import Ticket
from droveway.resilience.pacing import Pacer
from droveway.resilience.told_limits import TELLING, ToldLimits, told_limits

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def openai(limit: str, left: str | None = None, reset: str | None = None) -> dict[str, str]:
    told = {"limit": limit, "remaining": left, "reset": reset}
    return {f"x-ratelimit-{what}-requests": value for what, value in told.items() if value}


def test_openais_headers_tell_requests_and_tokens_a_minute() -> None:
    """Vendor's page, 2026-11."""
    headers = {
        "x-ratelimit-limit-requests": "60",
        "x-ratelimit-limit-tokens": "150000",
        "x-ratelimit-remaining-requests": "59",
        "x-ratelimit-remaining-tokens": "149984",
        "x-ratelimit-reset-requests": "1s",
        "x-ratelimit-reset-tokens": "20ms",
    }
    assert told_limits(headers, now=NOW) == ToldLimits(rpm=60, tpm=150_000)


def test_anthropics_headers_tell_them_with_moments() -> None:
    """Vendor's page, 2026-11."""
    headers = {
        "anthropic-ratelimit-requests-limit": "50",
        "anthropic-ratelimit-requests-remaining": "49",
        "anthropic-ratelimit-requests-reset": "2026-11-23T12:00:01Z",
        "anthropic-ratelimit-tokens-limit": "40000",
        "anthropic-ratelimit-tokens-remaining": "39000",
        "anthropic-ratelimit-tokens-reset": "2026-11-23T13:01:00+01:00",
    }
    assert told_limits(headers, now=NOW) == ToldLimits(rpm=50, tpm=40_000)


@pytest.mark.parametrize("reset", ["0s", "20ms", "1.5s", "59", "1m0s", "1m30s", "61s", "60000ms"])
def test_a_limit_that_resets_within_the_minute_is_one_of_a_minute(reset: str) -> None:
    assert told_limits(openai("60", "3", reset), now=NOW).rpm == 60


@pytest.mark.parametrize(
    "reset", ["6m0s", "1h", "1d2h3m4.5s", "86400", "2026-11-23T12:02:00Z", "2026-11-24T00:00:00"]
)
def test_a_limit_that_resets_later_is_one_of_a_longer_time_and_not_kept(reset: str) -> None:
    assert told_limits(openai("60", "3", reset), now=NOW).rpm is None


@pytest.mark.parametrize("limit", ["", "0", "-5", "many", "1e3", "6.5", "٣", "9" * 5_000, "nan"])
def test_a_limit_that_is_no_number_is_ignored(limit: str) -> None:
    assert told_limits(openai(limit), now=NOW) == ToldLimits()


def test_more_left_than_there_is_makes_no_sense() -> None:
    assert told_limits(openai("60", "61"), now=NOW).rpm is None


@pytest.mark.parametrize("reset", ["soon", "", "ms", "-1s", "2026-13-45"])
def test_a_reset_that_makes_no_sense_says_nothing(reset: str) -> None:
    assert told_limits(openai("60", reset=reset), now=NOW).rpm == 60


@given(st.dictionaries(st.sampled_from(sorted(openai("1", "1", "1"))), st.text(max_size=12)))
def test_no_text_whatever_raises(headers: dict[str, str]) -> None:
    told = told_limits(headers, now=NOW)
    assert told.rpm is None or told.rpm >= 1
    assert all(TELLING in name for name in headers)


def test_a_told_limit_is_kept_where_none_was_set_and_nowhere_else() -> None:
    pacer = Pacer(concurrency=100, tpm=900)
    assert pacer.listens
    pacer.told(ToldLimits(rpm=2, tpm=5))
    assert (pacer.rpm, pacer.tpm) == (2, 900)
    for number in range(4):
        pacer.join(Ticket(number, 1, 0.0), 0.0)
    assert len(pacer.admit(0.0)) == 2
    assert pacer.wake_at(0.0) == 60.0
    pacer.told(ToldLimits(rpm=3))
    pacer.told(ToldLimits())
    assert (pacer.rpm, len(pacer.admit(1.0))) == (3, 1)
    assert not Pacer(concurrency=1, rpm=1, tpm=1).listens
