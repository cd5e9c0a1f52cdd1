"""This file knows the limits per minute that a vendor tells in the headers of its answers.

OpenAI and those who speak like it send `x-ratelimit-{limit,remaining,reset}-{requests,tokens}`, the
reset as a span: `1s`, `6m0s`, `20ms` (platform.openai.com/docs/guides/rate-limits, 2026-11).
Anthropic sends `anthropic-ratelimit-{requests,tokens}-{limit,remaining,reset}`, the reset as a
moment of RFC 3339 (docs.anthropic.com/en/api/rate-limits, 2026-11). Neither says how long the time
is for which a limit holds: it is a minute, unless the reset lies further away than that.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

# What the names of all these headers have in common: to look for it costs next to nothing.
TELLING: Final = "ratelimit"
# A limit of a day resets in hours. Clocks differ, and some vendors round up.
RESET_MAX_S: Final = 90.0
LIMIT_MAX: Final = 10**12
_SPAN: Final = re.compile(
    r"(?=[0-9])(?:([0-9]{1,6})d)?(?:([0-9]{1,6})h)?(?:([0-9]{1,6})m(?!s))?"
    r"(?:([0-9]{1,12}(?:\.[0-9]{1,12})?)(ms|s)?)?"
)
_COUNT: Final = re.compile(r"[0-9]{1,13}")


@dataclass(frozen=True, slots=True)
class ToldLimits:
    """What a vendor tells of an account's limits.

    Attributes:
        rpm: Requests a minute; None when it tells nothing that makes sense, as for the other.
        tpm: Tokens a minute.
    """

    rpm: int | None = None
    tpm: int | None = None


def told_limits(headers: Mapping[str, str], *, now: datetime) -> ToldLimits:
    """Read the limits per minute; nonsense counts as not told.

    Args:
        headers: Names in lower case.
        now: The wall clock, UTC; moments are counted from here.
    """
    return ToldLimits(
        rpm=_limit(headers, "requests", now=now), tpm=_limit(headers, "tokens", now=now)
    )


def _limit(headers: Mapping[str, str], noun: str, *, now: datetime) -> int | None:
    for form in ("x-ratelimit-{what}-{noun}", "anthropic-ratelimit-{noun}-{what}"):
        limit, left, reset = (
            headers.get(form.format(what=what, noun=noun))
            for what in ("limit", "remaining", "reset")
        )
        most = _count(limit)
        if not most or most > LIMIT_MAX:
            continue
        remaining = _count(left)
        if remaining is not None and remaining > most:
            continue
        reset_s = None if reset is None else _seconds(reset, now)
        if reset_s is None or reset_s <= RESET_MAX_S:
            return most
    return None


def _count(text: str | None) -> int | None:
    text = (text or "").strip()
    return int(text) if _COUNT.fullmatch(text) else None


def _seconds(text: str, now: datetime) -> float | None:
    """Return how far away a reset is: a span, a number of seconds, or a moment."""
    text = text.strip()
    found = _SPAN.fullmatch(text)
    if found is not None:
        days, hours, minutes, rest, unit = found.groups()
        seconds = float(rest or 0) / (1000 if unit == "ms" else 1)
        seconds += int(days or 0) * 86_400 + int(hours or 0) * 3_600 + int(minutes or 0) * 60
        return seconds
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now.timestamp()
